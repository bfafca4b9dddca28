"""Interactions from Discord's gateway, with their payloads.

The journal needs an interaction's whole payload, of which discord.py keeps only the parts. So a connection state of our
own, discord.py's private API, passes each interaction on together with its payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import discord
from discord.state import AutoShardedConnectionState

if TYPE_CHECKING:
    from discord.types.gateway import InteractionCreateEvent


class Receiver(Protocol):
    """The part of the client that the state uses."""

    def receive(self, interaction: discord.Interaction, payload: Any) -> None:
        """Handle an interaction with its payload."""
        ...


class State(AutoShardedConnectionState[Any]):
    """A connection state that passes interactions to the client instead of dispatching them itself."""

    receiver: Receiver

    def parse_interaction_create(self, data: InteractionCreateEvent) -> None:
        """Pass an interaction from the gateway to the client."""
        self.receiver.receive(self.interaction(data), data)

    def interaction(self, payload: InteractionCreateEvent) -> discord.Interaction:
        """Build an interaction from its payload.

        Raises:
            KeyError, TypeError, ValueError: discord.py cannot read the payload.
        """
        return discord.Interaction(data=payload, state=self)
