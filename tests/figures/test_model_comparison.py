from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.figures import compare_models
from tests.figures.builders import caption, drawn, texts, words

if TYPE_CHECKING:
    from bot.figures import Picture


def draw(**changes: Any) -> Picture:
    given: dict[str, Any] = {
        "names": ("small", "large"),
        "pieces": (words("The king is"), [b"The ", b"king", b" ", b"is"]),
        "bits": (np.array([np.nan, 6.0, 2.0]), np.array([np.nan, 3.0, 0.5, 0.5])),
        "candidates": [b" dead", b" not"],
        "probabilities": np.array([[0.4, 0.1], [0.2, np.nan]]),
        "likeliest": ((b" dead", 0.4), (b" dead", 0.2)),
    }
    return compare_models(**given | changes)


def test_words_and_numbers_are_those_of_each_model() -> None:
    picture = draw()
    assert str(picture.alt) == (
        "Two models compared. Likeliest next token: small ·dead 40.0% and large ·dead 20.0%. Surprise of the prompt: "
        "small 1 bits per byte and large 0.5714 bits per byte."
    )
    assert "next-token probabilities of small (A, plain) and large (B, hatched)" in caption(picture)


def test_a_token_that_a_model_lacks_has_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, draw)
    shown = set(texts(figure))
    assert {"40.0% / 20.0%", "10.0% / –", "·not", "small", "large"} <= shown


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 candidates with probabilities"):
        draw(probabilities=np.zeros((2, 3)))
