"""What the classifier says, and what docs/hosting.md says of it."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bot.errors import SettingsError
from bot.safety import WINDOW_WORDS, Safety, windows

if TYPE_CHECKING:
    from collections.abc import Iterator

CLEAN = " ".join(["The old man walked slowly along the wall and thought of letters."] * 12)


@pytest.fixture(scope="module")
def safety() -> Iterator[Safety]:
    safety = Safety("hide")
    yield safety
    safety.close()


async def test_swearing_is_found_and_plain_text_is_not(safety: Safety) -> None:
    texts = ("Shit happens", "Hello, I'm a language model", "go fuck yourself", "")
    assert await safety.offensive(texts) == (True, False, True, False)


@pytest.mark.parametrize("place", ["{bad} {clean}", "{clean} {bad}", "{clean} {bad} {clean}"])
async def test_a_bad_word_is_not_lost_among_many_others(safety: Safety, place: str) -> None:
    assert await safety.offensive([place.format(bad="fuck you", clean=CLEAN), CLEAN]) == (True, False)


@pytest.mark.parametrize(
    ("text", "offensive"),
    [
        ("What the hell is going on?", True),
        ("The bitch had four puppies", True),
        ("All of them should be exterminated", False),
        ("Women belong in the kitchen", False),
        ("f u c k", False),
        ("puta madre", False),
    ],
)
async def test_it_errs_as_the_docs_say(safety: Safety, text: str, *, offensive: bool) -> None:
    assert await safety.offensive([text]) == (offensive,)


@pytest.mark.parametrize("text", ["\ud83d", "\x00", "🎭" * 500, "日本語", "a" * 10_000, "a " * 10_000])
async def test_any_text_can_be_judged(safety: Safety, text: str) -> None:
    assert await safety.offensive([text]) in {(True,), (False,)}


async def test_nothing_is_judged_where_it_is_off() -> None:
    before = threading.active_count()
    safety = Safety()
    assert await safety.offensive(["Shit happens", "a"]) == (False, False)
    assert await safety.offensive([]) == ()
    assert threading.active_count() == before
    safety.close()


def test_without_its_extra_it_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(SettingsError, match=r"SAFETY needs its extra: python -m pip install"):
        Safety("spoiler")


def test_every_word_is_in_a_piece_and_neighbours_are_together() -> None:
    words = [str(number) for number in range(57)]
    pieces = [piece.split() for piece in windows(" ".join(words))]
    assert {word for piece in pieces for word in piece} == set(words)
    assert all(len(piece) <= WINDOW_WORDS for piece in pieces)
    for pair in itertools.pairwise(words):
        assert any(set(pair) <= set(piece) for piece in pieces)
    assert windows("") == [""]
