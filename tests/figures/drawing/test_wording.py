from __future__ import annotations

import numpy as np
import pytest

from bot.figures.drawing.wording import listing, number, percent, printed, shorten
from bot.text import say

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"), [(-4.5381, f"{MINUS}4.538"), (0, "0"), (0.25, "0.25"), (1e-5, f"1e{MINUS}05")]
)
def test_numbers_have_four_digits_and_a_true_minus(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("share", "text"), [(0, "0%"), (0.01, "1.0%"), (0.0002, "<0.1%")])
def test_a_small_share_is_not_rounded_to_nothing(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_long_name_ends_in_an_ellipsis() -> None:
    assert shorten("transformer", 11) == "transformer"
    assert shorten("transformer", 6) == "trans…"


def test_listing() -> None:
    items = [say("a"), say("b"), say("c")]
    assert [str(listing(items[:n])) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_printed_values_have_the_digits_that_fit() -> None:
    values = np.array([[0.123456, -0.5]])
    assert printed(values, 7) == (["0.1235", f"{MINUS}0.5"], 1)
    assert printed(values, 5) == (["0.123", f"{MINUS}0.5"], 1)


def test_printed_values_fall_back_to_a_common_unit() -> None:
    assert printed(np.array([[0.0512, -0.0004, 0]]), 4) == (["5.1", "0.0", "0.0"], 0.01)
