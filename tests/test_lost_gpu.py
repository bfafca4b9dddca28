"""A GPU that fails while it computes ends the process, and what was acknowledged is answered by the next one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from bot.errors import ExitCode
from tests.answers import answered
from tests.loopback import BotProcess, LoopbackDiscord

if TYPE_CHECKING:
    from pathlib import Path

LONG = {"prompt": "Hello, I'm a language model,", "samples": 4, "length": 60, "seed": 42}


def attempts(journal: Path) -> dict[int, int]:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        return dict(connection.execute("SELECT id, attempts FROM owed"))


@pytest.mark.slow
async def test_a_lost_gpu_loses_no_request(tiny_model: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    env = {"GPT2_MODEL": str(tiny_model), "GPT2_THREADS": "1", "PICTURES_MB": "0", "JOURNAL": str(journal)}
    async with LoopbackDiscord() as discord:
        lost = tmp_path / "lost"
        losing = env | {"STEPS": "400", "LOST": str(lost), "SHUTDOWN_SECONDS": "600"}
        async with BotProcess(discord, env=losing, entry="tests.loopback.losing:main") as bot:
            await bot.loaded()
            asked = [await discord.slash("continue", LONG) for _ in range(6)]
            asked.append(await discord.slash("attention head", {"prompt": "Hello there", "layer": 1, "head": 1}))
            await asyncio.gather(*(interaction.acknowledged() for interaction in asked))
            lost.touch()
            assert await bot.wait() == ExitCode.UNREACHABLE
        assert "Traceback" not in bot.log
        assert bot.log.count('"the GPU is lost; a restart is needed"') == 1
        assert "gpt2-for-discord: The GPU failed while it computed (CUDA error: an illegal memory access" in bot.log
        left = attempts(journal)
        assert left, "it ended too late to show anything"
        assert not any(interaction.followups for interaction in asked), "nobody was refused"
        assert all("I'm being restarted" in each.text for each in asked if each.id in left)
        async with BotProcess(discord, env=env) as bot:
            for interaction in asked[:-1]:
                await answered(interaction)
            await asked[-1].until(lambda each: each.original and each.original.attachments, what="the picture")
            assert await bot.stop() == ExitCode.OK
        assert not attempts(journal)
        assert not any(interaction.followups for interaction in asked)
        assert discord.violations == []
