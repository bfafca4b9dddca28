"""What an engine has done so far, in numbers that its host may watch: counts and histograms, no text."""

from __future__ import annotations

import bisect
import time
from dataclasses import dataclass, field
from typing import Final

ROWS: Final = (1, 2, 5, 10, 20, 40, 60, 80, 96)
"""Upper bounds of the histogram of rows in a pass; 96 are the most samples, long prompts bring more."""

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Upper bounds of the histogram of waiting times; an interaction can be answered for 900 seconds."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram.

    Attributes:
        bounds: The upper bounds of the buckets, ascending; there is one more bucket for what is above.
        counts: How many values fell into each bucket.
        total: The sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Distribution:
        """Nothing was measured yet."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def __add__(self, other: Distribution) -> Distribution:
        """Both together, for an engine that consists of several.

        Raises:
            ValueError: Their buckets differ.
        """
        if self.bounds != other.bounds:
            raise ValueError("histograms with different buckets cannot be added")
        counts = tuple(one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Distribution(self.bounds, counts, self.total + other.total)


_NO_ROWS: Final = Distribution.empty(ROWS)
_NO_SECONDS: Final = Distribution.empty(SECONDS)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an engine has done since it was made, and what it does now.

    Attributes:
        computing: Requests that are being computed at this moment.
        tokens: New tokens so far.
        prompt_tokens: Tokens of prompts so far.
        rows: Rows in each pass: a row is a token of a sample, or of a prompt. How well requests share passes.
        first_token_seconds: From the acceptance of each request to its first token.
        stalled_seconds: For how long a worker with work to do has given no sign of life; 0 for one that has none.
    """

    computing: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    rows: Distribution = _NO_ROWS
    first_token_seconds: Distribution = _NO_SECONDS
    stalled_seconds: float = 0.0

    def __add__(self, other: Statistics) -> Statistics:
        """Both together; the longer silence."""
        return Statistics(
            self.computing + other.computing,
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
            self.rows + other.rows,
            self.first_token_seconds + other.first_token_seconds,
            max(self.stalled_seconds, other.stalled_seconds),
        )


@dataclass(slots=True)
class Histogram:
    """A `Distribution` in the making; one thread adds to it, any may take the picture."""

    bounds: tuple[float, ...]
    _counts: list[int] = field(init=False)
    _total: float = 0.0

    def __post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self._total += value

    def picture(self) -> Distribution:
        """As it is now."""
        return Distribution(self.bounds, tuple(self._counts), self._total)


@dataclass(slots=True)
class Tally:
    """Counts for one worker, which is the only one that writes.

    Attributes:
        tokens: New tokens so far.
        prompt_tokens: Tokens of prompts so far.
        rows: Rows in each pass.
        first_token_seconds: From the acceptance of each request to its first token.
        alive: `time.monotonic()` of the worker's last sign of life.
    """

    tokens: int = 0
    prompt_tokens: int = 0
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    first_token_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    alive: float = field(default_factory=time.monotonic)

    def sign_of_life(self) -> None:
        """The worker goes on."""
        self.alive = time.monotonic()

    def count_pass(self, rows: int, prompt_tokens: int, tokens: int) -> None:
        """A pass over so many rows was computed, of which so many were tokens of prompts, and gave so many new ones."""
        self.rows.add(rows)
        self.prompt_tokens += prompt_tokens
        self.tokens += tokens

    def picture(self, *, computing: int, at_work: bool) -> Statistics:
        """What was counted.

        Args:
            computing: Requests that are being computed.
            at_work: Whether the worker has something to do.
        """
        return Statistics(
            computing,
            self.tokens,
            self.prompt_tokens,
            self.rows.picture(),
            self.first_token_seconds.picture(),
            time.monotonic() - self.alive if at_work else 0.0,
        )
