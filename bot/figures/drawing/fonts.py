"""Fonts for text in any script: found once, chosen by family, with a code point where no font has the character.

DejaVu Sans comes with matplotlib and has Latin, Greek, Cyrillic, Hebrew, Arabic and many symbols. The rest is in two
packages of Noto's fonts on PyPI, which the bot requires, or in packages of the distribution. Emoji are drawn in one
colour: Agg, which draws all pictures, cannot draw fonts made of colour bitmaps. Matplotlib shapes text itself, so
Arabic is joined, Hebrew runs from right to left and an emoji of several code points is one.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.ft2font import FT2Font

if TYPE_CHECKING:
    from collections.abc import Iterable

BASE: Final = "DejaVu Sans"
PACKAGES: Final = ("manimgx_fonts", "noto_cjk_sans_otc")  # their import names; they are never imported
DOTTED_CIRCLE: Final = "\N{DOTTED CIRCLE}"  # carries a combining mark that has no letter before it
LEFT_TO_RIGHT_MARK: Final = "\N{LEFT-TO-RIGHT MARK}"
# Characters that Python calls printable though they leave no mark: joiners, fillers, variation selectors.
_FILLERS: Final = (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0)
BLANK: Final = frozenset(map(chr, (*_FILLERS, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
STOOD_FOR: Final = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "↵"}
KNOWN_CHARACTERS: Final = 20_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Script:
    """Characters that DejaVu Sans lacks, and the fonts that have them.

    Attributes:
        name: For the log.
        sample: Characters that every font for it has.
        families: Fonts of distributions that have it, the best first.
        packages: Packages to install, on PyPI or from the distribution.
    """

    name: str
    sample: str
    families: tuple[str, ...]
    packages: str


SCRIPTS: Final = (
    Script(
        "Chinese, Japanese, Korean",
        "漢あ한",
        ("Noto Sans CJK JP", "Noto Sans JP", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
        "noto-cjk-sans-otc (PyPI) or fonts-noto-cjk (Debian)",
    ),
    Script("emoji", "🚀🤖", ("Noto Emoji", "Symbola"), "manimgx-fonts (PyPI) or fonts-symbola (Debian)"),
    *(
        Script(name, sample, (f"Noto Sans {name}",), "manimgx-fonts (PyPI) or fonts-noto-core (Debian)")
        for name, sample in (("Devanagari", "न"), ("Bengali", "ব"), ("Tamil", "த"), ("Thai", "ท"), ("Khmer", "ខ"))
    ),
)


def warm() -> None:
    """Find and open the fonts, on the drawing thread; warn once of scripts without a font."""
    for script in SCRIPTS:
        for character in script.sample:
            can_draw(character)


def family_for(text: str) -> list[str]:
    """Return the families for a text, in order of precedence; the base alone where that is enough."""
    return [BASE] if all(_in_base(character) for character in text) else list(families())


def legible(text: str) -> str:
    """Return the text in one line, with `U+…` for characters that are invisible or in no font, but for `in_order`'s."""
    kept = f" {LEFT_TO_RIGHT_MARK}"
    return "".join(c if c in kept or _leaves_mark(c) else STOOD_FOR.get(c, code_point(c)) for c in text)


def visible(text: str) -> str:
    """Return the text like `legible`, with marks for spaces and a carrier for a leading combining mark."""
    shown = "".join(STOOD_FOR.get(c) or (c if _leaves_mark(c) else code_point(c)) for c in text)
    return DOTTED_CIRCLE + shown if shown and unicodedata.category(shown[0]).startswith("M") else shown


def _leaves_mark(character: str) -> bool:
    return character.isprintable() and character not in BLANK and can_draw(character)


def code_point(character: str) -> str:
    """Return a character's code point: ``U+200B``."""
    return f"U+{ord(character):04X}"


def runs_leftwards(text: str) -> bool:
    """Return whether the text has letters of a script that is written from right to left."""
    return any(unicodedata.bidirectional(character) in {"R", "AL"} for character in text)


def in_order(text: str) -> str:
    """Return a text for a line of several, in which letters that run leftwards reorder nothing but themselves.

    By themselves they would draw numbers and punctuation beside them into their own direction.
    """
    return f"{LEFT_TO_RIGHT_MARK}{text}{LEFT_TO_RIGHT_MARK}" if runs_leftwards(text) else text


@cache
def families() -> tuple[str, ...]:
    """Return all families, in order of precedence."""
    found = [BASE, *_shipped()]
    known = set(fontManager.get_font_names())
    missing = []
    for script in SCRIPTS:
        if _covered(found, script.sample):
            continue
        family = next((name for name in script.families if name in known and _covered([name], script.sample)), None)
        if family is None:
            missing.append(script)
        else:
            found.append(family)
    if missing:
        _log.warning(
            "pictures cannot show some scripts and will write code points instead",
            scripts=[script.name for script in missing],
            install=sorted({script.packages for script in missing}),
        )
    return tuple(found)


@lru_cache(KNOWN_CHARACTERS)
def can_draw(character: str) -> bool:
    """Return whether some font has the character."""
    return _in_base(character) or _covered(families(), character)


@lru_cache(KNOWN_CHARACTERS)
def _in_base(character: str) -> bool:
    return _covered([BASE], character)


def _shipped() -> list[str]:
    """Register the fonts of the installed packages with matplotlib and return their families."""
    names = []
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).glob("*.tt[fc]")):
                if "Italic" not in path.name:
                    fontManager.addfont(path)
                    # Before the host's own font of that family, which may be of another version.
                    fontManager.ttflist.insert(0, fontManager.ttflist.pop())
                    names.append(FT2Font(path).family_name)
    return names


def _covered(names: Iterable[str], sample: str) -> bool:
    """Return whether each character of the sample is in one of the families."""
    fonts = [get_font(fontManager.findfont(FontProperties(family=[name]))) for name in names]
    return all(any(font.get_char_index(ord(character)) for font in fonts) for character in sample)
