from __future__ import annotations

import pytest

from bot.figures.drawing.tokens import token_label, token_labels, units

CAT = "猫".encode()


@pytest.mark.parametrize(
    ("piece", "label"),
    [
        (b" the", "·the"),
        (b"\n\n", "⏎⏎"),
        (b"", "∅"),
        (CAT, "猫"),
        (CAT[:2], "E7 8C"),
        (b"\xed\xa0\x80", "ED A0 80"),
        (b"$x^{", "$x^{"),
        (b"\xe2\x80\x8b", "U+200B"),
        ("\N{VARIATION SELECTOR-16}".encode(), "U+FE0F"),  # Python calls it printable, and it leaves no mark
        ("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}".encode(), "\N{HEAVY BLACK HEART}U+FE0F"),
        ("\N{HANGUL FILLER}".encode(), "U+3164"),
    ],
)
def test_a_token_by_itself(piece: bytes, label: str) -> None:
    assert token_label(piece) == label


def test_parts_of_a_character_name_it_and_give_their_bytes() -> None:
    assert token_labels([b"a", CAT[:1], CAT[1:2], CAT[2:], b" b"]) == ["a", "猫 E7", "猫 8C", "猫 AB", "·b"]


def test_a_space_may_be_in_the_first_part() -> None:
    (unit,) = units([b" " + CAT[:2], CAT[2:]])
    assert (unit.text, unit.tokens) == (" 猫", range(2))


@pytest.mark.parametrize("pieces", [[CAT[:2]], [CAT[:1], b"a"], [CAT[1:2], CAT[2:]], [b"\xff", b"\xfe"]])
def test_bytes_that_are_no_text_stand_in_hex_each_by_itself(pieces: list[bytes]) -> None:
    assert [unit.tokens for unit in units(pieces)] == [range(i, i + 1) for i in range(len(pieces))]


def test_every_token_is_in_one_unit() -> None:
    pieces = [bytes([byte]) for byte in "a猫😀é\n".encode() + b"\xff\xe7\x8c"]
    tokens = [token for unit in units(pieces) for token in unit.tokens]
    assert tokens == list(range(len(pieces)))


def test_labels_are_cut_where_asked() -> None:
    assert token_labels([b"-" * 80], 5) == ["----…"]
