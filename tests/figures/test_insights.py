from __future__ import annotations

import numpy as np
import pytest

from bot.figures import insights
from tests.figures.builders import caption, drawn, texts, words

SAMPLES = [(words(" and then\n he left"), np.array([2.0, 4, 1, 3, 5])), (words(" or"), np.array([7.0]))]
SIMILARITY = np.array([[1, 0.25], [0.25, 1]])


def test_means_and_similarity_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: insights(samples=SAMPLES, similarity=SIMILARITY))
    assert str(picture.alt) == ("Samples coloured by surprise: 2, with 3.0, 7.0 bits per token. Mean similarity 0.25.")
    assert {"1", "3.0 bits", "2", "7.0 bits", "·then", "·or"} <= set(texts(figure))
    assert texts(figure).count(".25") == 2
    assert "mean surprise 5 bits per token; mean similarity 0.25" in texts(figure)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_one_to_ten_samples_are_shown(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [(words(" word" * 40), np.full(40, 3.0))] * count
    picture, figure = drawn(monkeypatch, lambda: insights(samples=samples, similarity=np.eye(count)))
    assert texts(figure).count("3.0 bits") == count
    assert ("similarity" in texts(figure)) is (count > 1)
    assert ("Only the beginning" in caption(picture)) is (count == 10)


def test_without_similarity_the_texts_have_the_room() -> None:
    picture = insights(samples=SAMPLES, similarity=None)
    assert "similarity" not in caption(picture)
    assert "similarity" not in str(picture.alt)


@pytest.mark.parametrize(("count", "shape"), [(0, None), (11, None), (2, (3, 3)), (2, (2,))])
def test_what_does_not_fit_is_refused(count: int, shape: tuple[int, ...] | None) -> None:
    with pytest.raises(ValueError, match="samples"):
        insights(samples=SAMPLES[:1] * count, similarity=None if shape is None else np.zeros(shape))
