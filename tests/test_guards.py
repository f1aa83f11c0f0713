"""The list of guards fits the code; `python -m tests.guards` takes each out and sees that its test fails."""

import pytest

from tests.guards import GUARDS, ROOT


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_the_text_of_a_guard_is_still_there_and_its_tests_exist(guard) -> None:
    assert (ROOT / guard.file).read_text().count(guard.text) >= 1
    assert (ROOT / guard.tests.split()[0]).exists()
