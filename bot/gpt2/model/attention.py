"""Causal self-attention: the arithmetic of Transformers' attention, for a chunk of a text or for single positions.

Single positions use PyTorch's fused attention for CPUs, in shapes in which a row has the same bits whatever the other
rows are and however many threads compute: two queries of a sequence at a time, over lengths that are padded to whole
vectors; or any number of queries of all sequences, padded to a multiple of 8, over a cache of constant length. A
self-test at start checks this. Plain attention is the fallback.
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
    from collections.abc import Iterator

    from transformers import GPT2Config

LENGTH_STEP: Final = 16
"""Lengths of a sequence's own cache are rounded up to a multiple of it: the numbers in the widest vector register."""

_ROW_STEP: Final = 8
_TEST_LENGTHS: Final = (1, 37, 300, 700)
_TEST_PADDING: Final = (0, 16, 400)
_TEST_ROWS: Final = (33, 1, 5, 24)  # the most first: the others are compared with them
_TOLERANCE: Final = 1e-5

log = structlog.get_logger(__name__)


class Attended(NamedTuple):
    """The result of attention over a part of what the queries see."""

    output: torch.Tensor  # [rows, heads, size]
    logsumexp: torch.Tensor  # of the scores: [rows, heads, 1]


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


def own_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> Attended:
    """Attend from n positions of each sequence to the keys and values of that sequence.

    Args:
        queries: Scaled by `query_scales`, all of one sequence, then all of the next: [sequences × n, heads, size].
        keys: [sequences, heads, end, size], where `end` is a multiple of `LENGTH_STEP`.
        values: [sequences, heads, end, size], finite where masked too.
        mask: From `own_mask`.
    """
    sequences, heads = keys.shape[:2]
    pairs = _paired(queries.view(sequences, -1, heads, queries.shape[2])).transpose(2, 3)
    if sequences == 1:  # all pairs in one call
        several = (len(pairs[0]), -1, -1, -1)
        parts = _attend(pairs[0], keys.expand(several), values.expand(several), mask[0])
    else:
        calls = [_attend(pairs[:, index], keys, values, mask[:, index]) for index in range(pairs.shape[1])]
        outputs, sums = zip(*calls, strict=True)
        parts = torch.stack(outputs, dim=1), torch.stack(sums, dim=1)
    n = len(queries) // sequences
    # [sequences, pairs, heads, 2, …] → [sequences × n, heads, …]
    return Attended(
        *(part.transpose(-3, -2).reshape(sequences, -1, heads, part.shape[-1])[:, :n].flatten(0, 1) for part in parts)
    )


def own_mask(positions: torch.Tensor, end: int) -> torch.Tensor:
    """Return the mask with which each row sees the places up to its own.

    Args:
        positions: int64 [sequences, n].
        end: Length of the keys and values.
    """
    seen = torch.arange(end, device=positions.device) <= _paired(positions).unsqueeze(-1)
    return torch.where(seen, 0.0, -math.inf).unsqueeze(2)  # [sequences, pairs, 1, 2, end]


def shared_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Attended:
    """Attend from any positions to keys and values that all of them see.

    Args:
        queries: Scaled by `query_scales`: [rows, heads, size].
        keys: [1, heads, positions, size]; rows of different lengths are not independent of each other.
        values: [1, heads, positions, size].
    """
    padded = functional.pad(queries, (0, 0, 0, 0, 0, -len(queries) % _ROW_STEP))
    output, logsumexp = _attend(padded.transpose(0, 1).unsqueeze(0), keys, values, None)
    return Attended(output[0].transpose(0, 1)[: len(queries)], logsumexp[0].transpose(0, 1)[: len(queries)])


def merge_attention(first: Attended, second: Attended) -> torch.Tensor:
    """Join attention over two parts, as if they were one: [rows, heads, size]."""
    share = (second.logsumexp - first.logsumexp).expand_as(first.output).sigmoid()
    return torch.lerp(first.output, second.output, share)


def query_scales(config: GPT2Config) -> list[float]:
    """Return each layer's factor for its queries (GPT2Attention.scaling in Transformers)."""
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return [scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale for layer in range(config.n_layer)]


@functools.cache
def rows_are_independent() -> bool:
    """Return whether PyTorch's fused attention for CPUs is available, right, and independent of rows and threads."""
    threads = torch.get_num_threads()
    try:
        fault = next(_faults(), None)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        fault = f"missing: {error}"
    finally:
        torch.set_num_threads(threads)
    if fault:
        log.warning("cannot use PyTorch's fused attention; the engine is slower and does not draft", reason=fault)
    return fault is None


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and logarithms of sums for [batch, heads, queries, size]."""
    if queries.device.type == "cpu" and rows_are_independent():
        return _fused(queries, keys, values, mask)
    scores = queries @ keys.transpose(2, 3)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1) @ values, scores.logsumexp(dim=-1, keepdim=True)


def _fused(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    attend = torch._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    output, logsumexp = attend(queries, keys, values, 0.0, is_causal=False, attn_mask=mask, scale=1.0)
    return output, logsumexp.unsqueeze(-1)


def _paired(rows: torch.Tensor) -> torch.Tensor:
    """Split [sequences, n, …] into pairs, [sequences, pairs, 2, …], where the last row may stand twice."""
    if rows.shape[1] % 2:
        rows = torch.cat([rows, rows[:, -1:]], dim=1)
    return rows.view(len(rows), -1, 2, *rows.shape[2:])


@torch.inference_mode()
def _faults() -> Iterator[str]:
    """Compare with plain attention, and with itself beside other rows, padded further, on other threads."""
    generator = torch.Generator().manual_seed(0)
    heads, size, room = 3, 64, max(_TEST_LENGTHS) + max(_TEST_PADDING) + LENGTH_STEP
    queries = torch.randn(max(_TEST_ROWS), heads, size, generator=generator)
    keys, values = torch.randn(2, 1, room, heads, size, generator=generator).transpose(2, 3)
    for length, variants in itertools.product(_TEST_LENGTHS, (_own_variants, _shared_variants)):
        scores = queries.transpose(0, 1) @ keys[0, :, :length].transpose(1, 2)
        expected = (scores.softmax(dim=-1) @ values[0, :, :length]).transpose(0, 1)
        whole: Attended | None = None
        for threads in (torch.get_num_threads(), 1):
            torch.set_num_threads(threads)
            for variant in variants(queries, keys, values, length):
                whole = whole or variant
                rows = len(variant.output)
                if not torch.allclose(variant.output, expected[:rows], atol=_TOLERANCE):
                    yield "its numbers are wrong"
                if not all(torch.equal(part, all_rows[:rows]) for part, all_rows in zip(variant, whole, strict=True)):
                    yield f"its result depends on the batch ({rows} rows, {length} positions, {threads} threads)"


def _own_variants(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, length: int) -> Iterator[Attended]:
    for rows, padding in itertools.product(_TEST_ROWS, _TEST_PADDING):
        end = math.ceil(length / LENGTH_STEP) * LENGTH_STEP + padding
        mask = own_mask(torch.full((1, rows * 2), length - 1), end)[0]
        several = (rows, -1, -1, -1)
        pairs = queries[:rows].unsqueeze(2).expand(-1, -1, 2, -1)
        parts = _fused(pairs, keys[:, :, :end].expand(several), values[:, :, :end].expand(several), mask)
        yield Attended(*(part[:, :, rows % 2] for part in parts))


def _shared_variants(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, length: int
) -> Iterator[Attended]:
    for rows in _TEST_ROWS:
        padded = functional.pad(queries[:rows], (0, 0, 0, 0, 0, -rows % _ROW_STEP)).transpose(0, 1).unsqueeze(0)
        parts = _fused(padded, keys[:, :, :length], values[:, :, :length], None)
        yield Attended(*(part[0].transpose(0, 1)[:rows] for part in parts))
