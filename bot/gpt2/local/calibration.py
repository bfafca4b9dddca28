"""The first measurements of how long a model's passes take on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from bot.gpt2.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot.gpt2.model.transformer import Transformer

ROWS: Final = (1, 2, 4, 6, 8, 12, 16, 24, 48)
"""Numbers of rows that are measured on a CPU: oneDNN computes 6 at a time, so that 8 take a fifth longer than 6.

The model pads fewer than 4 rows to 4; the copy that drafts does not, so that one row is quicker.
"""

_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Durations:
    """Measured durations of a model's passes.

    Attributes:
        rows: The numbers of rows that were measured, at least two, ascending.
        seconds: The duration of a pass of each.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]

    def __call__(self, rows: int) -> float:
        """Return the seconds of a pass of so many rows, between and beyond the measured ones by straight lines."""
        beyond = max(rows - self.rows[-1], 0)
        slope = (self.seconds[-1] - self.seconds[-2]) / (self.rows[-1] - self.rows[-2])
        return float(np.interp(rows, self.rows, self.seconds)) + beyond * slope

    def throughput(self) -> Throughput:
        """Return the straight line through the first and the last."""
        (few, *_, many), (least, *_, most) = self.rows, self.seconds
        per_row = (most - least) / (many - few)
        return Throughput(max(least - few * per_row, 1e-6), per_row)


def measure(*runs: Callable[[int], None], rows: Sequence[int] = ROWS) -> list[Durations]:
    """Measure the passes of idle models; takes a second for GPT-2 small and its int8 copy on two cores.

    Args:
        runs: Each computes a pass of a model with so many rows and returns when it is done.
        rows: Numbers of rows, ascending.
    """
    seconds = np.full((len(runs), len(rows)), np.inf)
    # The fastest of several, as other load can only add to it; in turn, so that it adds to all alike. The first
    # compiles the products.
    for _ in range(_ROUNDS):
        for column, number in enumerate(rows):
            for row, run in enumerate(runs):
                seconds[row, column] = min(seconds[row, column], _seconds(run, number))
    # No pass takes longer than one of more rows: then it was disturbed.
    least = np.minimum.accumulate(seconds[:, ::-1], axis=1)[:, ::-1]
    return [Durations(tuple(rows), tuple(each)) for each in least.tolist()]


@torch.inference_mode()
def compute(transformer: Transformer, rows: int) -> None:
    """Compute a pass of so many rows without attention, and wait for it."""
    tokens = torch.zeros(rows, dtype=torch.int64, device=transformer.device)
    hidden = transformer.hidden(tokens, tokens, lambda _, qkv: qkv[:, : qkv.shape[1] // 3])
    float(transformer.logits(hidden).sum())  # waits for an asynchronous device


def _seconds(run: Callable[[int], None], rows: int) -> float:
    began = time.perf_counter()
    run(rows)
    return time.perf_counter() - began
