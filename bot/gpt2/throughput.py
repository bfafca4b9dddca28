"""A cost model of forward passes: measured when the model is loaded, corrected by every pass since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WEIGHT: Final = 0.05  # of the latest pass in the running averages


@dataclass(slots=True)
class Throughput:
    """A linear cost model: a pass over n rows takes `scale * (base + n * per_row)` seconds.

    Attributes:
        base: Fixed seconds of a pass: the weights are read once, however many rows there are.
        per_row: Additional seconds for each row.
        scale: Running correction for long contexts, sampling and other load on the machine.
        tokens_per_second: Recent speed over all requests; None before the first pass.
    """

    base: float
    per_row: float
    scale: float = 1.0
    tokens_per_second: float | None = None

    def baseline_seconds(self, rows: int) -> float:
        """Return the uncorrected duration of one pass over so many rows."""
        return self.base + rows * self.per_row

    def seconds(self, rows: int, max_rows: int) -> float:
        """Estimate how long so many rows take in passes of at most `max_rows`."""
        per_pass = max(min(rows, max_rows), 1)
        return self.scale * rows * (self.base / per_pass + self.per_row)

    def record(self, rows: int, tokens: int, seconds: float, *, passes: float = 1.0) -> None:
        """Learn from a pass over `rows` rows that produced `tokens` new tokens.

        Args:
            rows: One for each prompt position and each sample.
            tokens: Several for each sample if they were drafted.
            seconds: Its duration, with the drafting.
            passes: How many passes it stands for: its tokens for each sample.
        """
        self.scale += _WEIGHT * (seconds / (passes * self.baseline_seconds(rows)) - self.scale)
        if tokens:
            speed, before = tokens / max(seconds, 1e-9), self.tokens_per_second
            self.tokens_per_second = speed if before is None else before + _WEIGHT * (speed - before)
