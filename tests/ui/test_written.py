"""A text that grows by tokens survives the message and the buttons that hold it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import InvalidInputError
from bot.ui.written import MAX_TOKENS, WrittenText


def held(written: WrittenText) -> WrittenText:
    """Return what is read back."""
    return WrittenText.read(written.text, written.lengths, written.tail)


@given(prompt=st.text(max_size=9), text=st.text(max_size=60), cuts=st.sets(st.integers(1, 200)), lost=st.integers(0, 3))
def test_any_cut_of_a_text_is_read_back(prompt: str, text: str, cuts: set[int], lost: int) -> None:
    whole = text.encode("utf-8", "replace")
    whole = whole[: len(whole) - lost]
    ends = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = tuple(whole[start:stop] for start, stop in pairwise(ends) if start < stop)
    prompt = prompt.encode("utf-8", "replace").decode()
    written = WrittenText.of(prompt, pieces)
    assert held(written) == written
    assert len(written.pieces) <= MAX_TOKENS
    assert written.text.startswith(prompt)
    kept = written.prompt.encode() + b"".join(written.pieces)
    assert kept == prompt.encode() + whole or "\ufffd" in written.prompt


def test_too_many_tokens_join_the_prompt() -> None:
    written = WrittenText.of("a", [b"b"] * (MAX_TOKENS + 2))
    assert (written.prompt, len(written.pieces)) == ("abb", MAX_TOKENS)
    assert WrittenText.of("a", [b"b", b"-" * 40, b"c"]) == WrittenText("ab" + "-" * 40, (b"c",))


def test_bytes_that_are_no_text_join_the_prompt_as_such() -> None:
    assert WrittenText.of("a", [b"b", b"\xff", b"c"]) == WrittenText("ab\ufffdc")


def test_an_incomplete_character_stays_in_the_buttons() -> None:
    written = WrittenText.of("a", [b"b", b"\xe6\xbc"])
    assert (written.text, written.lengths, written.tail) == ("ab", "12", "e6bc")


@pytest.mark.parametrize(("text", "lengths", "tail"), [("a", "5", ""), ("é", "1", ""), ("a", "!", ""), ("a", "", "x")])
def test_what_does_not_fit_together_is_refused(text: str, lengths: str, tail: str) -> None:
    with pytest.raises(InvalidInputError, match="can no longer read the prompt"):
        WrittenText.read(text, lengths, tail)
