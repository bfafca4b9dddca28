from __future__ import annotations

import numpy as np
import pytest

from bot.figures import attention_heads
from tests.figures.builders import caption, drawn, noise
from tests.figures.gpt2_partial import needs_gpt2_partial, parameter

NAME = "transformer.h.1.attn.c_attn.weight"


def test_bars_are_the_root_mean_square_of_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(24, 72)
    values[:, 6:12] *= 10  # the second head of Q
    picture, figure = drawn(
        monkeypatch,
        lambda: attention_heads(values, name=NAME, layer=2, width=24, heads=4, dtype="float16"),
    )
    bars = next(axes for axes in figure.axes if axes.get_ylabel() == "RMS")
    sizes = np.sqrt((values.astype(np.float64) ** 2).reshape(24, 12, 6).mean(axis=(0, 2)))
    assert [bar.get_height() for bar in bars.patches] == pytest.approx(sizes)
    assert len({bar.get_hatch() for bar in bars.patches}) == 3
    assert [label.get_text() for label in bars.get_xticklabels()] == ["1", "2", "3", "4"] * 3
    assert len(figure.axes[0].lines) == 11
    assert "(head 2)" in str(picture.alt)
    assert "Layer 2 (h.1 in the code): 4 heads of 6 columns" in caption(picture)


@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_nothing_to_show_is_shown(fill: float) -> None:
    assert attention_heads(
        np.full((8, 24), fill, np.float32), name=NAME, layer=1, width=8, heads=2, dtype="float32"
    ).file


@pytest.mark.parametrize(("shape", "heads"), [((8, 23), 2), ((7, 24), 2), ((8, 24), 3)])
def test_only_the_whole_matrix_divided_by_its_heads(shape: tuple[int, int], heads: int) -> None:
    with pytest.raises(ValueError, match=r"drawn|heads"):
        attention_heads(noise(*shape), name=NAME, layer=1, width=8, heads=heads, dtype="float32")


@needs_gpt2_partial
def test_gpt2s_own_heads() -> None:
    picture = attention_heads(parameter(NAME), name=NAME, layer=2, width=768, heads=12, dtype="float16")
    assert "Q from 0.05965 (head 11) to 0.2345 (head 7)" in str(picture.alt)
    assert len(picture.file) < 600_000
