"""Linear layers for few rows: weights packed once by oneDNN, where that is faster and exact.

The GEMM that `F.linear` calls for a handful of rows is slow on some processors, and its result for a row depends on
the rows around it, so that a sample could depend on who else is being served. oneDNN's packed product is faster and
gives a row the same bits whatever the batch and the number of threads. Its operators are private to PyTorch, so they
are tested once a process, for the numbers and this independence, and `F.linear` serves where they fail or are missing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import torch
from torch.nn import functional

from bot.gpt2.model.huge_pages import use_huge_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot.config import Precision

_PACKED_FOR_ROWS: Final = 16  # oneDNN chooses the layout for about so many rows at once
_ROW_STEP: Final = 8  # more rows than this are rounded up to a multiple of it
_TEST_SHAPES: Final = ((96, 64), (128, 3072))  # [out, in]
_TEST_ROWS: Final = (1, 2, 3, 5, 16, 33, 80)
_TOLERANCE: Final = 1e-4

log = structlog.get_logger(__name__)


class Linear(Protocol):
    """x [rows, in] → x · weightᵀ + bias [rows, out]."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to float32 [rows, in], rows at least 1."""
        ...


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None, precision: Precision = "float32") -> Linear:
    """A linear layer that does not keep `weight` where it could be packed.

    Args:
        weight: float32 [out, in].
        bias: float32 [out], or None.
        precision: What the weight is rounded to; float16 is for the CPU, by FBGEMM.
    """
    if precision == "float16" and weight.device.type == "cpu":
        return functools.partial(_half, packed=torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias))
    if weight.device.type == "cpu" and packing_works():
        return _Packed(weight, bias)
    return functools.partial(_plain, weight=weight, bias=bias)


@functools.cache
def packing_works() -> bool:
    """Whether oneDNN's packed product is there, right, and independent of the batch on this machine."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fault = next(filter(None, (_fault(*shape) for shape in _TEST_SHAPES)), None)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        fault = f"missing: {error}"
    if fault:
        log.warning("oneDNN's packed matrix product is not used; the engine is slower", reason=fault)
    return fault is None


class _Packed:
    """oneDNN's product with a weight in its own layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        operators = torch.ops.mkldnn
        self._weight = operators._reorder_linear_weight(weight.contiguous(), _PACKED_FOR_ROWS)  # noqa: SLF001
        use_huge_pages(operators.data_ptr(self._weight), operators._nbytes(self._weight))  # noqa: SLF001
        self._bias = bias
        self._product: Callable[..., torch.Tensor] = operators._linear_pointwise  # noqa: SLF001
        self._least = 1
        if not self._same_alone(weight.shape[1]):
            self._least = 2

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        missing = max(self._least, _rounded(rows)) - rows
        if missing:
            x = functional.pad(x, (0, 0, 0, missing))
        return self._product(x, self._weight, self._bias, "none", [], "")[:rows]

    def _same_alone(self, inner: int) -> bool:
        """Whether a row has the same bits where it is the only one: not with a long inner dimension, 1,600 or more."""
        x = torch.randn(2, inner, generator=torch.Generator().manual_seed(0))
        first = self(x)[:1]
        for threads in (1, torch.get_num_threads()):
            with _number_of_threads(threads):
                if not torch.equal(self(x[:1]), first):
                    return False
        return True


def _half(x: torch.Tensor, *, packed: object) -> torch.Tensor:
    product: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return product


def _rounded(rows: int) -> int:
    """How many rows are computed for so many: no row changes with the others, so there may be some that nobody needs.

    oneDNN compiles a product for every number of rows it meets and keeps them all, which would fill memory over weeks.
    """
    return rows if rows <= _ROW_STEP else math.ceil(rows / _ROW_STEP) * _ROW_STEP


def _plain(x: torch.Tensor, *, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return functional.linear(x, weight, bias)


def _fault(out: int, inner: int) -> str | None:
    weight, bias = torch.randn(out, inner), torch.randn(out)
    x = torch.randn(max(_TEST_ROWS), inner)
    packed = _Packed(weight, bias)
    whole = packed(x)
    expected = functional.linear(x, weight, bias)
    if not torch.allclose(whole, expected, rtol=_TOLERANCE, atol=_TOLERANCE * expected.abs().max().item()):
        return "its numbers are wrong"
    for threads, rows in itertools.product((1, torch.get_num_threads()), _TEST_ROWS):
        with _number_of_threads(threads):
            for start in (0, len(x) - rows):
                if not torch.equal(packed(x[start : start + rows].contiguous()), whole[start : start + rows]):
                    return f"its result depends on the batch ({rows} rows of {out} × {inner}, {threads} threads)"
    return None


@contextlib.contextmanager
def _number_of_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
