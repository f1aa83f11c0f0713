"""What goes wrong at the stand-in for Stripe, by chance or on demand."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Faults:
    """What goes wrong, by chance (`rates`: 0 to 1 each, seeded) or next (`queue`), with the requests that `only` lets through.

    error: 500, nothing done. broken: done, then 500. lost: done, no answer. timeout: nothing done, no answer for `hang` seconds.
    busy: 429. delay: done after up to `slow` seconds. Webhooks: `twice` and `shuffle` say how often they repeat and swap.
    """

    rng: random.Random
    rates: dict[str, float] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    only: Callable[[str, str], bool] = lambda _method, _path: True
    hang: float = 2.0
    slow: float = 0.2
    twice: float = 0.0
    shuffle: bool = False
    done: Counter[str] = field(default_factory=Counter)

    def next(self, method: str, path: str) -> str:
        """What befalls this request, or nothing."""
        if not self.only(method, path):
            return ""
        kind = self.queue.pop(0) if self.queue else self._chosen()
        self.done[kind or "none"] += 1
        return kind

    def _chosen(self) -> str:
        dice = self.rng.random()
        for kind, rate in self.rates.items():
            dice -= rate
            if dice < 0:
                return kind
        return ""
