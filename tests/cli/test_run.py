"""The bot in its own process, against a Discord on loopback that speaks the real protocol and checks every body."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bot.errors import ExitCode
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.ui.literal import bold, literal
from tests.loopback import BotProcess, LoopbackDiscord
from tests.loopback.proxy import http_proxy
from tests.test_conversation import continue_button, displays, done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.loopback import Message


# The tests that only send requests share one process: its start takes longer than all of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")


def settings(model: Path, **more: str) -> dict[str, str]:
    # One thread is plenty for so small a model; two would wait for one another on a busy machine.
    return {"GPT2_MODEL": str(model), "GPT2_THREADS": "1", "PICTURES_MB": "0", **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxied(discord: LoopbackDiscord) -> AsyncIterator[tuple[str, bytearray]]:
    async with http_proxy(discord.address) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(
    discord: LoopbackDiscord, tiny_model: Path, proxied: tuple[str, bytearray]
) -> AsyncIterator[BotProcess]:
    env = settings(tiny_model, DISCORD_PROXY=f"http://bot:s%C3%A9cret@{proxied[0]}")
    async with BotProcess(discord, env=env) as bot:
        await bot.loaded()
        yield bot
    assert bot.exit_code == ExitCode.OK


@pytest_asyncio.fixture(loop_scope="module")
async def own_discord() -> AsyncIterator[LoopbackDiscord]:
    """Yield a server for a test that starts its own process."""
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


@pytest_asyncio.fixture(loop_scope="module")
async def loaded(tiny_model: Path) -> AsyncIterator[LocalEngine]:
    """Yield an engine in this process, to compare with."""
    engine = LocalEngine(str(tiny_model), device="cpu", threads=1)
    await engine.start()
    yield engine
    await engine.close()


def pictures(message: Message) -> list[bytes]:
    return [attachment.content for attachment in message.attachments if attachment.filename.endswith(".png")]


async def test_everything_goes_through_the_proxy(
    discord: LoopbackDiscord, process: BotProcess, proxied: tuple[str, bytearray]
) -> None:
    await (await discord.slash("about")).answered()
    address, sent = proxied
    login = f"Basic {base64.b64encode('bot:sécret'.encode()).decode()}"
    assert {request.headers.get("Proxy-Authorization") for request in discord.requests} == {login}
    assert b"Upgrade: websocket" in sent, "the gateway's connection, too"
    assert address in process.log
    assert "cret" not in process.log


async def test_what_discord_py_cannot_read_is_answered_and_ends_nothing(
    discord: LoopbackDiscord, process: BotProcess
) -> None:
    poll = {"question": {"text": "Tea?"}, "answers": [], "expiry": None, "allow_multiselect": False, "layout_type": 1}
    message = await (await discord.slash("continue", {"prompt": "Hello", "samples": 1, "length": 2})).answered()
    message.more["poll"] = poll
    for asked in (
        await discord.component(message, label="Re-roll"),
        await discord.message_command("Continue with GPT-2", discord.post("Hello", poll=poll)),
    ):
        answer = await asked.answered()
        assert answer.ephemeral
        (reference,) = re.findall("reference: ([0-9a-f]{8})", answer.text)
        line = await process.logged(f'"reference": "{reference}"')
        assert "TypeError" in line
    await discord.gateway.dispatch(0, "CHANNEL_UPDATE", {"guild_id": None})
    await process.logged("an event of the gateway cannot be read")


@pytest.mark.usefixtures("process")
async def test_samples_are_those_of_the_engine(discord: LoopbackDiscord, loaded: LocalEngine) -> None:
    interaction = await discord.slash("continue", {"prompt": "Hello, I'm a language model,", "seed": 42, "length": 12})
    assert await interaction.acknowledged() < 3
    message = await interaction.answered()
    expected = await loaded.continuation(
        ContinuationRequest("Hello, I'm a language model,", SamplingParams(42, length=12))
    )
    for sample in expected.samples:
        assert bold("Hello, I'm a language model,") + literal(sample.text) in message.text
    assert not message.ephemeral
    assert not message.pings


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("weights positional", {}),
        ("weights positional", {"view": "lines", "dims": "0,1,2", "positions": "100", "style": "article"}),
        ("weights attention", {"layer": 1}),
        ("weights matrix", {"name": "transformer.h.1.mlp.c_proj.bias", "style": "article"}),
    ],
    ids=str,
)
async def test_pictures_arrive(discord: LoopbackDiscord, command: str, options: dict[str, Any]) -> None:
    message = await (await discord.slash(command, options)).answered()
    (png,) = pictures(message)
    assert png.startswith(b"\x89PNG")
    assert all(attachment.description for attachment in message.attachments)


@pytest.mark.usefixtures("process")
async def test_the_rest_of_the_commands(discord: LoopbackDiscord) -> None:
    listed = await (await discord.slash("weights list")).answered()
    assert [attachment.filename for attachment in listed.attachments] == ["state_dict.txt"]
    typed = await discord.autocomplete("weights matrix", "name", "c_attn")
    await typed.acknowledged()
    assert {choice["value"] for choice in typed.choices} >= {"transformer.h.0.attn.c_attn.weight"}
    form = await discord.slash("continue", {"samples": 1, "length": 3})
    await form.acknowledged()
    sent = await discord.modal(form, {"Prompt": "two\nlines"})
    assert "**two\nlines**" in (await sent.answered()).text


@pytest.mark.usefixtures("process")
async def test_the_oldest_part_is_left_out_when_the_context_is_full(discord: LoopbackDiscord) -> None:
    options = {"prompt": "Hello, I'm a language model,", "seed": 42, "samples": 2, "length": 90}  # of 128
    message = await done(await discord.slash("continue", options))
    for _ in range(3):
        message = await done(await discord.component(message, continue_button(message, 1)))
        assert re.search(r"the first \d+ characters are omitted: tiny-gpt2 sees 128 tokens at once", message.text)
    rerolled = await done(await discord.component(message, label="Re-roll"))
    assert displays(rerolled)[0] == displays(message)[0], "the whole of what was written before"


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize(
    ("command", "options", "sentence"),
    [
        ("continue", {"prompt": " "}, "The prompt is empty"),
        ("continue", {"prompt": "a", "samples": 99}, "samples must be from 1 to 10, not 99"),
        ("continue", {"prompt": "a", "temperature": -1.0}, "temperature must be from 0.0 to 2.0"),
        ("continue", {"prompt": "€" * 67}, "The prompt has 201 tokens"),
        ("weights matrix", {"name": "nope"}, "There is no parameter"),
        ("weights matrix", {"name": "wpe", "rows": "9:1"}, "is empty"),
        ("weights attention", {"layer": 99}, "There is no layer 99"),
        ("weights positional", {"view": "lines", "dims": "768"}, "whole numbers from 0 to 31"),
    ],
    ids=str,
)
async def test_bad_input_is_refused_in_private(
    discord: LoopbackDiscord, command: str, options: dict[str, Any], sentence: str
) -> None:
    interaction = await discord.slash(command, options, unchecked=True)
    message = await interaction.answered()
    assert sentence in message.text
    assert message.ephemeral


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe to hold up the loading")
async def test_requests_before_the_model_are_answered_in_place(
    own_discord: LoopbackDiscord, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "tiny-gpt2")
    config = folder / "config.json"
    config.unlink()
    os.mkfifo(config)

    def let_it_load() -> None:
        with config.open("w") as pipe:  # waits until the bot has come to read it
            Path(shutil.copy(tiny_model / "config.json", tmp_path)).replace(config)
            pipe.write(config.read_text())

    async with BotProcess(own_discord, env=settings(folder)) as bot:
        await bot.ready()
        early = [
            await own_discord.slash("continue", {"prompt": str(seed), "seed": seed, "length": 3}) for seed in range(5)
        ]
        unfit = await own_discord.slash("continue", {"prompt": "€" * 67})
        for interaction in (*early, unfit):
            assert await interaction.acknowledged() < 3
            assert interaction.callback_type == 5
        typed = await own_discord.autocomplete("weights matrix", "name", "wpe")
        assert await typed.acknowledged() < 3
        await asyncio.to_thread(let_it_load)
        for interaction in early:
            await interaction.until(lambda each: "tokens/s" in each.text, within=60, what="the samples")
        await unfit.until(lambda each: each.followups, within=60, what="the refusal")
        assert "The prompt has 201 tokens" in unfit.followups[0].text
        assert unfit.followups[0].ephemeral
        await unfit.until(lambda each: each.original.deleted, within=20, what="the end of “is thinking…”")


@pytest.mark.slow
async def test_an_invalid_model_ends_the_process(own_discord: LoopbackDiscord, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    async with BotProcess(own_discord, env=settings(tmp_path)) as bot:
        assert await bot.wait() == ExitCode.MODEL_INVALID
        said = "\n".join(bot.stderr)
        assert "has no model.safetensors" in said
        assert "Traceback" not in said


async def test_a_refused_token_ends_the_process(own_discord: LoopbackDiscord, tiny_model: Path) -> None:
    token = "MTIzNDU2Nzg5MDEyMzQ1Njc4.AAAAAA.this-is-a-token-nobody-gave-out"
    async with BotProcess(own_discord, env=settings(tiny_model, DISCORD_TOKEN=token)) as bot:
        assert await bot.wait() == ExitCode.TOKEN
        said = "\n".join(bot.stderr)
        assert "Discord refused the token" in said
        assert token not in said
        assert "Traceback" not in said


@pytest.mark.slow
async def test_sigterm_without_a_journal_refuses_waiting_requests(
    own_discord: LoopbackDiscord, tiny_model: Path
) -> None:
    async with BotProcess(own_discord, env=settings(tiny_model, JOURNAL="off", SHUTDOWN_SECONDS="0")) as bot:
        await bot.loaded()
        running = [
            await own_discord.slash("continue", {"prompt": "Hello", "samples": 10, "length": 100}) for _ in range(30)
        ]
        await asyncio.gather(*(interaction.acknowledged() for interaction in running))
        assert await bot.stop() == ExitCode.OK
    outcomes = [interaction.messages[-1].text for interaction in running]
    assert all("tokens/s" in text or "shutting down" in text for text in outcomes)
    assert any("shutting down" in text for text in outcomes), "30 of the longest requests should not be done yet"


@pytest.mark.slow
async def test_synced_commands_are_not_sent_again(own_discord: LoopbackDiscord, tiny_model: Path) -> None:
    for said in ("commands synced", "commands are up to date"):
        async with BotProcess(own_discord, env=settings(tiny_model), fresh=True) as bot:
            await bot.ready(commands=False)
            await bot.logged(said)
            assert await bot.stop() == ExitCode.OK
    sent = [call for call in own_discord.requests if call.method == "PUT" and call.path.endswith("/commands")]
    assert len(sent) == 1
