from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from structlog.testing import capture_logs

from bot.figures.drawing import canvas, fonts
from tests.figures.builders import pixels_of, to_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = {
    "Japanese": "吾輩は猫である",
    "Korean": "안녕하세요",
    "Chinese": "简体字與繁體字",
    "emoji": "😀🚀🤖👩‍👩‍👧",
    "Hebrew": "שלום",
    "Arabic": "مرحبا",
    "Hindi": "नमस्ते",
    "Thai": "สวัสดี",
    "Tamil": "வணக்கம்",
    "Georgian": "გამარჯობა",
    "Greek": "Γειά",
    "Russian": "Привет",
}


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with matplotlib's own fonts only."""
    forget()
    monkeypatch.setattr(fonts, "PACKAGES", ("no_such_package_of_fonts",))
    monkeypatch.setattr(fonts.fontManager, "get_font_names", lambda: [fonts.BASE])
    yield
    forget()


def forget() -> None:
    fonts.families.cache_clear()
    fonts.can_draw.cache_clear()


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_the_scripts_of_the_world_have_their_glyphs(text: str) -> None:
    assert all(fonts.can_draw(character) for character in text if character.isprintable())
    assert fonts.visible(text.replace("\N{ZERO WIDTH JOINER}", "")) == text.replace("\N{ZERO WIDTH JOINER}", "")


def test_what_is_drawn_is_never_a_missing_glyph() -> None:
    """Matplotlib warns of one by its code point, and warnings are errors here."""
    scripts = [*SCRIPTS.values(), "\U00013000 བོད 𐎀"]
    figure = canvas.clear_figure(" ".join(scripts[::2]), " ".join(scripts[1::2]))
    axes = canvas.bare_axes(figure, (0, 0, 5, 3))
    written = [canvas.draw_text(axes, 0, 0.2 * row, fonts.visible(text)) for row, text in enumerate(scripts, start=1)]
    pixels = to_pixels(figure)
    for label in written:
        place = pixels[pixels_of(label.get_window_extent())]
        assert len(set(map(tuple, place.reshape(-1, 3)))) > 2, label.get_text()


def test_what_no_font_has_is_its_code_point() -> None:
    assert fonts.visible("\U00013000") == "U+13000"
    assert fonts.legible("wpe\n\ud800\N{RIGHT-TO-LEFT OVERRIDE}a") == "wpe⏎U+D800U+202Ea"


def test_spaces_and_line_ends_are_marked() -> None:
    assert fonts.visible(" a\n\t\r\N{NO-BREAK SPACE}\x00") == "·a⏎⇥↵U+00A0U+0000"
    assert fonts.legible(" a") == " a"


def test_a_mark_that_comes_first_is_carried() -> None:
    assert fonts.visible("\N{COMBINING ACUTE ACCENT}x") == "◌\N{COMBINING ACUTE ACCENT}x"


@pytest.mark.parametrize("letter", ["ש", "ب"])
def test_a_letter_that_runs_leftwards_stays_before_its_number(letter: str) -> None:
    def begins_with_it(text: str) -> bool:
        found = []
        for each in (letter, text):
            figure = canvas.clear_figure("", "")
            label = canvas.draw_text(canvas.bare_axes(figure, (1, 1, 3, 1)), 0, 0.5, each, size=30)
            pixels = to_pixels(figure)
            found.append(pixels[pixels_of(label.get_window_extent())])
        width = found[0].shape[1] - 2
        return np.array_equal(found[0][:, :width], found[1][:, :width])

    assert begins_with_it(f"{fonts.in_order(letter)} 12")
    assert not begins_with_it(f"{letter} 12"), "or the marks are not needed any more"


@pytest.mark.parametrize(("text", "leftwards"), [("שלום", True), ("abc مرحبا", True), ("abc 漢 ←", False), ("", False)])
def test_scripts_that_run_from_right_to_left_are_known(text: str, leftwards: bool) -> None:
    assert fonts.runs_leftwards(text) is leftwards


def test_plain_text_needs_one_font() -> None:
    assert fonts.family_for("plain ·⏎ text") == [fonts.BASE]
    assert len(fonts.family_for("漢")) > 1


@pytest.mark.usefixtures("no_packages")
def test_without_the_fonts_the_host_is_told_once_what_to_install() -> None:
    with capture_logs() as logs:
        fonts.warm()
        assert fonts.visible("漢🚀") == "U+6F22U+1F680"
    (told,) = logs
    assert told["log_level"] == "warning"
    assert any("fonts-noto-cjk" in package for package in told["install"])
    assert any("fonts-symbola" in package for package in told["install"])


@pytest.mark.usefixtures("no_packages")
def test_fonts_of_the_distribution_serve_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    script = fonts.Script("Latin", "漢", ("No Such Font", "Noto Sans CJK JP"), "anything")
    monkeypatch.setattr(fonts, "SCRIPTS", (script,))
    monkeypatch.setattr(fonts.fontManager, "get_font_names", lambda: [fonts.BASE, "Noto Sans CJK JP"])
    with capture_logs() as logs:
        assert fonts.families() == (fonts.BASE, "Noto Sans CJK JP")
    assert not logs


def test_the_bots_own_fonts_go_before_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts.warm()
    ours = next(each for each in fonts.fontManager.ttflist if each.name == "Noto Sans Thai")
    hosts = replace(ours, fname="another version")
    monkeypatch.setattr(fonts.fontManager, "ttflist", [hosts])
    fonts._shipped()
    assert next(each for each in fonts.fontManager.ttflist if each.name == "Noto Sans Thai").fname == ours.fname


@pytest.mark.parametrize("character", sorted(fonts.BLANK), ids=fonts.code_point)
def test_what_leaves_no_mark_is_its_code_point(character: str) -> None:
    assert character.isprintable()
    assert fonts.legible(character) == fonts.visible(character) == fonts.code_point(character)
