"""What a guard is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """What stands in `file`, what is there without the guard, and the tests of which at least one has to fail then."""

    name: str
    file: str
    text: str
    without: str
    tests: str
