from __future__ import annotations

import pytest

from bot.figures import token_split
from tests.figures.builders import caption, drawn, texts, words


def test_tokens_stand_over_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: token_split("To be\n", pieces=words("To be\n"), ids=[2514, 307, 198]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["To", "·be", "⏎", "2514", "307", "198"]
    assert {"3 tokens", "6 characters, 6 bytes"} <= set(texts(figure))
    assert str(picture.alt) == "Text split into 3 tokens, 2 characters each; ids 2514, 307, 198."


def test_neighbours_differ_in_more_than_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, lambda: token_split("a b c d e", pieces=words("a b c d e"), ids=range(5)))
    blocks, frames = figure.axes[0].collections
    assert len(blocks.get_paths()) == 5
    assert len(frames.get_paths()) == 2


def test_parts_of_a_character_have_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    cat = "猫".encode()
    picture, figure = drawn(monkeypatch, lambda: token_split("猫", pieces=[cat[:1], cat[1:]], ids=[163, 234]))
    assert {"猫", "E7", "8CAB", "163", "234"} <= set(texts(figure))
    assert "2 tokens are parts of a character" in caption(picture)
    assert caption(picture).startswith("2 tokens for one character (3 bytes), with their ids in the vocabulary. ")


def test_of_a_long_text_the_first_tokens_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [f" w{i}".encode() for i in range(900)]
    picture, figure = drawn(monkeypatch, lambda: token_split(b"".join(pieces).decode(), pieces=pieces, ids=range(900)))
    shown = sum(text.startswith("·w") for text in texts(figure))
    assert "·w0" in texts(figure)
    assert f"the first {shown} of 900 tokens" in caption(picture)


@pytest.mark.parametrize(("pieces", "ids"), [([], []), ([b"a"], []), ([b"a"], [1, 2])])
def test_there_is_one_id_for_each_token(pieces: list[bytes], ids: list[int]) -> None:
    with pytest.raises(ValueError, match="ids"):
        token_split("a", pieces=pieces, ids=ids)


def test_one_token_is_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: token_split("a", pieces=[b"a"], ids=[64]))
    assert {"1 token", "1 character, 1 byte"} <= set(texts(figure))
    assert caption(picture).startswith("One token, with its id in the vocabulary. Characters: 1; bytes: 1.")
    assert str(picture.alt) == "Text of a single token, id 64."


def test_characters_are_those_of_the_text_and_not_of_its_tokens() -> None:
    """A BERT tokenizer frames a text with tokens of its own and marks those that continue a word."""
    pieces = [b"[CLS]", "你".encode(), "好".encode(), b"think", b"##ing", b"[SEP]"]
    picture = token_split("你好 thinking", pieces=pieces, ids=range(6))
    assert caption(picture).startswith("6 tokens for 11 characters (15 bytes)")
    assert str(picture.alt).startswith("Text split into 6 tokens, 1.833 characters each")
