"""The way interactions come in from Discord's gateway.

discord.py keeps nothing of an interaction's payload but its parts, and the journal needs it whole. So this is the one
place that looks behind discord.py's front door: a connection state that hands on each interaction with its payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import discord
from discord.state import AutoShardedConnectionState

if TYPE_CHECKING:
    from discord.types.gateway import InteractionCreateEvent


class Receiver(Protocol):
    """The client, as far as the state knows it."""

    def receive(self, interaction: discord.Interaction, payload: Any) -> None:
        """Answer an interaction; called with each, and with what Discord sent."""
        ...


class State(AutoShardedConnectionState[Any]):
    """discord.py's connection state, which hands interactions to the client instead of dispatching them itself."""

    receiver: Receiver

    def parse_interaction_create(self, data: InteractionCreateEvent) -> None:
        """Take an interaction from the gateway."""
        self.receiver.receive(self.interaction(data), data)

    def interaction(self, payload: InteractionCreateEvent) -> discord.Interaction:
        """Make an interaction of its payload.

        Raises:
            KeyError, TypeError, ValueError: discord.py cannot read the payload.
        """
        return discord.Interaction(data=payload, state=self)
