"""The button Watch through the real client."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.ui import continuation
from bot.ui.literal import bold
from tests.cogs.conftest import Server, texts
from tests.cogs.test_insides import button, gallery, program
from tests.programs.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from simcord import ResponseMessage

    from bot.client import GPT2Client
    from bot.gpt2.local.engine import LocalEngine

PROMPT = "Hello, I'm a language model,"


def watch(message: ResponseMessage) -> str:
    """Return the custom_id of the button."""
    rows = [each["components"] for each in message.components[0]["components"] if each["type"] == 1]
    (found,) = (each for row in rows for each in row if each.get("label") == "Watch")
    return found["custom_id"]


def labels(message: ResponseMessage) -> set[str]:
    rows = [each["components"] for each in message.components[0]["components"] if each["type"] == 1]
    return {each["label"] for row in rows for each in row if "label" in each}


async def test_it_answers_with_an_animation_and_its_program(
    server: Server, engine: LocalEngine, tiny_model: Path
) -> None:
    options = {"samples": 1, "length": 8, "seed": 42, "temperature": 0.9}
    message = (await server.slash("continue", prompt=PROMPT, **options)).response
    answer = (await server.member.click(message, custom_id=watch(message))).response
    assert not answer.ephemeral
    (file,) = answer.attachments
    assert file.filename == "writing.gif"
    image = Image.open(io.BytesIO(await file.read()))
    assert (image.format, image.n_frames) == ("GIF", 15)
    alt = "Animation: GPT-2 writes 8 tokens with seed 42"
    assert gallery(answer)["description"].startswith(alt)
    assert file.description.startswith(alt)
    assert texts(answer)[0] == f"-# What GPT-2 reads\n{bold(PROMPT)}"
    code = (await server.member.click(answer, custom_id=button(answer))).response
    sample = (await engine.continuation(ContinuationRequest(PROMPT, SamplingParams(**options)))).samples[0]
    done = run(await program(code), tiny_model)
    assert done.names["ids"][0].tolist()[-len(sample.token_ids) :] == [*sample.token_ids]


async def test_only_a_single_sample_has_the_button(server: Server) -> None:
    several = (await server.slash("continue", prompt=PROMPT, samples=2, length=3, seed=1)).response
    assert "Watch" not in labels(several)
    greedy = (await server.slash("continue", prompt=PROMPT, length=3, temperature=0.0)).response
    assert "Watch" in labels(greedy)


async def test_it_is_as_private_as_the_sample(server: Server) -> None:
    message = (await server.slash("continue", prompt=PROMPT, samples=1, length=2, seed=1, private=True)).response
    answer = (await server.member.click(message, custom_id=watch(message))).response
    assert answer.ephemeral


async def test_what_is_hidden_is_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    message = (await server.slash("continue", prompt=PROMPT, samples=1, length=2, seed=1)).response

    async def hidden(*_: Any) -> continuation.Written:
        return continuation.Written(PROMPT, ("",))

    monkeypatch.setattr("cogs.writing.read_back", hidden)
    answer = (await server.member.click(message, custom_id=watch(message))).response
    assert answer.ephemeral
    assert answer.content == "There is nothing to look at: GPT-2 wrote nothing here."


async def test_something_stands_there_while_it_is_drawn(server: Server, simcord_bot: GPT2Client) -> None:
    message = (await server.slash("continue", prompt=PROMPT, samples=1, length=8, seed=1)).response
    waits = iter([True])

    async def wait(result: asyncio.Future[Any], _: float) -> None:
        if not next(waits, False):  # not the first time
            await asyncio.wait({result})

    simcord_bot.wait_between_edits = wait
    answer = (await server.member.click(message, custom_id=watch(message))).response
    sent = [str(request.json) for request in server.env.http_requests if request.method == "PATCH"]
    assert any("Drawing the animation; this takes a few seconds." in body for body in sent)
    assert [each.filename for each in answer.attachments] == ["writing.gif"]
