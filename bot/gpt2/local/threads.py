"""How the threads that compute a pass wait, and how many they are: all of them, unless fewer are faster.

The threads of a pass synchronize dozens of times a token. On a machine with other load the awaited thread may not be
scheduled at all: two threads were seen to take ten times as long as one. No load figure predicts this, so now and then
a pass is computed with another number of threads, and the faster number stays.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

SPINS: Final = 20_000
"""How often a thread of GNU's OpenMP looks for the next product before it sleeps.

That takes 1 to 2 ms, longer than most pauses between products. By default a thread spins for about 10 ms, and uses up a
core while tokens are drawn and after every answer.
"""

TRIAL_SECONDS: Final = 2.0
"""Time until the first trial of another number; doubles after every failed trial, up to `MAX_TRIAL_SECONDS`.

While all threads are used, idle time does not count: or else the first pass of most requests would be a trial.
"""

MAX_TRIAL_SECONDS: Final = 16.0
BETTER: Final = 0.85
"""Largest relative duration at which another number is adopted; passes vary by themselves."""

_SLOWDOWN: Final = 3.0  # a pass so many times slower than the average triggers a trial at once
_WEIGHT: Final = 0.2  # of the latest pass in the running average


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Set `SPINS`, unless the operator has said how threads wait; OpenMP reads it when PyTorch is imported."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))


class ThreadTuner:
    """Hill climbing over the number of threads: halves or doubles it for one pass and keeps what is faster.

    Args:
        max_threads: The most threads to use.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, max_threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = max_threads
        self._max_threads = max_threads
        self._clock = clock
        self._cost = 1.0  # running average of a pass's duration relative to its baseline
        self._interval = TRIAL_SECONDS
        self._next_trial_at = clock() + self._interval
        self._idle_since = clock()
        self._trial: int | None = None
        self._upwards = False  # direction of the last trial

    def choose(self) -> int:
        """Return the number of threads for the next pass."""
        now = self._clock()
        if self.threads == self._max_threads:
            self._next_trial_at += now - self._idle_since
        due = self._max_threads > 1 and now >= self._next_trial_at
        self._trial = self._neighbour() if due else None
        return self._trial or self.threads

    def record(self, baseline_seconds: float, seconds: float) -> None:
        """Learn from the pass for which `choose` was last called.

        Args:
            baseline_seconds: Its duration on an idle machine with all threads.
            seconds: Its measured duration.
        """
        cost = seconds / baseline_seconds
        self._idle_since = self._clock()
        if self._trial is not None:
            self._judge(self._trial, cost)
        else:
            limit = _SLOWDOWN * self._cost
            if self.threads > 1 and cost > limit:
                self._upwards, self._next_trial_at = True, self._clock()  # so the next trial takes fewer
            self._cost += _WEIGHT * (min(cost, limit) - self._cost)  # caps the weight of a single stalled pass

    def _judge(self, threads: int, cost: float) -> None:
        if cost <= BETTER * self._cost:
            self.threads, self._cost, self._interval = threads, cost, TRIAL_SECONDS
        else:
            self._interval = min(2 * self._interval, MAX_TRIAL_SECONDS)
        self._next_trial_at = self._clock() + self._interval
        self._trial = None

    def _neighbour(self) -> int:
        """Return half or twice the number in turn, or the only one of them at either end."""
        fewer, more = self.threads // 2, min(2 * self.threads, self._max_threads)
        self._upwards = self.threads == 1 or (not self._upwards and self.threads < self._max_threads)
        return more if self._upwards else fewer
