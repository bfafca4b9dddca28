"""How interactions come in: from Discord's gateway, or once more from the journal.

discord.py keeps nothing of an interaction's payload but its parts, and the journal needs it whole. So this is the one
place that looks behind discord.py's front door: a connection state that remembers each payload beside its interaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import discord
from discord.state import AutoShardedConnectionState

from bot.interactions.pending import PAYLOAD

if TYPE_CHECKING:
    from discord.types.gateway import InteractionCreateEvent


class Receiver(Protocol):
    """What the state needs of the client."""

    def turns_away(self, interaction: discord.Interaction) -> bool:
        """Whether the interaction is not to be handed on; it is answered by then."""
        ...


class State(AutoShardedConnectionState[Any]):
    """discord.py's connection state, with interactions that carry their payload."""

    receiver: Receiver

    def parse_interaction_create(self, data: InteractionCreateEvent) -> None:
        """Called by the gateway with each interaction."""
        interaction = discord.Interaction(data=data, state=self)
        interaction.extras[PAYLOAD] = data
        if not self.receiver.turns_away(interaction):
            self.hand_on(interaction, data)

    def hand_on(self, interaction: discord.Interaction, data: InteractionCreateEvent) -> None:
        """Call the command, button or form that an interaction is for.

        As `ConnectionState.parse_interaction_create` of discord.py 2.7.1, which makes the interaction itself; a test
        notices when that changes.
        """
        if data["type"] in (2, 4) and self._command_tree:
            self._command_tree._from_interaction(interaction)  # noqa: SLF001
        elif data["type"] == 3:  # noqa: PLR2004 # a component
            inner = data["data"]
            self._view_store.dispatch_view(inner["component_type"], inner["custom_id"], interaction)
        elif data["type"] == 5:  # noqa: PLR2004 # a form
            sent = data["data"]
            resolved = sent.get("resolved", {})
            self._view_store.dispatch_modal(sent["custom_id"], interaction, sent["components"], resolved)
        self.dispatch("interaction", interaction)
