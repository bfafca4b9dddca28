"""The first measurement of a model's throughput on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import torch

from bot.gpt2.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.gpt2.model.transformer import Transformer

_FEW_ROWS: Final = 2
_MANY_ROWS: Final = 32
_REPETITIONS: Final = 5


def measure(run: Callable[[int], None]) -> Throughput:
    """Measure the throughput of an idle model; takes half a second for GPT-2 small on two cores.

    Args:
        run: Computes a pass of so many rows and returns when it is done.
    """

    def seconds(rows: int) -> float:
        began = time.perf_counter()
        run(rows)
        return time.perf_counter() - began

    seconds(_MANY_ROWS)  # the first pass compiles the products
    # The fastest of several, as other load can only add to it.
    few, many = (min(seconds(rows) for _ in range(_REPETITIONS)) for rows in (_FEW_ROWS, _MANY_ROWS))
    per_row = max(many - few, 0.0) / (_MANY_ROWS - _FEW_ROWS)
    return Throughput(max(few - _FEW_ROWS * per_row, 1e-6), per_row)


@torch.inference_mode()
def compute(transformer: Transformer, rows: int) -> None:
    """Compute a pass of so many rows without attention, and wait for it."""
    tokens = torch.zeros(rows, dtype=torch.int64, device=transformer.device)
    hidden = transformer.hidden(tokens, tokens, lambda _, qkv: qkv[:, : qkv.shape[1] // 3])
    float(transformer.logits(hidden).sum())  # waits for an asynchronous device
