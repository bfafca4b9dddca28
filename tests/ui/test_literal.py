"""What people and GPT-2 write is shown as it was written. The judge is SimCord's renderer of Discord's markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simcord.preview._markdown import markdown_tokens

from bot.ui.literal import bold, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UGLY = (
    "**bold** *it* __u__ _i_ ~~s~~ ||spoiler|| `code` ```block```",
    "# heading\n> quote\n>>> all of it\n- list\n* list\n+ list\n1. one\n2) two",
    "@everyone @here <@123456789012345678> <@&123456789012345678> <#123456789012345678>",
    "</continue:123456789012345678> <t:1700000000:R> <:name:123456789012345678> :smile: :+1:",
    "https://example.com/a_b http://x.y discord.gg/abc Discord.com/invite/x [text](https://x.y)",
    "\\* \\\\ a\\b \\",
    "&lt;b&gt; &#64;everyone &amp;",
    "x\n===\ny\n---",
    "日本語 🎭 مرحبا \u202eabc\u202c $x^{$ ¯\\_(ツ)_/¯",
)
_pieces = st.sampled_from([*"*_~|`<>[]()#-+=&@:!.\\/ \n1a", "everyone", "http://", "://", "smile", "discord.gg/", "😀"])
_texts = st.lists(_pieces, max_size=30).map("".join)


def shown(markdown: str) -> str:
    """Return the characters that a reader sees, without white space; fail if any is more than plain text."""
    tokens = list(_flat(markdown_tokens(markdown, "text_display")))
    kinds = {token["type"] for token in tokens}
    assert kinds <= {"paragraph", "inline", "text", "break"}, f"{markdown!r} is shown as {sorted(kinds)}"
    return "".join("".join(token.get("content", "") for token in tokens).split())


def _flat(tokens: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for token in tokens:
        yield token
        yield from _flat(token.get("children", ()))


def _comparable(text: str) -> str:
    """Leave out where SimCord differs from Discord.

    Four spaces begin a block of code in CommonMark, which SimCord builds on; and it finds subtext after it has resolved
    escapes, Discord before.
    """
    return re.sub(r"^[^\S\n]+", "", text, flags=re.MULTILINE).replace("-#", "#-")


@pytest.mark.parametrize("text", UGLY)
def test_ugly_text_is_shown_as_written(text: str) -> None:
    assert shown(literal(text)) == "".join(text.split())


@settings(deadline=None, max_examples=300)
@given(text=_texts.map(_comparable))
def test_any_text_is_shown_as_written(text: str) -> None:
    assert shown(literal(text)) == "".join(text.split())


def test_ordinary_prose_is_left_alone() -> None:
    prose = "Hello, I'm a language model, and 3.14 is (nearly) pi; isn't it? Yes! 10:30 & so on @ home."
    assert literal(prose) == prose


def test_subtext_is_escaped() -> None:
    assert literal("-# small\n  -# print") == "\\-\\# small\n  \\-\\# print"


def test_control_characters_get_a_face() -> None:
    assert literal("a\x00b\x1b\x7f\n\tc") == "a␀b␛␡\n\tc"


@pytest.mark.parametrize("text", UGLY)
def test_bold_keeps_the_text_too(text: str) -> None:
    tokens = list(_flat(markdown_tokens(bold(text), "text_display")))
    assert {token["type"] for token in tokens} <= {
        "paragraph",
        "inline",
        "text",
        "break",
        "strong_open",
        "strong_close",
    }


def test_emphasis_does_not_reach_across_an_empty_line() -> None:
    assert bold("a\n\nb") == "**a**\n\n**b**"
    assert bold("a\n\n") == "**a**\n\n"
    assert bold("") == ""


def test_control_characters_get_a_face_in_bold_too() -> None:
    assert bold("a\n\n\r\x1c\n\nb") == "**a**\n\n**␍␜**\n\n**b**"


def test_what_would_ping_everybody_is_escaped() -> None:
    """The judge above knows no such mentions."""
    assert literal("@everyone, @HERE: me@example.com") == "\\@everyone, \\@HERE: me@example.com"
