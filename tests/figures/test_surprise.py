from __future__ import annotations

import numpy as np
import pytest

from bot.figures import surprise
from bot.figures.drawing import colormaps
from bot.figures.surprise import MAX_BITS
from tests.figures.builders import caption, drawn, texts, words

TEXT = "To be or not to bee"
PIECES = words(TEXT)
BITS = np.array([np.nan, 1, 2, 3, 2, 12], np.float32)


def test_the_sums_are_those_of_the_bits() -> None:
    picture = surprise(TEXT, pieces=PIECES, bits=BITS)
    assert str(picture.alt) == (
        "Text coloured by surprise: 6 tokens, 4 bits per token, perplexity 16. Most surprising: ·bee 12.0 bits."
    )
    assert f"20 bits in all, {20 / 17:.4g} per byte; perplexity 16." in caption(picture)
    assert "6 tokens, 19 characters." in caption(picture)


def test_each_token_has_the_colour_of_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, lambda: surprise(TEXT, pieces=PIECES, bits=BITS))
    blocks, frames = figure.axes[0].collections
    np.testing.assert_allclose(blocks.get_facecolors(), colormaps.surprise_colours(BITS, MAX_BITS))
    assert len(frames.get_paths()) == 2  # the first, which nothing predicts, and the most surprising
    assert [text.get_text() for text in figure.axes[0].texts] == ["To", "·be", "·or", "·not", "·to", "·bee"]


def test_parts_of_a_character_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cat = "猫".encode()
    bits = np.array([np.nan, 5.0, 6.0])
    picture, figure = drawn(monkeypatch, lambda: surprise("a猫", pieces=[b"a", cat[:2], cat[2:]], bits=bits))
    assert "Most surprising: 猫 11.0 bits." in str(picture.alt)
    assert "has the sum of their bits" in caption(picture)
    assert "猫" in texts(figure)


def test_of_a_long_text_the_last_tokens_are_shown_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f" w{i}".encode() for i in range(1000)]
    bits = np.full(1000, 3.0)
    picture, figure = drawn(monkeypatch, lambda: surprise("x" * 5000, pieces=pieces, bits=bits))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written[-1] == "·w999"
    assert f"the last {len(written)} of 1000 tokens" in caption(picture)
    assert "3000 bits in all" in caption(picture)


def test_tokens_beyond_the_scale_are_counted() -> None:
    bits = np.array([np.nan, 20, 17, 3, 2, 1])
    assert "Colour scale: 0–16 bits; clipped tokens: 2." in caption(surprise(TEXT, pieces=PIECES, bits=bits))
    assert "Colour scale: 0–16 bits." in caption(surprise(TEXT, pieces=PIECES, bits=BITS))


def test_a_first_token_that_is_predicted_is_counted() -> None:
    assert "perplexity 4." in caption(surprise("a", pieces=[b"a"], bits=np.array([2.0])))


def test_one_token_that_nothing_predicts() -> None:
    picture = surprise("a", pieces=[b"a"], bits=np.array([np.nan]))
    assert "which nothing predicts" in str(picture.alt)


@pytest.mark.parametrize(("count", "bits"), [(2, [1.0]), (0, []), (2, [1.0, -3.0])])
def test_what_does_not_fit_is_refused(count: int, bits: list[float]) -> None:
    with pytest.raises(ValueError, match="surprise"):
        surprise("a", pieces=[b"a"] * count, bits=np.array(bits))


def test_what_is_named_as_framed_is_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f" w{i}".encode() for i in range(1000)]
    bits = np.linspace(20, 5, 1000)
    picture, figure = drawn(monkeypatch, lambda: surprise("x" * 5000, pieces=pieces, bits=bits))
    first, second, third = (text.get_text() for text in figure.axes[0].texts[:3])
    (named,) = (text for text in texts(figure) if text.startswith("framed"))
    assert [word for word in named.split() if word.startswith("·")] == [first, second, third]
    assert first != "·w0"
    assert "Most surprising: ·w0 20.0 bits" in str(picture.alt)  # of the whole text


def test_bytes_are_counted_in_the_text_where_tokens_do_not_join_to_it() -> None:
    """A BERT tokenizer frames a text with tokens of its own."""
    pieces, bits = [b"[CLS]", "猫".encode(), b"[SEP]"], np.array([np.nan, 4, 2])
    assert "6 bits in all, 2 per byte" in caption(surprise("猫", pieces=pieces, bits=bits))
