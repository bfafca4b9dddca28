"""Starting, breaking and ending the bot's process, and the gateway's bad days."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.loopback import BotExitedError, BotProcess, Channel, GatewaySettings, LoopbackDiscord
from tests.loopback.conftest import SAMPLE


async def test_a_wrong_token_is_refused() -> None:
    async with LoopbackDiscord() as discord, BotProcess(discord, entry=SAMPLE, env={"DISCORD_TOKEN": "wrong"}) as bot:
        with pytest.raises(BotExitedError, match="exit code 3"):
            await bot.ready()
        assert discord.requests[-1].status == 401
        assert discord.violations == []


async def test_privileged_intents_are_refused() -> None:
    async with LoopbackDiscord() as discord, BotProcess(discord, entry=SAMPLE, env={"CONTENT": "1"}) as bot:
        assert await bot.wait() == 4
        assert discord.gateway.closed_with == [4014]


async def test_the_exit_code_and_the_arguments_pass_through() -> None:
    async with LoopbackDiscord() as discord, BotProcess(discord, "--exit", entry=SAMPLE) as bot:
        assert await bot.wait() == 7


async def test_bad_days_of_the_gateway_lose_nothing() -> None:
    async with LoopbackDiscord() as discord, BotProcess(discord, entry=SAMPLE) as bot:
        await bot.ready()
        gateway = discord.gateway
        assert gateway.identifies[0].intents == 1

        async def came_back(resumes: int, identifies: int) -> None:
            await gateway.until(lambda g: len(g.resumes) == resumes and len(g.identifies) == identifies)
            await gateway.ready()
            interaction = await discord.slash("do pick", {"name": f"{resumes} {identifies}"})
            assert (await interaction.answered()).content == f"picked {resumes} {identifies} en-US"

        gateway.drop()
        while_away = await discord.slash("do pick", {"name": "meanwhile"})
        assert (await while_away.answered()).content == "picked meanwhile en-US"
        await came_back(1, 1)
        assert gateway.resumes[0].taken
        assert gateway.resumes[0].by_resume_url
        await gateway.ask_to_reconnect()
        await came_back(2, 1)
        await gateway.invalidate(resumable=True)
        await came_back(3, 1)
        await gateway.close(code=4000)
        await came_back(4, 1)
        await gateway.invalidate()
        await came_back(4, 2)
        gateway.settings.accept_resumes = False
        gateway.drop()
        await came_back(5, 3)
        assert not gateway.resumes[-1].taken
        assert discord.violations == []


async def test_a_killed_bot_restarts_on_its_address() -> None:
    async with LoopbackDiscord(GatewaySettings(heartbeat_seconds=0.3)) as discord:
        async with BotProcess(discord, entry=SAMPLE) as bot:
            await bot.ready()
            await discord.gateway.until(lambda g: g.heartbeats > 2)
            await bot.kill()
            assert bot.exit_code == -signal.SIGKILL
        panel_commands = discord.commands.all()
        async with BotProcess(discord, entry=SAMPLE) as bot:
            await bot.ready()
            assert [command["id"] for command in discord.commands.all()] == [c["id"] for c in panel_commands]
            assert [command["version"] for command in discord.commands.all()] == [c["version"] for c in panel_commands]
            interaction = await discord.slash("do pick", {"name": "again"})
            assert (await interaction.answered()).content == "picked again en-US"


async def test_without_the_description_validation_is_skipped() -> None:
    async with LoopbackDiscord(description=Path("/nowhere.json")) as discord:
        assert not discord.validates


async def test_the_network_goes_and_comes_back() -> None:
    async with LoopbackDiscord() as discord, BotProcess(discord, entry=SAMPLE) as bot:
        await bot.ready()
        await discord.go_offline()
        interaction = await discord.slash("do pick", {"name": "offline"})
        assert not discord.gateway.live()
        await discord.go_online()
        await discord.gateway.ready()
        # The gateway remembers it and the resumption brings it, or a new session has not heard of it.
        if discord.gateway.resumes:
            assert (await interaction.answered()).content == "picked offline en-US"
        again = await discord.slash("do pick", {"name": "online"})
        assert (await again.answered()).content == "picked online en-US"


async def test_shards_hear_of_their_own_servers() -> None:
    async with LoopbackDiscord(GatewaySettings(shards=2)) as discord:
        channels: dict[int, Channel] = {}
        while len(channels) < 2:
            channel = discord.server("One more")
            assert channel.guild is not None
            channels[(channel.guild.id >> 22) % 2] = channel
        async with BotProcess(discord, entry=SAMPLE) as bot:
            await bot.ready()
            assert sorted((i.shard, i.shards) for i in discord.gateway.identifies) == [(0, 2), (1, 2)]
            for shard, channel in channels.items():
                before = discord.gateway.sessions[shard].sequence
                interaction = await discord.slash("do pick", {"name": "x"}, where=channel)
                await interaction.answered()
                assert discord.gateway.sessions[shard].sequence == before + 1
            interaction = await discord.slash("do pick", {"name": "dm"}, where=discord.dm(discord.user()))
            assert (await interaction.answered()).content == "picked dm en-US"


async def test_identifying_too_fast_is_noticed() -> None:
    settings = GatewaySettings(shards=2, identify_seconds=5)
    async with LoopbackDiscord(settings) as discord, BotProcess(discord, entry=SAMPLE) as bot:
        await bot.ready()
        assert [violation.kind for violation in discord.violations] == ["identify"]
