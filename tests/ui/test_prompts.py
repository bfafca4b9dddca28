"""Prompts above a picture come back as they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import InvalidInputError
from bot.ui.limits import length
from bot.ui.prompts import SHOWN_CHARACTERS, Prompts, prompt_of
from bot.ui.readback import body
from tests.cogs.conftest import Server, server  # noqa: F401 # a fixture

if TYPE_CHECKING:
    from bot.client import GPT2Client

PROMPTS = (
    "Hello, I'm a language model,",
    "  spaces before\n\nand after \n",
    "-# small\n# big\n**bold** `code` @everyone <@1> https://example.com",
    "control \x01 character",
    "*" * SHOWN_CHARACTERS,
    "日本語 🎭 العربية \u202eabc\u202c",
    "word " * 1200,
)


async def post(server: Server, bot: GPT2Client, *prompts: str) -> discord.Message:  # noqa: F811
    await server.env.settle()
    words = Prompts(prompts, str)
    view = discord.ui.LayoutView()
    container: discord.ui.Container[discord.ui.LayoutView] = discord.ui.Container()
    for item in (*words.displays(), *words.file_links()):
        container.add_item(item)
    view.add_item(container)
    sent = await bot.get_channel(server.channel.id).send(view=view, files=words.files)
    return await sent.fetch()


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: ascii(prompt[:20]))
async def test_a_prompt_is_read_back_from_the_message(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
    prompt: str,
) -> None:
    message = await post(server, simcord_bot, prompt)
    assert await prompt_of(message) == prompt
    message = await post(server, simcord_bot, "first", prompt)
    assert [await prompt_of(message, number) for number in (0, 1)] == ["first", prompt]


async def test_a_message_without_a_prompt_is_a_sentence(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
) -> None:
    message = await post(server, simcord_bot, "only one")
    with pytest.raises(InvalidInputError, match="can no longer read the prompt from this message"):
        await prompt_of(message, 1)


@given(prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=700))
def test_inexactly_shown_prompts_are_attached(prompt: str) -> None:
    words = Prompts([prompt], str)
    (display,) = words.displays()
    assert length(display.content) <= SHOWN_CHARACTERS + 30
    assert words.length == length(display.content)
    if words.files:
        assert words.files[0].fp.read() == prompt.encode()
        assert [link.media.url for link in words.file_links()] == ["attachment://prompt.txt"]
    else:
        assert body(display.content.strip()) == prompt
