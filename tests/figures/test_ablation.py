"""What changes without some heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.figures import ablation
from tests.figures.builders import caption, drawn, texts, words

if TYPE_CHECKING:
    from bot.figures import Picture

PIECES = words("The cat sat and the cat")
BITS = np.array([[np.nan, 8.0, 6.0, 4.0, 3.0, 1.0], [np.nan, 8.1, 5.0, 4.0, 3.0, 9.0]])


def draw(**changes: Any) -> Picture:
    given: dict[str, Any] = {
        "pieces": PIECES,
        "heads": [(7, 1), (8, 6)],
        "candidates": [b" sat", b" ran"],
        "probabilities": np.array([[0.4, 0.1], [0.25, 0.3]]),
        "bits": BITS,
    }
    return ablation(**given | changes)


def test_both_are_drawn_and_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, draw)
    assert str(picture.alt) == (
        "Without heads 7.1, 8.6 (layer.head): next token ·sat 40.0% → 25.0%; surprise 4.4 → 5.82 bits per token."
    )
    assert "Silenced heads, as layer.head: 7.1, 8.6." in caption(picture)
    axes = next(axes for axes in figure.axes if axes.patches)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.4, 0.1, 0.25, 0.3])
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    assert {"40.0% → 25.0%", "10.0% → 30.0%", "with", "without"} <= set(texts(figure))
    assert texts(figure).count("·cat") == 4


def test_the_tokens_that_change_most_are_framed_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, draw)
    assert "framed, most changed: ·cat +8.0   ·sat −1.0" in texts(figure)
    text = [axes for axes in figure.axes if [text.get_text() for text in axes.texts][:1] == ["The"]]
    assert [len(axes.collections[1].get_paths()) for axes in text] == [3, 3]  # the first token has its own
    _, figure = drawn(monkeypatch, lambda: draw(bits=BITS[[0, 0]]))
    assert "no token changes by half a bit" in texts(figure)


def test_only_what_is_shown_of_a_long_text_is_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f" w{i}".encode() for i in range(900)]
    bits = np.stack([np.ones(900), np.linspace(20, 2, 900)])
    picture, figure = drawn(monkeypatch, lambda: draw(pieces=pieces, bits=bits))
    (named,) = (text for text in texts(figure) if text.startswith("framed"))
    shown = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text().startswith("·w")]
    assert named.split()[3] == shown[0] != "·w0"
    assert f"the last {len(shown) // 2} of 900 tokens" in caption(picture)


@pytest.mark.parametrize(
    "changes", [{"heads": []}, {"candidates": []}, {"probabilities": np.ones((1, 2))}, {"bits": BITS[0]}]
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"candidates|surprise"):
        draw(**changes)
