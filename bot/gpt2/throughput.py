"""How long forward passes take: measured when the model is loaded, and corrected by every pass since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WEIGHT: Final = 0.05  # of the latest pass in the running averages


@dataclass(slots=True)
class Pace:
    """A pass over n rows takes `scale * (base + n * per_row)` seconds: the weights are read once, whoever uses them.

    Attributes:
        base: Seconds that a pass takes however few rows it has.
        per_row: Seconds for each row more.
        scale: What has turned out since: attention to long texts, the draw, other programs on the machine.
        tokens_per_second: Of late, all requests together; None before anything was computed.
    """

    base: float
    per_row: float
    scale: float = 1.0
    tokens_per_second: float | None = None

    def quiet_seconds(self, rows: int) -> float:
        """How long one pass over so many rows took when the model was loaded."""
        return self.base + rows * self.per_row

    def seconds(self, rows: int, most_rows: int) -> float:
        """How long so many rows take, one after another or at most `most_rows` in one pass."""
        together = max(min(rows, most_rows), 1)
        return self.scale * rows * (self.base / together + self.per_row)

    def record(self, rows: int, tokens: int, seconds: float) -> None:
        """Learn from a pass over `rows` rows that gave `tokens` new tokens."""
        self.scale += _WEIGHT * (seconds / self.quiet_seconds(rows) - self.scale)
        if tokens:
            speed, before = tokens / max(seconds, 1e-9), self.tokens_per_second
            self.tokens_per_second = speed if before is None else before + _WEIGHT * (speed - before)
