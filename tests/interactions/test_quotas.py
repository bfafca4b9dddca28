"""Cooldowns, bounds and age-restricted channels: refusals that only the one who asked sees, and that say what to do."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bot.client import GPT2Client
from bot.command_sync import command_payload
from bot.errors import UnavailableError
from bot.interactions.quotas import EXEMPT_COMMANDS, Quotas
from bot.ui.locales import Catalogue
from cogs import COGS
from tests.cogs.conftest import server as server  # noqa: PLC0414 # a fixture
from tests.loopback import BotProcess, LoopbackDiscord

if TYPE_CHECKING:
    from bot.figures import Renderer
    from bot.gpt2.local.engine import LocalEngine
    from tests.cogs.conftest import Server
    from tests.loopback import Channel, Guild, Interaction, Message


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock, request: pytest.FixtureRequest) -> Quotas:
    return Quotas(**request.param, clock=clock)


@pytest.fixture
def simcord_bot(engine: LocalEngine, renderer: Renderer, quotas: Quotas, translated_once: None) -> GPT2Client:
    return GPT2Client(engine, renderer, Catalogue.shipped(), COGS, quotas=quotas, shard_count=1)


def asking_person() -> Any:
    """Return the part of an interaction that identifies its user."""
    asked = SimpleNamespace(user=SimpleNamespace(id=7), guild_id=None, command=None)
    asked.created_at = datetime.now(UTC)
    return asked


def ask(server: Server) -> Any:
    return server.slash("continue", prompt="Hello", samples=1, length=1)


@pytest.mark.parametrize("quotas", [{"cooldown_seconds": 30}], indirect=True)
class TestCooldown:
    async def test_a_cooldown_shows_a_countdown(
        self,
        server: Server,
        clock: Clock,
    ) -> None:
        assert not (await ask(server)).response.ephemeral
        clock.now += 10
        refusal = await server.refusal("continue", prompt="Hello")
        found = re.fullmatch(
            r"I take one request every 30 seconds from each person\. You can ask again <t:(\d+):R>\.", refusal
        )
        assert found, refusal
        assert abs(int(found[1]) - server.env.now().timestamp() - 20) < 5
        clock.now += 20
        assert not (await ask(server)).response.ephemeral

    async def test_the_cooldown_holds_for_every_model_command(
        self,
        server: Server,
    ) -> None:
        await ask(server)
        assert "one request every" in await server.refusal("weights list")

    async def test_others_need_not_wait(self, server: Server) -> None:
        await ask(server)
        server.member = server.member.guild.add_member(server.env.create_user("bob"))
        assert not (await ask(server)).response.ephemeral

    async def test_what_was_refused_costs_nothing(self, server: Server) -> None:
        assert "no parameter" in await server.refusal("weights matrix", name="nothing")
        assert not (await ask(server)).response.ephemeral

    async def test_late_failures_keep_a_later_cooldown(self, quotas: Quotas, clock: Clock) -> None:
        early = quotas.acquire(asking_person())
        clock.now += 31
        late = quotas.acquire(asking_person())
        quotas.release(early, answered=False)
        with pytest.raises(UnavailableError):
            quotas.acquire(asking_person())
        quotas.release(late, answered=False)
        assert quotas.acquire(asking_person())

    async def test_opening_the_form_is_no_request_yet(self, server: Server) -> None:
        for _ in range(2):
            asked = await server.slash("continue", samples=1, length=1)
            assert asked.modal
        field = asked.modal["components"][0]["component"]["custom_id"]
        result = await server.member.submit_modal(asked, {field: "Hello"})
        assert not result.response.ephemeral

    async def test_explanations_are_always_given(self, server: Server) -> None:
        await ask(server)
        for command in ("about", "help"):
            assert not (await server.slash(command)).response.ephemeral

    async def test_people_whose_cooldown_is_over_are_forgotten(
        self,
        server: Server,
        quotas: Quotas,
        clock: Clock,
    ) -> None:
        await ask(server)
        clock.now += 31
        server.member = server.member.guild.add_member(server.env.create_user("bob"))
        await ask(server)
        assert [*quotas._cooldown_ends] == [server.member.id]
        assert not quotas._running


async def test_nsfw_only_serves_age_restricted_channels_alone(tiny_model: Path) -> None:
    environment = {"GPT2_MODEL": str(tiny_model), "GPT2_THREADS": "1", "NSFW_ONLY": "true"}
    async with LoopbackDiscord() as discord:
        adults = discord.text_channel(guild_of(discord), "adults", nsfw=True)
        async with BotProcess(discord, env=environment) as bot:
            await bot.loaded()
            sent = [each.body for each in discord.requests if each.method == "PUT" and each.path.endswith("/commands")]
            assert {each["name"] for each in sent[-1] if not each["nsfw"]} == EXEMPT_COMMANDS

            async def ask(command: str, where: Channel | None = None, **options: Any) -> Message:
                return await (await discord.slash(command, options, where=where, unchecked=True)).answered()

            words = {"prompt": "Hello", "samples": 1, "length": 1}
            refused = await ask("continue", **words)
            assert refused.ephemeral
            assert "age-restricted channels" in refused.text
            assert not (await ask("continue", adults, **words)).ephemeral
            # In direct messages Discord itself asks whether its user is of age.
            assert not (await ask("continue", discord.dm(discord.user()), **words)).ephemeral
            for command in ("about", "help"):
                assert not (await ask(command)).ephemeral
        assert discord.violations == []


def guild_of(discord: LoopbackDiscord) -> Guild:
    assert discord.channel.guild
    return discord.channel.guild


@pytest.mark.parametrize("quotas", [{}], indirect=True)
async def test_without_settings_nobody_is_refused(server: Server, simcord_bot: GPT2Client) -> None:
    for _ in range(5):
        assert not (await ask(server)).response.ephemeral
    assert not any(command["nsfw"] for command in await command_payload(simcord_bot.tree))


async def test_persons_and_servers_have_limits(tiny_model: Path) -> None:
    environment = {
        "GPT2_MODEL": str(tiny_model),
        "GPT2_THREADS": "1",
        "REQUESTS_PER_PERSON": "2",
        "REQUESTS_PER_SERVER": "3",
        "LOG_FORMAT": "json",
    }
    long = {"prompt": "Hello", "samples": 10, "length": 120, "top_k": 0}

    async def outcome(interaction: Interaction) -> str:
        message = await interaction.answered(within=60)
        if message.ephemeral:
            return message.text
        await interaction.until(lambda each: "tokens/s" in each.text, within=60, what="the whole answer")
        return "answered"

    async with LoopbackDiscord() as discord, BotProcess(discord, env=environment) as bot:
        await bot.loaded()
        first, second, third = discord.user("one"), discord.user("two"), discord.user("three")
        here, elsewhere = discord.channel, discord.server("another")
        asked = [
            await discord.slash("continue", long, user=user, where=where)
            for user, where in ((first, here), (first, here), (first, elsewhere), (second, here), (third, here))
        ]
        said = await asyncio.gather(*map(outcome, asked))
        while sum('"request"' in line for line in bot.stderr) < len(asked):  # noqa: ASYNC110 # another process's log
            await asyncio.sleep(0.05)
        again = await outcome(await discord.slash("continue", {**long, "length": 1}, user=first, where=here))
    assert said == [
        "answered",
        "answered",
        "You already have 2 requests running, which is the limit. Wait for one to finish.",
        "answered",
        "This server already has 3 requests running, which is the limit. Try again in a minute.",
    ]
    assert again == "answered", "who is done may ask again"
    assert discord.violations == []
