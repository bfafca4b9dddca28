"""Counters and histograms of an engine's work, for operators; no text."""

from __future__ import annotations

import bisect
import time
from dataclasses import dataclass, field
from typing import Final

ROWS: Final = (1, 2, 5, 10, 20, 40, 60, 80, 96)
"""Upper bounds of the histogram of rows in a pass; 96 is the most samples, long prompts add more."""

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Upper bounds of the histogram of waiting times; an interaction can be answered for 900 seconds."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A snapshot of a histogram.

    Attributes:
        bounds: Upper bounds of the buckets, ascending; one more bucket holds everything above.
        counts: Number of values in each bucket.
        total: Sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Distribution:
        """Return a distribution without values."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def __add__(self, other: Distribution) -> Distribution:
        """Merge two distributions with the same buckets.

        Raises:
            ValueError: The buckets differ.
        """
        if self.bounds != other.bounds:
            raise ValueError("histograms with different buckets cannot be added")
        counts = tuple(one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Distribution(self.bounds, counts, self.total + other.total)


_NO_ROWS: Final = Distribution.empty(ROWS)
_NO_SECONDS: Final = Distribution.empty(SECONDS)


@dataclass(frozen=True, slots=True)
class Statistics:
    """An engine's work since it was created.

    Attributes:
        computing: Requests being computed now.
        tokens: New tokens so far.
        prompt_tokens: Prompt tokens so far.
        rows: Rows in each pass, where a row is a sample or a token of a prompt, drafts not counted: how well requests
            share passes.
        first_token_seconds: Time from each request's acceptance to its first token.
        drafted: Drafted tokens that were compared with the model's own.
        accepted: Those of them that were right.
        stalled_seconds: Time since the last heartbeat of a worker that has work; 0 for an idle one.
    """

    computing: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    rows: Distribution = _NO_ROWS
    first_token_seconds: Distribution = _NO_SECONDS
    stalled_seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float | None:
        """The share of right drafts; None if there were none."""
        return self.accepted / self.drafted if self.drafted else None

    def __add__(self, other: Statistics) -> Statistics:
        """Merge the statistics of two engines; the longer stall counts."""
        return Statistics(
            self.computing + other.computing,
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
            self.rows + other.rows,
            self.first_token_seconds + other.first_token_seconds,
            max(self.stalled_seconds, other.stalled_seconds),
            self.drafted + other.drafted,
            self.accepted + other.accepted,
        )


@dataclass(slots=True)
class Histogram:
    """A histogram that one thread adds to and any thread may take snapshots of."""

    bounds: tuple[float, ...]
    _counts: list[int] = field(init=False)
    _total: float = 0.0

    def __post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self._total += value

    def snapshot(self) -> Distribution:
        """Return the current counts."""
        return Distribution(self.bounds, tuple(self._counts), self._total)


@dataclass(slots=True)
class StatisticsRecorder:
    """The counters of one worker, which alone writes them.

    Attributes:
        tokens: New tokens so far.
        prompt_tokens: Prompt tokens so far.
        rows: Rows in each pass.
        first_token_seconds: Time from each request's acceptance to its first token.
        drafted: Drafted tokens that were compared with the model's own.
        accepted: Those of them that were right.
        last_heartbeat: `time.monotonic()` of the worker's last heartbeat.
    """

    tokens: int = 0
    prompt_tokens: int = 0
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    first_token_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    drafted: int = 0
    accepted: int = 0
    last_heartbeat: float = field(default_factory=time.monotonic)

    def heartbeat(self) -> None:
        """Note that the worker is alive."""
        self.last_heartbeat = time.monotonic()

    def count_pass(self, rows: int, prompt_tokens: int, tokens: int) -> None:
        """Count a pass over `rows` rows, `prompt_tokens` of them of prompts, that produced `tokens` new tokens."""
        self.rows.add(rows)
        self.prompt_tokens += prompt_tokens
        self.tokens += tokens

    def count_drafts(self, drafted: int, accepted: int) -> None:
        """Count compared drafts, and those of them that were right."""
        self.drafted += drafted
        self.accepted += accepted

    def snapshot(self, *, computing: int, busy: bool) -> Statistics:
        """Return the current statistics.

        Args:
            computing: Requests being computed.
            busy: Whether the worker has work.
        """
        return Statistics(
            computing,
            self.tokens,
            self.prompt_tokens,
            self.rows.snapshot(),
            self.first_token_seconds.snapshot(),
            time.monotonic() - self.last_heartbeat if busy else 0.0,
            self.drafted,
            self.accepted,
        )
