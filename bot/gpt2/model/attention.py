"""Causal self-attention: the arithmetic of Transformers' attention, for a chunk of a text or for single positions.

Single positions use PyTorch's fused attention for CPUs, in shapes in which a row has the same bits whatever the other
rows are and however many threads compute: a multiple of 8 queries over a span of keys that ends at a multiple of 16.
Longer spans would be split into parts of about equal length, wherever they end, so a span has a limited length, and
the results of several are merged. A self-test at start finds the limit. Plain attention is the fallback.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import GPT2Config

LENGTH_STEP: Final = 16
"""Spans end at a multiple of it: the numbers in the widest vector register."""

_ROW_STEP: Final = 8
_SPAN_LENGTHS: Final = (192, 128, 64)  # the longest in which rows are independent is used
_TEST_LENGTHS: Final = (1, 37, 100, 150)
_TEST_PADDING: Final = (0, 16, 192)
_TEST_ROWS: Final = (8, 40, 16, 80)
_TOLERANCE: Final = 1e-5

log = structlog.get_logger(__name__)


class Span(NamedTuple):
    """Consecutive keys, and which of them each row sees.

    Attributes:
        begin: The first key.
        end: The key after the last; it may be beyond what any row sees.
        mask: Added to the scores, float32 [1, 1, rows, keys] with rows padded; None where every row sees all.
        blind: Which rows see none, bool [1, 1, rows, 1]; None where every row sees one.
    """

    begin: int
    end: int
    mask: torch.Tensor | None
    blind: torch.Tensor | None


def causal_attention(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the attention weights of the last n positions of a text on all positions; each row sums to 1.

    Args:
        queries: Of the last n positions, scaled by `query_scales`: [heads, n, size].
        keys: Of all positions: [heads, size, positions].

    Returns:
        float32 [heads, n, positions], 0 for future positions.
    """
    scores = queries @ keys
    n, positions = scores.shape[1:]
    if n == 1:
        return scores.softmax(dim=-1)  # the last position has no future
    future = torch.ones(n, positions, dtype=torch.bool, device=scores.device).triu(positions - n + 1)
    return scores.masked_fill_(future, -math.inf).softmax(dim=-1)


def make_spans(seen: torch.Tensor, common: int) -> list[Span]:
    """Split keys into spans.

    Args:
        seen: Which keys each row sees, bool [rows, keys], where keys are a multiple of `LENGTH_STEP`.
        common: How many keys every row sees, at least one: the first ones.
    """
    end = seen.shape[1]
    limit = end if seen.device.type != "cpu" else span_length() or end
    seen = functional.pad(seen, (0, 0, 0, -len(seen) % _ROW_STEP), value=True)
    return [_span(seen, begin, min(begin + limit, end), common) for begin in range(0, end, limit)]


def attend(
    queries: torch.Tensor, keys_values: Sequence[tuple[torch.Tensor, torch.Tensor]], spans: Sequence[Span], scale: float
) -> torch.Tensor:
    """Attend from single positions to what they see of some keys and values.

    Args:
        queries: [rows, heads, size].
        keys_values: Those of each span: [1, heads, keys, size] each, finite where masked too.
        spans: From `make_spans`.
        scale: From `query_scales`.

    Returns:
        [rows, heads, size].
    """
    rows = len(queries)
    if rows % _ROW_STEP:  # any numbers will do, and repeated ones need the fewest operations
        queries = torch.cat((queries, queries[-1:].expand(-rows % _ROW_STEP, -1, -1)))
    queries = queries.transpose(0, 1).unsqueeze(0)
    parts = [_attend(queries, *pair, span, scale) for pair, span in zip(keys_values, spans, strict=True)]
    return functools.reduce(_merged, parts).output[0].transpose(0, 1)[:rows]


def query_scales(config: GPT2Config) -> list[float]:
    """Return each layer's factor for its queries (GPT2Attention.scaling in Transformers)."""
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return [scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale for layer in range(config.n_layer)]


@functools.cache
def span_length() -> int:
    """Return the most keys in a span of PyTorch's fused attention for CPUs; 0 where it cannot be used.

    It is available then, right, and independent of the other rows and of the number of threads.
    """
    threads = torch.get_num_threads()
    fault: str | None = None
    try:
        for length in _SPAN_LENGTHS:
            fault = next(_faults(length), None)
            if fault is None:
                return length
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        fault = f"missing: {error}"
    finally:
        torch.set_num_threads(threads)
    log.warning("cannot use PyTorch's fused attention; the engine is slower and does not draft", reason=fault)
    return 0


class _Attended(NamedTuple):
    """The result of attention over one span or several."""

    output: torch.Tensor  # [1, heads, rows, size]
    logsumexp: torch.Tensor  # of the scores: [1, heads, rows, 1]


def _make_mask(seen: torch.Tensor) -> torch.Tensor:
    """Return what is added to the scores of keys that rows see or not: 0 and −∞, float32 in the shape of `seen`."""
    return torch.where(seen, 0.0, -math.inf)


def _span(seen: torch.Tensor, begin: int, end: int, common: int) -> Span:
    if end <= common:
        return Span(begin, end, None, None)
    part = seen[:, begin:end]
    mask = _make_mask(part)[None, None]
    return Span(begin, end, mask, None if begin < common else ~part.any(dim=1)[None, None, :, None])


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, span: Span, scale: float) -> _Attended:
    if queries.device.type == "cpu" and span_length():
        attended = _fused(queries, keys, values, span.mask, scale)
    else:
        scores = queries * scale @ keys.transpose(2, 3)
        if span.mask is not None:
            scores = scores + span.mask
        attended = _Attended(scores.softmax(dim=-1) @ values, scores.logsumexp(dim=-1, keepdim=True))
    if span.blind is None:
        return attended
    # Of a row that sees nothing the kernel returns zeros, and 0 for the sum.
    return attended._replace(logsumexp=attended.logsumexp.masked_fill(span.blind, -math.inf))


def _fused(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> _Attended:
    kernel = torch._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    output, logsumexp = kernel(queries, keys, values, 0.0, is_causal=False, attn_mask=mask, scale=scale)
    return _Attended(output, logsumexp.unsqueeze(-1))


def _merged(first: _Attended, second: _Attended) -> _Attended:
    """Join attention over two spans, as if they were one."""
    share = (second.logsumexp - first.logsumexp).sigmoid()
    output = torch.lerp(first.output, second.output, share.expand_as(first.output))
    return _Attended(output, torch.logaddexp(first.logsumexp, second.logsumexp))


@torch.inference_mode()
def _faults(span_length: int) -> Iterator[str]:
    """Compare with plain attention, and with itself beside other rows, padded further, on other threads."""
    generator, heads, size = torch.Generator().manual_seed(0), 3, 64
    query = torch.randn(1, heads, 1, size, generator=generator)
    keys, values = torch.randn(2, 1, span_length, heads, size, generator=generator).transpose(2, 3)
    cases = [(length, 1 / 2) for length in (*_TEST_LENGTHS, span_length) if length <= span_length]
    for length, share in (*cases, (span_length, 1)):  # at last all of a span that every row sees, which has no mask
        seen = torch.rand(length, generator=generator) < share
        seen[-1] = True
        scores = (query @ keys[:, :, :length].transpose(2, 3)).masked_fill(~seen, -math.inf)
        expected = (scores.softmax(dim=-1) @ values[:, :, :length])[:, :, 0]
        first: _Attended | None = None
        for threads, rows, padding in itertools.product((torch.get_num_threads(), 1), _TEST_ROWS, _TEST_PADDING):
            torch.set_num_threads(threads)
            end = min(math.ceil(length / LENGTH_STEP) * LENGTH_STEP + padding, span_length)
            row = (length + padding) % rows  # anywhere among others, which see other keys
            queries = torch.randn(1, heads, rows, size, generator=generator)
            queries[:, :, row] = query[:, :, 0]
            visible = torch.rand(rows, end, generator=generator) < share
            visible[:, 0] = True
            visible[row] = functional.pad(seen, (0, end - length))
            mask = None if share == 1 else _make_mask(visible)[None, None]
            whole = _fused(queries, keys[:, :, :end], values[:, :, :end], mask, 1.0)
            attended = _Attended(*(part[:, :, row] for part in whole))
            first = first or attended
            if not torch.allclose(attended.output, expected, atol=_TOLERANCE):
                yield "its numbers are wrong"
            if not all(torch.equal(part, other) for part, other in zip(attended, first, strict=True)):
                yield f"its result depends on the batch ({rows} rows, {end} keys, {threads} threads)"
