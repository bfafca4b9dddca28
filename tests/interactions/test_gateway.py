"""The parts of discord.py's private API that the bot uses, in the pinned version."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import discord
from discord.shard import Shard
from discord.state import AutoShardedConnectionState, ConnectionState
from discord.webhook.async_ import AsyncWebhookAdapter, async_context

from bot.interactions import retry
from bot.interactions.pipeline import Pipeline
from bot.interactions.reply import Reply
from tests.cogs.conftest import Server, server  # noqa: F401 # a fixture

if TYPE_CHECKING:
    import pytest

    from bot.client import GPT2Client


def test_interactions_are_still_dispatched_where_ours_are() -> None:
    assert "parse_interaction_create" not in vars(AutoShardedConnectionState)
    source = inspect.getsource(ConnectionState.parse_interaction_create)
    for part in (
        "Interaction(data=data, state=self)",
        "if data['type'] in (2, 4) and self._command_tree:",
        "self._command_tree._from_interaction(interaction)",
        "elif data['type'] == 3:",
        "elif data['type'] == 5:",
    ):
        assert part in source, f"discord.py has changed here: look at State and GPT2Client.receive ({part})"
    assert source.count("self.") == 5, "discord.py does something more here now"
    assert "await self._call(interaction)" in inspect.getsource(discord.app_commands.CommandTree._from_interaction)


async def test_every_interaction_carries_what_discord_sent(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[discord.Interaction] = []
    whole = Pipeline.receive

    def watch(pipeline: Pipeline, interaction: discord.Interaction, *rest: Any) -> None:
        seen.append(interaction)
        whole(pipeline, interaction, *rest)

    monkeypatch.setattr(Pipeline, "receive", watch)
    await server.slash("help")
    (interaction,) = seen
    payload = Reply.of(interaction).payload
    assert payload["token"] == interaction.token
    again = simcord_bot._connection.interaction(payload)  # type: ignore[arg-type]
    assert (again.id, again.user, again.locale, again.command) == (
        interaction.id,
        interaction.user,
        interaction.locale,
        interaction.command,
    )
    assert not again.response.is_done()
    again.response._response_type = discord.InteractionResponseType.deferred_channel_message
    assert again.response.is_done()


async def test_what_discord_py_cannot_read_can_still_be_answered(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
) -> None:
    await server.slash("help")
    state, payload = simcord_bot._connection, {"id": "1", "type": 2, "token": "x", "version": 1, "application_id": "2"}
    payload |= {"attachment_size_limit": 1, "locale": "de", "data": {"name": "help", "options": 5}}
    for fault in ({"member": {}, "guild_id": "7"}, {"user": None}, {"message": None}, {"channel": None}):
        interaction, error = state.read(payload | fault)  # type: ignore[arg-type]
        assert error is not None
        assert (interaction.id, interaction.token, interaction.locale) == (1, "x", discord.Locale.german)
        assert interaction.data == {"name": "help"}


def test_answers_go_through_the_adapter_of_the_context() -> None:
    assert "async_context.get()" in inspect.getsource(discord.InteractionResponse.defer)
    assert "async_context.get()" in inspect.getsource(discord.Interaction.edit_original_response)
    assert isinstance(async_context.get(), AsyncWebhookAdapter)
    assert issubclass(retry.RetryingAdapter, AsyncWebhookAdapter)


def test_a_shard_has_the_backoff_that_is_bounded() -> None:
    assert "self._backoff: ExponentialBackoff" in inspect.getsource(Shard.__init__)
    assert "min(self._exp + 1, self._max)" in inspect.getsource(discord.backoff.ExponentialBackoff.delay)
