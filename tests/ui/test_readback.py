"""What the bot has written it reads back exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import UnavailableError
from bot.ui.literal import bold, literal
from bot.ui.readback import attached, body, guarded, plain, survives, text_display
from tests.cogs.conftest import Server, server  # noqa: F401 # a fixture

if TYPE_CHECKING:
    from bot.client import GPT2Client

_pieces = st.sampled_from(
    [
        *"*_~|`<>[]()#-+=&@:!.\\/ \n\t1a\u200b",
        "everyone",
        "https://",
        "discord.gg/",
        "😀",
        "-# ",
        "\n\n",
        "**",
        "␀",
        "é",
    ]
)
_texts = st.lists(_pieces, max_size=30).map("".join) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=40
)


@given(prompt=_texts, sample=_texts)
def test_bold_and_literal_are_read_back_exactly(prompt: str, sample: str) -> None:
    assert plain(bold(prompt) + literal(sample)) == prompt + sample


@given(prompt=_texts, sample=_texts, note=st.sampled_from(["", "\n-# GPT-2 ended the text here."]))
def test_a_trimmed_display_is_read_back_exactly(prompt: str, sample: str, note: str) -> None:
    content = f"-# 1\n{guarded(bold(prompt) + literal(sample))}{note}"
    assert body(content.strip()) == prompt + sample


@given(text=st.text(max_size=20))
def test_what_does_not_survive_is_known(text: str) -> None:
    lost = any((ord(character) < 0x20 and character not in "\n\t") or character == "\x7f" for character in text)
    assert survives(text) != lost


async def post(server: Server, bot: GPT2Client) -> discord.Message:  # noqa: F811
    await server.env.settle()
    view = discord.ui.LayoutView()
    section: discord.ui.Section[discord.ui.LayoutView] = discord.ui.Section(
        discord.ui.TextDisplay("in a section", id=7), accessory=discord.ui.Button(label="x", custom_id="x")
    )
    view.add_item(discord.ui.Container(section, discord.ui.TextDisplay("in a container", id=8)))
    view.add_item(discord.ui.File("attachment://whole.txt"))
    file = discord.File("tests/ui/test_readback.py", "whole.txt")
    sent = await bot.get_channel(server.channel.id).send(view=view, file=file)
    return await sent.fetch()


async def test_nested_displays_are_found_by_number(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
) -> None:
    message = await post(server, simcord_bot)
    assert text_display(message, 7) == "in a section"
    assert text_display(message, 8) == "in a container"
    assert text_display(message, 9) is None


async def test_files_are_read_with_or_without_a_component(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
) -> None:
    message = await post(server, simcord_bot)
    assert (await attached(message, "whole.txt") or "").startswith('"""What the bot has written')
    assert await attached(message, "other.txt") is None


async def test_a_file_that_is_gone_is_a_sentence(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gone(*_: object) -> bytes:
        raise discord.DiscordException

    message = await post(server, simcord_bot)
    monkeypatch.setattr(simcord_bot.http, "get_from_cdn", gone)
    with pytest.raises(UnavailableError, match=r"The whole text is in whole\.txt"):
        await attached(message, "whole.txt")
