"""One bot in several processes, against one Discord."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.loopback import BotProcess, Channel, GatewaySettings, LoopbackDiscord
from tests.loopback.gateway import Identify
from tests.loopback.wandering import FILE

LONG = {"prompt": "Hello, I'm a language model,", "samples": 10, "length": 100}


def channels(discord: LoopbackDiscord, shards: int) -> dict[int, Channel]:
    """Make a channel on each shard."""
    found: dict[int, Channel] = {}
    while len(found) < shards:
        channel = discord.server("One more")
        assert channel.guild is not None
        found[(channel.guild.id >> 22) % shards] = channel
    return found


@pytest.mark.slow
async def test_processes_answer_their_shards_requests_alone(tiny_model: Path, tmp_path: Path) -> None:
    env = {
        "GPT2_MODEL": str(tiny_model),
        "GPT2_THREADS": "1",
        "JOURNAL": str(tmp_path / "journal"),
        "SHARD_COUNT": "3",
    }
    ours = [env | {"SHARD_IDS": "0-1"}, env | {"SHARD_IDS": "2"}]
    async with LoopbackDiscord(GatewaySettings(shards=3, max_concurrency=3, identify_seconds=5)) as discord:
        places = channels(discord, 3)

        async def answered(shard: int, start: BotProcess) -> None:
            interaction = asked[shard]
            await interaction.until(lambda each: re.search(r"tokens/s", each.text), within=60, what=f"shard {shard}")
            assert f'"interaction": {interaction.id}' not in start.log

        async with BotProcess(discord, env=ours[0]) as first, BotProcess(discord, env=ours[1]) as second:
            await asyncio.gather(first.ready(shards=(0, 1)), second.ready(shards=(2,), commands=False))
            await asyncio.gather(first.logged("the model is ready"), second.logged("the model is ready"))
            assert sorted((each.shard, each.shards) for each in discord.gateway.identifies) == [(0, 3), (1, 3), (2, 3)]
            private = await discord.slash("about", where=discord.dm(discord.user()))
            assert "GPT-2" in (await private.answered()).text
            asked = {}
            for _ in range(8):  # the last of each is far from its turn
                asked = {shard: await discord.slash("continue", LONG, where=place) for shard, place in places.items()}
            await asyncio.gather(*(interaction.acknowledged() for interaction in asked.values()))
            await asyncio.gather(first.kill(), second.kill())
        so_far = {shard: interaction.text for shard, interaction in asked.items()}
        puts = discord.calls("PUT", "/commands")
        assert len(puts) == 1, "one process sends the commands for all"
        discord.gateway.identifies.clear()
        # Its clock has jumped: what looks five hours old to it and is not its own may still be answered.
        late = ours[1] | {FILE: str(5 * 3600)}
        async with BotProcess(discord, env=late, entry="tests.loopback.wandering:main") as second:
            await answered(2, second)
            for shard in (0, 1):
                assert asked[shard].text == so_far[shard], "these are the other process's to answer"
            async with BotProcess(discord, env=ours[0]) as first:
                await answered(0, first)
                await answered(1, first)
        assert discord.violations == []


async def test_shards_wait_for_their_turn_to_identify(tiny_model: Path) -> None:
    settings = GatewaySettings(shards=3, max_concurrency=2, identify_seconds=4.9, refuse_early=True)
    async with LoopbackDiscord(settings) as discord:
        # Another process takes the turn of the shards with an odd number just before this one does.
        other = Identify(asyncio.get_running_loop().time() + 60, 1, 3, 1, "another")
        discord.gateway.identifies.append(other)
        async with BotProcess(discord, env={"GPT2_MODEL": str(tiny_model), "GPT2_THREADS": "1"}) as bot:
            await discord.gateway.until(lambda g: g.refused, within=60, what="shard 1 turned away")
            discord.gateway.identifies.remove(other)
            await bot.ready()
            at = {each.shard: each.at for each in discord.gateway.identifies}
            assert at[2] - at[0] > 4.9
            assert discord.gateway.refused <= 2
            assert await bot.stop() == 0
        assert discord.violations == []
