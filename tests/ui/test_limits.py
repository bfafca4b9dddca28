"""Texts cut to Discord's numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.ui import limits
from bot.ui.limits import clip, fit, length, shares
from bot.ui.literal import literal

_texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("*_`😀"), max_size=80)


def test_they_are_discords() -> None:
    """The other tests take them from here."""
    assert (limits.MESSAGE_CHARACTERS, limits.LAYOUT_CHARACTERS, limits.TEXT_INPUT_CHARACTERS) == (2000, 4000, 4000)
    assert (limits.ALT_TEXT_CHARACTERS, limits.GALLERY_ALT_TEXT_CHARACTERS) == (1024, 256)
    assert (limits.CHOICES, limits.CHOICE_CHARACTERS) == (25, 100)
    assert (limits.COMPONENTS, limits.CUSTOM_ID_CHARACTERS, limits.BUTTONS) == (40, 100, 5)
    assert (limits.BUTTON_LABEL_CHARACTERS, limits.MENU_PLACEHOLDER_CHARACTERS) == (80, 150)
    assert limits.FORM_TITLE_CHARACTERS == 45


def test_length_counts_as_discords_clients_do() -> None:
    assert length("aé日") == 3
    assert length("😀") == 2


@given(text=_texts, limit=st.integers(1, 60))
def test_clip_keeps_all_that_fits(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    assert length(clipped) <= limit
    if length(text) <= limit:
        assert clipped == text
    else:
        kept = clipped.removesuffix("…")
        assert text.startswith(kept)
        assert length(text[: len(kept) + 1]) + 1 > limit, "one more character would have fitted"


@given(text=_texts, limit=st.integers(2, 60))
def test_fit_never_cuts_an_escape_in_two(text: str, limit: int) -> None:
    fitted = fit(text, limit, literal)
    assert length(fitted) <= limit
    assert fitted == literal(text) or any(fitted == literal(text[:end] + "…") for end in range(len(text) + 1))


@given(wanted=st.lists(st.integers(0, 5000), min_size=1, max_size=12), budget=st.integers(0, 4000))
def test_shares_are_fair_and_within_the_budget(wanted: list[int], budget: int) -> None:
    given_ = shares(wanted, budget)
    assert sum(given_) <= budget
    assert all(0 <= share <= want for share, want in zip(given_, wanted, strict=True))
    if sum(wanted) <= budget:
        assert given_ == wanted
    else:
        # Who got less than he wanted got no less than anyone else, but for the rounding.
        short = [share for share, want in zip(given_, wanted, strict=True) if share < want]
        assert min(short) >= max(given_) - 1
