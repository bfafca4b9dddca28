"""Two models in one bot, in a process of its own: twenty people at once, and messages that outlive a restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bot.errors import ExitCode
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.ui.literal import bold, literal
from tests.answers import answered
from tests.loopback import BotProcess, LoopbackDiscord

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loopback import Interaction

PROMPT = "Hello, I'm a language model,"


async def written(folder: Path, seeds: range) -> dict[int, list[str]]:
    """Return the samples of a model that is alone, by their seed."""
    engine = LocalEngine(str(folder), device="cpu", threads=1)
    try:
        await engine.start()
        requests = {seed: ContinuationRequest(PROMPT, SamplingParams(seed, 3, 20)) for seed in seeds}
        return {
            seed: [sample.text for sample in (await engine.continuation(request)).samples]
            for seed, request in requests.items()
        }
    finally:
        await engine.close()


@pytest.mark.slow
async def test_two_models_answer_twenty_people_and_their_buttons_after_a_restart(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    env = {"GPT2_THREADS": "1", "JOURNAL": str(tmp_path / "journal"), "PICTURES_MB": "0", "GPT2_MODEL": ""}
    folders = {"tiny-gpt2": tiny_model, "other-gpt2": other_model}
    expected = {name: await written(folder, range(5)) for name, folder in folders.items()}
    async with LoopbackDiscord() as discord:
        env["GPT2_MODELS"] = f"{tiny_model},{other_model}"
        async with BotProcess(discord, env=env) as bot:
            await bot.loaded()
            completed = await discord.autocomplete("continue", "model", "gpt2")
            await completed.acknowledged()
            assert [choice["value"] for choice in completed.choices or ()] == list(folders)
            asked: list[tuple[str, int, Interaction]] = []
            for number in range(20):
                name, seed = list(folders)[number % 2], number % 5
                options: dict[str, Any] = {"prompt": PROMPT, "seed": seed, "samples": 3, "length": 20, "model": name}
                asked.append((name, seed, await discord.slash("continue", options, user=discord.user(f"user{number}"))))
            answers = await asyncio.gather(*(answered(interaction) for *_, interaction in asked))
            for (name, seed, _), answer in zip(asked, answers, strict=True):
                for text in expected[name][seed]:
                    assert bold(PROMPT) + literal(text) in answer.text
            by = {name: answers[number] for number, name in enumerate(folders)}
            picture = await (await discord.slash("tokens split", {"text": PROMPT, "model": "other-gpt2"})).answered()
        assert bot.exit_code == ExitCode.OK
        env["GPT2_MODELS"] = f"{other_model},{tiny_model}"
        async with BotProcess(discord, env=env) as bot:
            await bot.loaded()
            for name, answer in by.items():
                again = await answered(await discord.component(answer, label="Re-roll"))
                assert f"{literal(name)} · seed" in again.text
            code = await (await discord.component(picture, label="Show code")).answered()
            assert 'model = "other-gpt2"' in code.text
        assert discord.violations == []
