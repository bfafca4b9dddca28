"""/about and /help through the real client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.ui.limits import LAYOUT_CHARACTERS, length
from tests.cogs.conftest import Server, texts

if TYPE_CHECKING:
    from bot.client import GPT2Client


async def test_about_shows_model_speed_versions_and_invitation(server: Server, simcord_bot: GPT2Client) -> None:
    before = "\n".join(texts((await server.slash("about")).response))
    assert "**Model** tiny-gpt2: 51,872 parameters in 3 layers with 4 heads each, context 128 tokens" in before
    assert "**Speed** not measured yet · **Waiting** 0" in before
    assert "transformers 5.23" in before
    await server.slash("continue", prompt="Hello", length=3)
    result = await server.slash("about")
    assert "tokens/s" in "\n".join(texts(result.response))
    (button,) = result.response.components[1]["components"]
    assert f"client_id={simcord_bot.application_id}" in button["url"]
    assert "permissions=0" in button["url"]


async def test_help_mentions_every_command_for_members(server: Server) -> None:
    shown = texts((await server.slash("help")).response)
    assert sum(map(length, shown)) <= LAYOUT_CHARACTERS
    for name in ("continue", "weights positional", "weights attention", "weights matrix", "weights list", "about"):
        assert f"</{name}:" in shown[-1]
    assert "sync" not in shown[-1]
