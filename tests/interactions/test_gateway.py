"""What is taken from behind discord.py's front door is where it was in the version that is pinned."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import discord
from discord.shard import Shard
from discord.state import AutoShardedConnectionState, ConnectionState
from discord.webhook.async_ import AsyncWebhookAdapter, async_context

from bot.interactions import retry
from bot.interactions.gateway import State
from bot.interactions.pending import PAYLOAD
from tests.cogs.conftest import Server, server  # noqa: F401 # a fixture

if TYPE_CHECKING:
    import pytest

    from bot.client import GPT2Client


def test_interactions_are_still_dispatched_as_ours_dispatches_them() -> None:
    assert "parse_interaction_create" not in vars(AutoShardedConnectionState)
    source = inspect.getsource(ConnectionState.parse_interaction_create)
    for part in (
        "Interaction(data=data, state=self)",
        "if data['type'] in (2, 4) and self._command_tree:",
        "self._command_tree._from_interaction(interaction)",
        "elif data['type'] == 3:",
        "self._view_store.dispatch_view(component_type, custom_id, interaction)",
        "elif data['type'] == 5:",
        "self._view_store.dispatch_modal(custom_id, interaction, components, resolved)",
        "self.dispatch('interaction', interaction)",
    ):
        assert part in source, f"discord.py has changed here: look at State.hand_on ({part})"
    assert source.count("self.") == 5, "discord.py does something more here now"


async def test_every_interaction_carries_what_discord_sent(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[discord.Interaction] = []
    whole = State.hand_on

    def watch(state: State, interaction: discord.Interaction, data: object) -> None:
        seen.append(interaction)
        whole(state, interaction, data)  # type: ignore[arg-type]

    monkeypatch.setattr(State, "hand_on", watch)
    await server.slash("help")
    (interaction,) = seen
    payload = interaction.extras[PAYLOAD]
    assert payload["token"] == interaction.token
    again = discord.Interaction(data=payload, state=simcord_bot._connection)
    assert (again.id, again.user, again.locale, again.command) == (
        interaction.id,
        interaction.user,
        interaction.locale,
        interaction.command,
    )
    assert not again.response.is_done()
    again.response._response_type = discord.InteractionResponseType.deferred_channel_message
    assert again.response.is_done()


def test_answers_go_through_the_adapter_of_the_context() -> None:
    assert "async_context.get()" in inspect.getsource(discord.InteractionResponse.defer)
    assert "async_context.get()" in inspect.getsource(discord.Interaction.edit_original_response)
    assert isinstance(async_context.get(), AsyncWebhookAdapter)
    assert issubclass(retry.PatientAdapter, AsyncWebhookAdapter)


def test_a_shard_has_the_backoff_that_is_bounded() -> None:
    assert "self._backoff: ExponentialBackoff" in inspect.getsource(Shard.__init__)
    assert "min(self._exp + 1, self._max)" in inspect.getsource(discord.backoff.ExponentialBackoff.delay)
