from __future__ import annotations

import numpy as np
import pytest

from bot.figures import induction
from bot.figures.induction import MARK
from tests.figures.builders import caption, causal, drawn, labels, texts

LENGTH = 10
SCORES = np.array([[0.02, 0.9], [np.nan, 0.1]])


def test_the_best_head_is_named_and_its_stripe_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(
        monkeypatch, lambda: induction(causal(2 * LENGTH), scores=SCORES, layer=1, head=2, length=LENGTH)
    )
    assert str(picture.alt) == (
        "Induction: layer 1, head 2 puts 90% of its attention on the token after the earlier occurrence; the median of"
        " 4 heads is 10.0%."
    )
    assert "1 of 4 heads reach 40%" in caption(picture)
    assert "10 random tokens, then the same again: best is layer 1, head 2 with 90%" in texts(figure)
    left, right = (line.get_xydata() for line in figure.axes[1].lines if line.get_color() == MARK)
    middle = (left + right) / 2
    np.testing.assert_allclose(middle[:, 1] - middle[:, 0], LENGTH - 1)


def test_a_token_may_stand_before_the_random_ones() -> None:
    assert induction(causal(2 * LENGTH + 1), scores=SCORES, layer=1, head=2, length=LENGTH).file


@pytest.mark.parametrize(
    ("size", "layer", "head", "length"), [(20, 3, 1, 10), (20, 0, 1, 10), (20, 1, 3, 10), (20, 1, 1, 9), (0, 1, 1, 0)]
)
def test_what_does_not_fit_is_refused(size: int, layer: int, head: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"repeated|without|attention"):
        induction(causal(size), scores=SCORES, layer=layer, head=head, length=length)


@pytest.mark.parametrize("length", [5, 50])
def test_the_key_of_the_stripe_stands_within_the_map(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = causal(2 * length)
    _, figure = drawn(monkeypatch, lambda: induction(weights, scores=SCORES, layer=1, head=2, length=length))
    (key,) = (label for label in labels(figure) if label.get_text().startswith("dashed"))
    room, box = figure.axes[1].get_window_extent(), key.get_window_extent()
    assert room.x0 < box.x0 < box.x1 < room.x1
    assert room.y0 < box.y0 < box.y1 < room.y1
