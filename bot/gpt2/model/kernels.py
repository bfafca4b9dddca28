"""The CUDA kernels of `kernels.cu`: products, attention and draws in which a row has the same bits in every batch.

cuBLAS chooses a kernel by the number of rows, so that a row's bits depend on the crowd, and Triton needs a C compiler
on the machine. These are compiled at start by NVRTC, which PyTorch's build for CUDA brings, in about a second. Where
that does not work, or a self-test fails, `compiled` returns None, and the engine computes with PyTorch's operations.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import structlog
import torch
from torch.nn import functional

from bot.gpt2.model.device import pinned_zeros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE_LIMIT: Final = 256
"""The most numbers in an attention head."""

NORM_LIMIT: Final = 2048
"""The most numbers in a row of layer normalisation."""

CONTEXT_LIMIT: Final = 8192
"""The most positions of a text: their scores fit into the shared memory of any card."""

INNER_STEP: Final = 4
"""Matrices have a multiple of it as their inner dimension."""

GREEDY: Final = -1
"""The top-k of a draw that takes the likeliest token."""

_TYPES: Final = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "BFloat16"}
_ATTENDS: Final = ("attend<1>", "attend<4>")
_TILES: Final = ((1, 1), (2, 2), (4, 2), (8, 2))  # rows and outputs of a warp
_LINEAR_WARPS: Final = 4
_NORM_THREADS: Final = 256
_ATTEND_THREADS: Final = 256
_DRAW_THREADS: Final = 1024
_SMALL: Final = 1536  # outputs up to which a product of few rows has too few warps for larger tiles
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
_TOLERANCE: Final = 1e-5

log = structlog.get_logger(__name__)


@functools.cache
def compiled() -> Kernels | None:
    """Return the kernels for the current CUDA device, or None where they cannot be compiled or are wrong.

    Raises:
        torch.OutOfMemoryError: The device's memory is full.
    """
    try:
        kernels = Kernels()
        with torch.random.fork_rng(devices=[torch.cuda.current_device()]), torch.inference_mode():
            torch.manual_seed(0)
            fault = next(_faults(kernels), None)
        if fault is None:
            return kernels
    except torch.OutOfMemoryError:  # passes
        raise
    except (ImportError, OSError, RuntimeError) as error:
        fault = f"missing: {error}"
    log.warning("cannot use the kernels for CUDA; the GPU is several times slower", reason=fault)
    return None


class Kernels:
    """The compiled kernels; each call runs on PyTorch's current stream."""

    def __init__(self) -> None:
        """Compile for the current device.

        Raises:
            ImportError: PyTorch's build for CUDA is not installed as a whole.
            RuntimeError: CUDA or NVRTC refuse.
        """
        names = [_linear_name(kind, tile) for kind in _TYPES.values() for tile in _TILES]
        self._functions = _compile([*names, "layer_norm", *_ATTENDS, "draw"])

    def linear(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        *,
        gelu: bool = False,
        tile: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Return activation(x · weightᵀ + bias) + residual.

        Args:
            x: float32 [rows, in], contiguous, where `in` is a multiple of `INNER_STEP`.
            weight: [out, in], float32, float16 or bfloat16, contiguous.
            bias: float32 [out].
            residual: float32 [rows, out], contiguous.
            gelu: Whether the activation is GPT-2's ("gelu_new") instead of none.
            tile: Rows and outputs that a warp computes; None chooses, for speed alone.
        """
        (rows, inner), out = x.shape, len(weight)
        tile = tile or _choose_tile(rows, out)
        y = torch.empty(rows, out, device=x.device)
        self._launch(
            _linear_name(_TYPES[weight.dtype], tile),
            (-(-rows // tile[0]), -(-out // (_LINEAR_WARPS * tile[1])), 1),
            32 * _LINEAR_WARPS,
            0,
            (_POINTER, x.data_ptr()),
            (_POINTER, weight.data_ptr()),
            (_POINTER, _address(bias)),
            (_POINTER, _address(residual)),
            (_POINTER, y.data_ptr()),
            *((_INT, number) for number in (rows, inner, out, int(gelu))),
        )
        return y

    def layer_norm(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Return the layer normalisation of float32 [rows, d], contiguous, where d is at most `NORM_LIMIT`."""
        y = torch.empty_like(x)
        self._launch(
            "layer_norm",
            (len(x), 1, 1),
            _NORM_THREADS,
            0,
            *((_POINTER, tensor.data_ptr()) for tensor in (x, weight, bias, y)),
            (_INT, x.shape[1]),
            (_FLOAT, epsilon),
        )
        return y

    def attend(
        self, qkv: torch.Tensor, cache: torch.Tensor, table: torch.Tensor, scale: float, heads: int, longest: int
    ) -> torch.Tensor:
        """Attend from single positions to their own texts, and store their keys and values.

        Args:
            qkv: Queries, keys and values side by side, float32 [rows, 3d], contiguous.
            cache: Keys and values of all places, float32 [places, 2d], contiguous.
            table: int64 [7, rows] with contiguous rows: position, start, prompt, own, stride, first and place, as
                `kernels.cu` and `bot.gpt2.local.slots` explain them.
            scale: Factor for the queries.
            heads: Their number; d / heads is at most `SIZE_LIMIT`.
            longest: The most positions that a row may see, at most `CONTEXT_LIMIT`.

        Returns:
            float32 [rows, d].
        """
        rows, width = len(qkv), qkv.shape[1] // 3
        size = width // heads
        y = torch.empty(rows, width, device=qkv.device)
        vector = 1 if size % 4 else 4
        self._launch(
            f"attend<{vector}>",
            (heads, rows, 1),
            _ATTEND_THREADS,
            4 * (size + vector * _ATTEND_THREADS + longest),
            (_POINTER, qkv.data_ptr()),
            (_POINTER, cache.data_ptr()),
            (_POINTER, table.data_ptr()),
            (_POINTER, y.data_ptr()),
            *((_INT, number) for number in (heads, size, table.stride(0))),
            (_FLOAT, scale),
        )
        return y

    def draw(
        self,
        logits: torch.Tensor,
        noise: torch.Tensor,
        table: torch.Tensor,
        tokens: torch.Tensor,
        read: torch.Tensor,
    ) -> None:
        """Draw tokens as Transformers does with temperature and top-k.

        Args:
            logits: float32 [., vocabulary], contiguous.
            noise: Exponentially distributed numbers, float32 [., vocabulary], contiguous.
            table: int64 [5, draws] with contiguous rows: the row of the logits, the index of the result, the row of
                the noise, top-k (0 keeps all tokens, `GREEDY` takes the likeliest), and the bits of the float32 by
                which logits are multiplied.
            tokens: int64, takes the results: token ids, or -1 where a logit is not finite.
            read: The same in the host's pinned memory.
        """
        self._launch(
            "draw",
            (table.shape[1], 1, 1),
            _DRAW_THREADS,
            0,
            *((_POINTER, tensor.data_ptr()) for tensor in (logits, noise, table, tokens, read)),
            (_INT, logits.shape[1]),
            (_INT, table.stride(0)),
        )

    def _launch(
        self, name: str, grid: tuple[int, int, int], threads: int, shared: int, *arguments: tuple[Any, Any]
    ) -> None:
        kinds, values = zip(*arguments, strict=True)
        stream = torch.cuda.current_stream().cuda_stream
        _driver("cuLaunchKernel", self._functions[name], *grid, threads, 1, 1, shared, stream, (values, kinds), 0)


def _linear_name(kind: str, tile: tuple[int, int]) -> str:
    return f"linear<{kind}, {tile[0]}, {tile[1]}>"


def _choose_tile(rows: int, out: int) -> tuple[int, int]:
    """Return the fastest tile as measured on an H200; all give the same bits."""
    few = 8
    if rows == 1 or (rows <= few and out <= _SMALL):
        return (1, 1)
    if rows <= few - 2:
        return (2, 2)
    return (4, 2) if rows <= 2 * few else (8, 2)


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _compile(names: Sequence[str]) -> dict[str, Any]:
    """Compile `kernels.cu` and return the functions of these names."""
    source = resources.files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")
    torch.zeros(1, device="cuda")  # the context of PyTorch is that of the functions
    major, minor = torch.cuda.get_device_capability()
    program = _nvrtc("nvrtcCreateProgram", source.encode(), b"kernels.cu", 0, [], [])
    for name in names:
        _nvrtc("nvrtcAddNameExpression", program, name.encode())
    options = [f"--gpu-architecture=sm_{major}{minor}".encode(), b"--std=c++17", b"-default-device"]  # of lambdas
    try:
        _nvrtc("nvrtcCompileProgram", program, len(options), options)
    except RuntimeError as error:
        text = b" " * _nvrtc("nvrtcGetProgramLogSize", program)
        _nvrtc("nvrtcGetProgramLog", program, text)
        raise RuntimeError(f"{error}: {text.decode(errors='replace').strip()}") from error
    cubin = b" " * _nvrtc("nvrtcGetCUBINSize", program)
    _nvrtc("nvrtcGetCUBIN", program, cubin)
    module = _driver("cuModuleLoadData", cubin)
    return {
        name: _driver("cuModuleGetFunction", module, _nvrtc("nvrtcGetLoweredName", program, name.encode()))
        for name in names
    }


def _nvrtc(function: str, *arguments: Any) -> Any:
    from cuda.bindings import nvrtc  # noqa: PLC0415 # comes with PyTorch's build for CUDA

    return _checked(function, getattr(nvrtc, function)(*arguments))


def _driver(function: str, *arguments: Any) -> Any:
    from cuda.bindings import driver  # noqa: PLC0415

    return _checked(function, getattr(driver, function)(*arguments))


def _checked(function: str, outcome: tuple[Any, ...]) -> Any:
    """Return the result of a call.

    Raises:
        RuntimeError: It failed.
    """
    error, *results = outcome
    if int(error):
        raise RuntimeError(f"CUDA error: {function}: {error}")
    return results[0] if results else None


def _faults(kernels: Kernels) -> Iterator[str]:
    """Yield what is wrong with the kernels on this device."""
    yield from _linear_faults(kernels)
    yield from _norm_faults(kernels)
    yield from _attend_faults(kernels)
    yield from _draw_faults(kernels)


def _linear_faults(kernels: Kernels) -> Iterator[str]:
    for dtype, (out, inner) in itertools.product(_TYPES, ((7, 12), (768, 768), (130, 3072))):
        x = torch.randn(96, inner, device="cuda")
        weight, bias = torch.randn(out, inner, device="cuda").to(dtype), torch.randn(out, device="cuda")
        whole = kernels.linear(x, weight, bias, tile=_TILES[-1])
        expected = functional.linear(x.double(), weight.double(), bias.double())
        if not torch.allclose(whole.double(), expected, rtol=_TOLERANCE, atol=_TOLERANCE * expected.abs().max().item()):
            yield f"products are wrong in {dtype}"
        for tile, rows in itertools.product(_TILES, (1, 2, 5, 33)):
            part = kernels.linear(x[40 : 40 + rows].contiguous(), weight, bias, tile=tile)
            if not torch.equal(part, whole[40 : 40 + rows]):
                yield f"products depend on the batch in {dtype}"
        gelu = kernels.linear(x, weight, bias, whole, gelu=True)
        expected = functional.gelu(whole, approximate="tanh") + whole
        if not torch.allclose(gelu, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            yield "the activation is wrong"


def _norm_faults(kernels: Kernels) -> Iterator[str]:
    for width in (12, 768, NORM_LIMIT):
        x, weight, bias = (torch.randn(shape, device="cuda") for shape in ((5, width), (width,), (width,)))
        expected = functional.layer_norm(x.double(), (width,), weight.double(), bias.double(), 1e-5)
        if not torch.allclose(kernels.layer_norm(x, weight, bias, 1e-5).double(), expected, atol=_TOLERANCE):
            yield "layer normalisation is wrong"


def _attend_faults(kernels: Kernels) -> Iterator[str]:
    heads, places, scale = 3, 1000, 0.125
    # Twenty positions of a prompt, and samples behind prompts of half of their length, stored where nobody reads.
    chunk = [[position, 3, 25, 0, 0, 0, 3 + position] for position in range(20)]
    samples = [[p, p % 3 + 30, p // 2, p // 2 + 40, p % 2 + 1, p, places + p] for p in range(31, 600, 31)]
    table = torch.tensor([*chunk, *samples]).T.contiguous()
    for size in (64, 25):
        qkv = torch.randn(table.shape[1], 3 * heads * size, device="cuda")
        cache = torch.randn(2 * places, 2 * heads * size, device="cuda")
        whole = kernels.attend(qkv, cache, table.cuda(), scale, heads, 600)
        if not torch.equal(cache[table[6].cuda()], qkv[:, heads * size :]):
            yield "attention does not store keys and values"
        for row, (position, start, prompt, own, stride, _, place) in enumerate(table.T.tolist()):
            one = table[:, row : row + 1].clone()
            one[5] = position  # the others are stored now
            if not torch.equal(kernels.attend(qkv[row:][:1], cache, one.cuda(), scale, heads, 700)[0], whole[row]):
                yield "attention depends on the batch"
            seen = [start + j if j < prompt else own + (j - prompt) * stride for j in range(position)] + [place]
            keys, values = cache[seen].view(-1, 2, heads, size).double().unbind(1)
            scores = torch.einsum("hs,jhs->hj", qkv[row, : heads * size].view(heads, size).double() * scale, keys)
            expected = torch.einsum("hj,jhs->hs", scores.softmax(-1), values).flatten()
            if not torch.allclose(whole[row].double(), expected, atol=_TOLERANCE):
                yield "attention is wrong"


def _draw_faults(kernels: Kernels) -> Iterator[str]:
    vocabulary, settings = 5003, ((0, 1.0), (1, 1.0), (50, 1.0), (50, 0.7), (1000, 1.3), (0, 2.0))
    logits = torch.randn(3, vocabulary, device="cuda") * 4 - 30
    logits[1] = logits[1].round()  # many are equal
    noise = torch.empty(len(settings), vocabulary, device="cuda").exponential_()

    def drawn(row: int, top_ks: Sequence[int]) -> list[int]:
        scales = [torch.tensor(1 / temperature).view(torch.int32).item() for _, temperature in settings]
        draws = range(len(settings))
        table = torch.tensor([[row] * len(draws), draws, draws, top_ks, scales], device="cuda")
        tokens = torch.zeros(len(draws), dtype=torch.int64, device="cuda")
        read = pinned_zeros(len(draws), logits.device)
        kernels.draw(logits, noise, table, tokens, read)
        given: list[int] = tokens.tolist()
        return given if read.tolist() == given else []

    for row in range(len(logits)):
        tokens = drawn(row, [top_k for top_k, _ in settings])
        if not tokens:
            yield "draws do not reach the host"
        for draw, token in enumerate(tokens):
            top_k, temperature = settings[draw]
            scores = logits[row] / temperature
            if top_k:
                scores = scores.masked_fill(scores < scores.topk(top_k).values[-1], -torch.inf)
            if int((scores.softmax(-1) / noise[draw]).argmax()) != token:
                yield "draws are wrong"
        if set(drawn(row, [GREEDY] * len(settings))) != {int(logits[row].argmax())}:
            yield "the likeliest token is wrong"
    logits[0, 1234] = torch.nan
    if set(drawn(0, [top_k for top_k, _ in settings])) != {-1}:
        yield "a token is drawn from logits that are not finite"
