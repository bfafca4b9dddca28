"""Attention from single positions: right, and for a row the same bits whatever is computed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from structlog.testing import capture_logs

from bot.gpt2.model import attention
from bot.gpt2.model.attention import Attended, merge_attention, own_attention, own_mask, shared_attention

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADS, SIZE, END = 4, 64, 48

needs_fused = pytest.mark.skipif(not attention.rows_are_independent(), reason="fused attention does not work here")


@pytest.fixture(autouse=True)
def _self_test_as_before() -> Iterator[None]:
    yield
    attention.rows_are_independent.cache_clear()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def plain(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attend from [heads, size] to [heads, n, size]."""
    return ((queries.unsqueeze(1) @ keys.transpose(1, 2)).softmax(-1) @ values).squeeze(1)


@pytest.mark.parametrize("fused", [pytest.param(True, marks=needs_fused), False])
@pytest.mark.parametrize(("sequences", "n"), [(1, 1), (1, 5), (3, 1), (3, 4)])
def test_the_parts_together_are_attention(
    sequences: int, n: int, *, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "rows_are_independent", lambda: fused)
    queries, own, shared = (
        drawn(sequences * n, HEADS, SIZE),
        drawn(2, sequences, HEADS, END, SIZE),
        drawn(2, 1, HEADS, 21, SIZE),
    )
    positions = (torch.arange(sequences) * 7 + 2).unsqueeze(1) + torch.arange(n)
    parts = shared_attention(queries, *shared), own_attention(queries, *own, own_mask(positions, END))
    for row, (sequence, last) in enumerate(zip(range(sequences), positions, strict=True)):
        for depth, position in enumerate(last.tolist()):
            seen = torch.cat([shared[:, 0], own[:, sequence, :, : position + 1]], dim=2)
            expected = plain(queries[row * n + depth], *seen)
            torch.testing.assert_close(merge_attention(*parts)[row * n + depth], expected, atol=1e-5, rtol=1e-4)


@needs_fused
def test_several_positions_have_the_bits_of_single_ones() -> None:
    queries, (keys, values) = drawn(15, HEADS, SIZE), drawn(2, 3, HEADS, 2 * END, SIZE)
    positions = torch.tensor([[3], [17], [40]]) + torch.arange(5)
    several = own_attention(queries, keys, values, own_mask(positions, 2 * END))
    for row in range(15):
        sequence, depth = divmod(row, 5)
        mask = own_mask(positions[sequence : sequence + 1, depth : depth + 1], END)
        part = slice(sequence, sequence + 1)
        alone = own_attention(queries[row : row + 1], keys[part, :, :END], values[part, :, :END], mask)
        assert all(torch.equal(one[0], all_rows[row]) for one, all_rows in zip(alone, several, strict=True))


@needs_fused
@pytest.mark.parametrize(
    ("fault", "reason"), [(1.01, "its numbers are wrong"), (1 + 1e-6, "depends on the batch"), (None, "missing")]
)
def test_plain_attention_serves_where_it_fails(
    fault: float | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = attention._fused

    def broken(queries: torch.Tensor, *rest: torch.Tensor) -> Attended:
        if fault is None:
            raise RuntimeError("no such kernel")
        output, logsumexp = fused(queries, *rest)
        return Attended(output * (fault if len(queries) == 1 else 1), logsumexp)

    monkeypatch.setattr(attention, "_fused", broken)
    attention.rows_are_independent.cache_clear()
    with capture_logs() as logs:
        assert not attention.rows_are_independent()
    [warning] = logs
    assert reason in warning["reason"]
