"""How many threads compute a pass: as many as there are, unless fewer are faster.

The threads of a pass wait for one another dozens of times a token. On a machine that does other work too, whoever is
waited for may not be running at all, and two threads were seen to take ten times as long as one. No figure says so
beforehand, so now and then a pass is computed with another number of threads, and the faster one stays.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TRY_SECONDS: Final = 2.0
"""How long until another number of threads is tried; doubles with every attempt in vain, up to `RARELY_SECONDS`."""

RARELY_SECONDS: Final = 16.0
BETTER: Final = 0.85
"""Another number of threads stays if it takes no more than this share of the time: passes differ by themselves."""

_SURPRISE: Final = 3.0  # a pass that takes so many times as long as those before is reason to try at once
_WEIGHT: Final = 0.2  # of the latest pass in the running average


class Crew:
    """Chooses a number of threads before each pass, and learns from how long it took.

    Args:
        most: All threads that there are to choose from.
        clock: Seconds that go on.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = most
        self._most = most
        self._clock = clock
        self._cost = 1.0  # how long a pass took of late with `threads`, and how long it would on a quiet machine
        self._patience = TRY_SECONDS
        self._try_at = clock() + self._patience
        self._trial: int | None = None
        self._upwards = False  # where the last trial went

    def choose(self) -> int:
        """The number of threads for the next pass."""
        due = self._most > 1 and self._clock() >= self._try_at
        self._trial = self._neighbour() if due else None
        return self._trial or self.threads

    def record(self, quiet_seconds: float, seconds: float) -> None:
        """Learn how long the pass took for which `choose` was asked last.

        Args:
            quiet_seconds: How long it would have taken when all threads were measured.
            seconds: How long it took.
        """
        cost = seconds / quiet_seconds
        if self._trial is not None:
            self._judge(self._trial, cost)
        else:
            most = _SURPRISE * self._cost
            if self.threads > 1 and cost > most:
                self._upwards, self._try_at = True, self._clock()  # then fewer are next
            self._cost += _WEIGHT * (min(cost, most) - self._cost)  # one pass that stood still says little

    def _judge(self, threads: int, cost: float) -> None:
        if cost <= BETTER * self._cost:
            self.threads, self._cost, self._patience = threads, cost, TRY_SECONDS
        else:
            self._patience = min(2 * self._patience, RARELY_SECONDS)
        self._try_at = self._clock() + self._patience
        self._trial = None

    def _neighbour(self) -> int:
        """Half as many or twice as many, in turns; the only one of them at either end."""
        fewer, more = self.threads // 2, min(2 * self.threads, self._most)
        self._upwards = self.threads == 1 or (not self._upwards and self.threads < self._most)
        return more if self._upwards else fewer
