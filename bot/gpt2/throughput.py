"""How long passes take: measured when the model is loaded, and corrected by every pass since."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bot.gpt2.model.transformer import Transformer

_FEW_ROWS: Final = 2
_MANY_ROWS: Final = 32
_REPETITIONS: Final = 3
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


def measure(transformer: Transformer) -> Pace:
    """The pace of a model that nobody uses yet; takes a quarter of a second for GPT-2 small on two cores."""
    import torch  # noqa: PLC0415 # a pace is also read where nothing is computed

    @torch.inference_mode()
    def seconds(rows: int) -> float:
        began = time.perf_counter()
        tokens = torch.zeros(rows, dtype=torch.int64, device=transformer.device)
        hidden = transformer.hidden(tokens, tokens, lambda _, qkv: qkv[:, : qkv.shape[1] // 3])
        float(transformer.logits(hidden).sum())  # waits for a device that computes by itself
        return time.perf_counter() - began

    seconds(_MANY_ROWS)  # the first time compiles the products
    few, many = (statistics.median(seconds(rows) for _ in range(_REPETITIONS)) for rows in (_FEW_ROWS, _MANY_ROWS))
    per_row = max(many - few, 0.0) / (_MANY_ROWS - _FEW_ROWS)
    return Pace(max(few - _FEW_ROWS * per_row, 1e-6), per_row)
