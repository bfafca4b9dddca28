"""The first measurements of a model's throughput on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import torch

from bot.gpt2.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bot.gpt2.model.transformer import Transformer

_FEW_ROWS: Final = 2
_MANY_ROWS: Final = 32
_REPETITIONS: Final = 5
_FEW_REPETITIONS: Final = 3


def measure(run: Callable[[int], None]) -> Throughput:
    """Measure the throughput of an idle model; takes half a second for GPT-2 small on two cores.

    Args:
        run: Computes a pass of so many rows and returns when it is done.
    """
    _seconds(run, _MANY_ROWS)  # the first pass compiles the products
    # The fastest of several, as other load can only add to it.
    few, many = (min(_seconds(run, rows) for _ in range(_REPETITIONS)) for rows in (_FEW_ROWS, _MANY_ROWS))
    per_row = max(many - few, 0.0) / (_MANY_ROWS - _FEW_ROWS)
    return Throughput(max(few - _FEW_ROWS * per_row, 1e-6), per_row)


def measure_each(run: Callable[[int], None], numbers: Iterable[int]) -> dict[int, float]:
    """Measure the seconds of a pass for each of these numbers of rows, which are no straight line for few rows."""
    return {rows: min(_seconds(run, rows) for _ in range(_FEW_REPETITIONS)) for rows in numbers}


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
