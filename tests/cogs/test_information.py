"""/about and /help through the real client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.gpt2.requests import TUTORIAL_PROMPT
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
    assert "newer version" not in before
    simcord_bot.newer_version = "1.10.0"
    result = await server.slash("about")
    assert "A newer version of me exists: 1.10.0." in "\n".join(texts(result.response))
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
    assert "loglevel" not in shown[-1]


async def test_helps_first_steps_are_the_tutorial_and_answer_at_once(server: Server) -> None:
    shown = (await server.slash("help")).response
    samples, positions, attention = shown.components[1]["components"]
    assert samples["label"] == "Continue “Hello, I'm a language model,”"

    answer = (await server.member.click(shown, custom_id=samples["custom_id"])).response
    assert "seed 42 · samples 5 · length 40" in texts(answer)[-1]
    assert texts(answer)[:-1] == texts((await server.slash("continue", prompt=TUTORIAL_PROMPT, seed=42)).response)[:-1]

    (picture,) = (await server.member.click(shown, custom_id=positions["custom_id"])).response.attachments
    assert picture.filename.startswith("transformer.wpe.weight-")

    form = await server.member.click(shown, custom_id=attention["custom_id"])
    field = form.modal["components"][0]["component"]
    assert field["value"] == TUTORIAL_PROMPT, "a suggestion, to be replaced"
    answer = (await server.member.submit_modal(form, {field["custom_id"]: "My own words"})).response
    assert "My own words" in texts(answer)[0]
    assert len(answer.attachments) == 1
