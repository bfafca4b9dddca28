"""Attention from single positions: right, and for a row the same bits whatever is computed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from structlog.testing import capture_logs

from bot.gpt2.model import attention
from bot.gpt2.model.attention import attend, make_spans

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADS, SIZE = 4, 64

needs_fused = pytest.mark.skipif(not attention.span_length(), reason="fused attention does not work here")


@pytest.fixture(autouse=True)
def _self_test_as_before() -> Iterator[None]:
    yield
    attention.span_length.cache_clear()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def plain(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attend from [heads, size] to [heads, n, size]."""
    return ((queries.unsqueeze(1) @ keys.transpose(1, 2)).softmax(-1) @ values).squeeze(1)


def seen_by(rows: int, prompt: int, end: int) -> torch.Tensor:
    """Return what three samples see that lie side by side after a prompt, each at a step of its own."""
    sample, step, keys = torch.arange(rows) % 3, torch.arange(rows) * 5, torch.arange(end)
    own = (keys - prompt).unsqueeze(1)
    return ((own < 0) | (own % 3 == sample) & (own // 3 <= step)).T


def attended(queries: torch.Tensor, cache: torch.Tensor, seen: torch.Tensor, prompt: int) -> torch.Tensor:
    spans = make_spans(seen, prompt)
    keys_values = [tuple(cache[:, :, :, span.begin : span.end]) for span in spans]
    return attend(queries, keys_values, spans, 0.125)


@pytest.mark.parametrize("fused", [pytest.param(True, marks=needs_fused), False])
@pytest.mark.parametrize(
    ("rows", "prompt", "end"), [(1, 5, 16), (5, 1, 64), (12, 21, 192), (9, 450, 592), (2, 192, 400)]
)
def test_each_row_attends_to_what_it_sees(
    rows: int, prompt: int, end: int, *, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(attention, "span_length", lambda: 0)
    queries, cache, seen = drawn(rows, HEADS, SIZE), drawn(2, 1, HEADS, end, SIZE), seen_by(rows, prompt, end)
    result = attended(queries, cache, seen, prompt)
    for row in range(rows):
        expected = plain(queries[row] / 8, *cache[:, 0, :, seen[row]])
        torch.testing.assert_close(result[row], expected, atol=1e-5, rtol=1e-4)


@needs_fused
@pytest.mark.parametrize(("prompt", "end"), [(8, 80), (30, 400), (191, 384), (500, 720)])
def test_a_row_has_the_bits_that_it_has_alone(prompt: int, end: int) -> None:
    queries, cache, seen = drawn(21, HEADS, SIZE), drawn(2, 1, HEADS, end, SIZE), seen_by(21, prompt, end)
    several = attended(queries, cache, seen, prompt)
    for row in range(21):
        least = max(int(seen[row].nonzero().max()) // 16 * 16 + 16, prompt // 16 * 16 + 16)
        alone = attended(queries[row : row + 1], cache, seen[row : row + 1, :least], prompt)
        assert torch.equal(alone[0], several[row]), row


@needs_fused
@pytest.mark.parametrize(
    ("fault", "reason"), [(1.01, "its numbers are wrong"), (1 + 1e-6, "depends on the batch"), (None, "missing")]
)
def test_plain_attention_serves_where_it_fails(
    fault: float | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = attention._fused

    def broken(queries: torch.Tensor, *rest: Any) -> Any:
        if fault is None:
            raise RuntimeError("no such kernel")
        output, logsumexp = fused(queries, *rest)
        return attention._Attended(output * (fault if queries.shape[2] == 16 else 1), logsumexp)

    monkeypatch.setattr(attention, "_fused", broken)
    attention.span_length.cache_clear()
    with capture_logs() as logs:
        assert not attention.span_length()
    [warning] = logs
    assert reason in warning["reason"]
