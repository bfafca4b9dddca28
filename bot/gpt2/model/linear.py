"""Linear layers for few rows, with weights packed once by oneDNN.

The GEMM behind `F.linear` is slow for few rows on some processors, and a row's result depends on the rows beside it,
so that a sample could depend on other requests. oneDNN's packed product is faster and computes the same bits for a
row whatever the batch and the number of threads. Its operators are private to PyTorch. They are tested once per
process for their numbers and this independence; `F.linear` is the fallback. On CUDA `kernels` has such a product.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import structlog
import torch
from torch.nn import functional

from bot.gpt2.model import kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot.config import Precision

    Activation = Callable[[torch.Tensor], torch.Tensor]

DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""By the precision of the weights."""

_PACKED_FOR_ROWS: Final = 16  # the batch size for which oneDNN chooses the layout
_MIN_ROWS: Final = 4  # fewer take longer where the weights come from memory, and a single one may have other bits
_FEW_ROWS: Final = 8  # up to which every number has a kernel of its own
_ROW_STEP: Final = 4  # more rows are rounded up to a multiple of it
# oneDNN keeps half a megabyte of compiled code for each combination of layer, rows and threads, so they are few.
_TEST_LAYERS: Final = ((96, 64, True), (128, 3072, False))  # out, in, with gelu_new
_TEST_ROWS: Final = (1, 3, 5, 6, 11, 16, 33, 80)
_TEST_ROWS_OF_ONE_THREAD: Final = (1, 80)
_TOLERANCE: Final = 1e-4
_CHUNK: Final = 1024  # rows that are compared at once
_BLOCK_WIDTHS: Final = (64, 48, 32, 24, 16, 8)  # oneDNN's, by the processor
_FLOAT32_BYTES: Final = 4

log = structlog.get_logger(__name__)


class Linear(Protocol):
    """A map from x [rows, in] to activation(x · weightᵀ + bias) + residual [rows, out]."""

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Apply to float32 [rows, in] with at least one row; None adds nothing."""
        ...


def make_linear(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    precision: Precision = "float32",
    activation: Activation | None = None,
) -> Linear:
    """Return a linear layer, which does not keep `weight` if it could be packed.

    Args:
        weight: float32 [out, in].
        bias: float32 [out], or None.
        precision: Of the stored weight; on the CPU float16 by FBGEMM, bfloat16 not at all.
        activation: Applied to the outputs; None is the identity.
    """
    if weight.device.type == "cuda":
        return CudaLinear(weight, bias, precision, activation)
    product: Callable[[torch.Tensor], torch.Tensor]
    if precision == "float16":
        packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)
        product = functools.partial(torch.ops.quantized.linear_dynamic_fp16.default, W_prepack=packed)
    elif packing_works():
        fuses = activation is gelu_new
        product, activation = _Packed(weight, bias, gelu=fuses), None if fuses else activation
    else:
        product = functools.partial(functional.linear, weight=weight, bias=bias)
    return _CpuLinear(product, activation)


def packed_rows(layer: Linear, weight: torch.Tensor) -> PackedRows | None:
    """Return the rows of a layer's packed weight, so that `weight` need not be kept beside it.

    Args:
        layer: From `make_linear`.
        weight: [out, in] in any dtype.

    Returns:
        None where the layer is not packed, has another weight, or has a layout that is not understood.
    """
    if not isinstance(layer, _CpuLinear) or not isinstance(layer.product, _Packed):
        return None
    for width in _BLOCK_WIDTHS:
        rows = layer.product.rows(width, weight.shape[1])
        if rows is not None and _equal(rows, weight):
            return rows
    return None


def packs(device: torch.device, precision: Precision) -> bool:
    """Return whether `make_linear` copies weights into a layout of its own."""
    return device.type == "cpu" and (precision == "float16" or packing_works())


@functools.cache
def packing_works() -> bool:
    """Return whether oneDNN's packed product is available, right and independent of the batch."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fault = next(filter(None, (_find_fault(out, inner, gelu=gelu) for out, inner, gelu in _TEST_LAYERS)), None)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        fault = f"missing: {error}"
    if fault:
        log.warning("cannot use oneDNN's packed matrix product; the engine is slower", reason=fault)
    return fault is None


class CudaLinear:
    """A linear layer on CUDA: with our own product where it works, so that rows are independent of each other.

    Attributes:
        weight: In the stored precision, [out, in] with `in` rounded up to a multiple of `kernels.INNER_STEP`.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, precision: Precision, activation: Activation | None
    ) -> None:
        self._padding = -weight.shape[1] % kernels.INNER_STEP
        self.weight = self._padded(weight).to(DTYPES[precision]).contiguous()
        self._bias = bias
        self._activation = activation
        self._kernels = kernels.compiled()
        self._fuses = self._kernels is not None and activation is gelu_new

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """See `Linear`."""
        x = self._padded(x).contiguous()
        if self._kernels is None:
            return _completed(self._unfused(x), self._activation, residual)
        if self._activation is None or self._fuses:
            return self._kernels.linear(x, self.weight, self._bias, residual, gelu=self._fuses)
        return _completed(self._kernels.linear(x, self.weight, self._bias), self._activation, residual)

    def _padded(self, matrix: torch.Tensor) -> torch.Tensor:
        return functional.pad(matrix, (0, self._padding)) if self._padding else matrix

    def _unfused(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight.float(), self._bias)


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    """Compute GPT-2's activation in one pass over memory instead of the eight of Transformers."""
    return functional.gelu(x, approximate="tanh")


@dataclass(frozen=True, slots=True)
class _CpuLinear:
    """A linear layer on the CPU: a product with its bias, and what follows."""

    product: Callable[[torch.Tensor], torch.Tensor]
    activation: Activation | None

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return _completed(self.product(x), self.activation, residual)


def _completed(y: torch.Tensor, activation: Activation | None, residual: torch.Tensor | None) -> torch.Tensor:
    if activation is not None:
        y = activation(y)
    return y if residual is None else y.add_(residual)


class PackedRows:
    """The rows of a weight that oneDNN keeps in blocks of rows, each transposed."""

    def __init__(self, blocks: torch.Tensor, owner: object) -> None:
        """Take the blocks, [blocks, rows, in], and what owns their memory."""
        self._blocks = blocks
        self._owner = owner

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows by their indices, int64 [n]: float32 [n, in]."""
        width = self._blocks.shape[1]
        return self._blocks[rows // width, rows % width]


class _Packed:
    """A product with the weight in oneDNN's own layout, followed by `gelu_new` if so asked."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, gelu: bool = False) -> None:
        operators = torch.ops.mkldnn
        self._weight = operators._reorder_linear_weight(weight.contiguous(), _PACKED_FOR_ROWS)  # noqa: SLF001
        self._bias = bias
        self._activation: tuple[str, list[float], str] = ("gelu", [], "tanh") if gelu else ("none", [], "")
        self._product: Callable[..., torch.Tensor] = operators._linear_pointwise  # noqa: SLF001

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        padding = padded_rows(rows) - rows
        if padding:
            return self(functional.pad(x, (0, 0, 0, padding)))[:rows]
        return self._product(x, self._weight, self._bias, *self._activation)

    def rows(self, width: int, inner: int) -> PackedRows | None:
        """Return the weight's rows, if it is in blocks of `width` rows of `inner` numbers."""
        address, size = (getattr(torch.ops.mkldnn, name)(self._weight) for name in ("data_ptr", "_nbytes"))
        numbers = size // _FLOAT32_BYTES
        if numbers % (width * inner):
            return None
        memory = np.ctypeslib.as_array((ctypes.c_float * numbers).from_address(address))
        return PackedRows(torch.from_numpy(memory).view(-1, inner, width).transpose(1, 2), self._weight)


def padded_rows(rows: int) -> int:
    """Return how many rows are computed for so many: 4 to 8, or a multiple of 4.

    Padding is safe: rows are independent. oneDNN compiles and keeps a kernel for every number of rows, which would
    fill memory over weeks.
    """
    return max(rows, _MIN_ROWS) if rows <= _FEW_ROWS else math.ceil(rows / _ROW_STEP) * _ROW_STEP


def _equal(rows: PackedRows, weight: torch.Tensor) -> bool:
    for begin in range(0, len(weight), _CHUNK):  # not all at once, which would be a copy
        indices = torch.arange(begin, min(begin + _CHUNK, len(weight)))
        if not torch.equal(rows[indices], weight[indices].float()):
            return False
    return True


def _find_fault(out: int, inner: int, *, gelu: bool) -> str | None:
    """Compare the packed product with `F.linear` and with itself in other batches; return what differs."""
    weight, bias = torch.randn(out, inner), torch.randn(out)
    x = torch.randn(max(_TEST_ROWS), inner)
    packed = _Packed(weight, bias, gelu=gelu)
    whole = packed(x)
    expected = functional.linear(x, weight, bias)
    expected = gelu_new(expected) if gelu else expected
    if not torch.allclose(whole, expected, rtol=_TOLERANCE, atol=_TOLERANCE * expected.abs().max().item()):
        return "its numbers are wrong"
    threads = torch.get_num_threads()
    cases = [(threads, rows) for rows in _TEST_ROWS] + [(1, rows) for rows in _TEST_ROWS_OF_ONE_THREAD]
    for number, rows in cases:
        with _number_of_threads(number):
            for start in (0, len(x) - rows):
                if not torch.equal(packed(x[start : start + rows].contiguous()), whole[start : start + rows]):
                    return f"its result depends on the batch ({rows} rows of {out} × {inner}, {number} threads)"
    return None


@contextlib.contextmanager
def _number_of_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
