from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.figures import MAX_HEAD_TOKENS, compare
from bot.gpt2.questions import MAX_MAP_TOKENS
from tests.figures.builders import caption, causal, drawn, texts, words

if TYPE_CHECKING:
    from bot.figures import Picture

FIRST, SECOND = words("The king is"), words("The queen is")
BITS = np.array([np.nan, 8.0, 2.0])


def draw(**changes: Any) -> Picture:
    given: dict[str, Any] = {
        "first": FIRST,
        "second": SECOND,
        "candidates": [b" dead", b" not"],
        "probabilities": np.array([[0.4, 0.1], [0.2, 0.3]]),
        "first_bits": BITS,
        "second_bits": BITS + 1,
        "difference": None,
    }
    return compare(**given | changes)


def moved() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Make a difference in layer 2, head 3 alone, which moves its last row from the first token to the second."""
    difference = np.zeros((3, 4, 3, 3), np.float32)
    difference[1, 2, 2] = (-1, 1, 0)
    return difference


def test_both_are_summed_up() -> None:
    assert str(draw().alt) == (
        "Two prompts compared. Likeliest next token: A ·dead 40.0% and B ·not 30.0%. Surprise: A 5, B 6 bits per token."
    )


def test_bars_are_the_probabilities_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, draw)
    axes = next(axes for axes in figure.axes if axes.patches)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.4, 0.1, 0.2, 0.3])
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    assert {"40.0% / 20.0%", "·king", "·queen"} <= set(texts(figure))


def test_the_heads_that_changed_most_are_framed_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: draw(difference=moved()))
    assert "Framed: the most changed, layer 2, head 3 (33%)." in caption(picture)
    assert "Colour scale: ±1, nothing clipped." in caption(picture)
    mosaic = next(axes for axes in figure.axes if axes.get_xlabel() == "head")
    assert len(mosaic.patches) == 1


def test_no_change_at_all_is_no_fault() -> None:
    assert "Framed" not in caption(draw(difference=np.zeros((3, 4, 3, 3))))


def test_other_numbers_of_tokens_are_said_to_prevent_it() -> None:
    picture = draw(second=words("The queen of hearts is"), second_bits=np.ones(5))
    assert "equally many tokens: A has 3, B 5." in caption(picture)


def test_that_attention_is_not_compared_is_said_of_as_many_tokens_too() -> None:
    assert f"Attention is compared only for 2 to {MAX_MAP_TOKENS} tokens." in caption(draw())
    assert MAX_HEAD_TOKENS == MAX_MAP_TOKENS


def test_one_token_each(monkeypatch: pytest.MonkeyPatch) -> None:
    single = {"first": [b"a"], "second": [b"b"], "first_bits": BITS[:1], "second_bits": BITS[:1]}
    assert draw(**single, difference=causal(2, 2, 1)).file
    _, figure = drawn(monkeypatch, lambda: draw(**single))
    assert "surprise: A –, B – bits per token" in texts(figure)


def test_the_bar_has_the_colours_of_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, lambda: draw(difference=moved()))
    mosaic = next(axes for axes in figure.axes if axes.get_xlabel() == "head")
    (bar,) = next(axes for axes in figure.axes if axes.get_xlabel() == "attention of B − A").images
    tiles = mosaic.images[0].get_array()
    less, same, more = (bar.to_rgba(np.array([[value]]))[0, 0, :3] for value in (-1.0, 0.0, 1.0))
    side = round(float(np.diff(mosaic.get_xticks())[0])) - 3  # width of a tile, without the gutter
    high = round(float(np.diff(mosaic.get_yticks())[0])) - 3
    y, x = ((high + 3) * 2 - 3 - high // 6, (side + 3) * 2)  # the last row of layer 2, head 3
    np.testing.assert_allclose(tiles[y, x + side // 6], less)
    np.testing.assert_allclose(tiles[y, x + side // 2], more)
    np.testing.assert_allclose(tiles[y, x + side * 5 // 6], same)


def test_a_prompt_without_room_is_said_to_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    long = words(" the king and the queen" * 40)
    bits = np.full(len(long), 3.0)
    picture, figure = drawn(monkeypatch, lambda: draw(first=long, first_bits=bits))
    shown = sum(text in {"·the", "·king", "·and", "·queen"} for text in texts(figure)) - 1  # one is B's
    assert f"Showing the last {shown} of {len(long)} tokens of A" in caption(picture)
    assert "tokens of B" not in caption(picture)
    assert texts(figure).count("…") == 1


def test_newlines_do_not_cost_a_prompt_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    poem = [b"roses", *[b"\n"] * 8, b"red"]
    picture, figure = drawn(monkeypatch, lambda: draw(first=poem, first_bits=np.ones(len(poem))))
    assert {"roses", "red"} <= set(texts(figure))
    assert "Showing" not in caption(picture)


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": []},
        {"probabilities": np.ones((1, 2))},
        {"first_bits": BITS[:2]},
        {"difference": np.zeros((3, 4, 2, 2))},
        {"difference": np.zeros((3, 3))},
        {"second": words("a b"), "second_bits": BITS[:2], "difference": moved()},
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"candidates|surprise|difference"):
        draw(**changes)
