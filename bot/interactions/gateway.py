"""Interactions from Discord's gateway, with their payloads, also those that discord.py cannot read.

The journal needs an interaction's whole payload, of which discord.py keeps only the parts. So a connection state of our
own, discord.py's private API, passes each interaction on together with its payload.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import discord
import structlog
from discord.state import AutoShardedConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from discord.types.gateway import InteractionCreateEvent

# Enough to answer with a sentence. The message, the channel, the member and the command's options are what may hold
# something that this version of discord.py does not expect.
_ESSENTIAL: Final = ("id", "type", "token", "version", "application_id", "attachment_size_limit", "guild_id", "locale")
_NAMES: Final = ("type", "name", "custom_id")  # of the command or the button, for the log

log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """The part of the client that the state uses."""

    def receive(self, interaction: discord.Interaction, payload: Any, fault: Exception | None) -> None:
        """Handle an interaction with its payload, and the error at which discord.py failed to read it."""
        ...


class State(AutoShardedConnectionState[Any]):
    """A connection state that passes interactions to the client instead of dispatching them itself."""

    receiver: Receiver

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # An error in one of them would end the process. Without READY it could do nothing.
        self.parsers = {
            name: parse if name == "READY" else partial(_survive, name, parse) for name, parse in self.parsers.items()
        }

    def parse_interaction_create(self, data: InteractionCreateEvent) -> None:
        """Pass an interaction from the gateway to the client."""
        interaction, fault = self.read(data)
        if fault and interaction.type is discord.InteractionType.autocomplete:
            raise fault  # suggestions have no room for a sentence
        self.receiver.receive(interaction, data, fault)

    def read(self, payload: InteractionCreateEvent) -> tuple[discord.Interaction, Exception | None]:
        """Build an interaction from its payload; if that fails, one that can only be answered, and the error.

        Raises:
            KeyError, TypeError, ValueError: The payload lacks what an answer needs.
        """
        try:
            return self.interaction(payload), None
        except Exception as error:  # noqa: BLE001 # discord.py raises any kind at a payload that it does not expect
            rest: Any = {name: payload[name] for name in _ESSENTIAL if name in payload}
            data: Any = payload.get("data") or {}
            rest["data"] = {name: data[name] for name in _NAMES if name in data}
            return self.interaction(rest), error

    def interaction(self, payload: InteractionCreateEvent) -> discord.Interaction:
        """Build an interaction from its payload."""
        return discord.Interaction(data=payload, state=self)


def _survive(name: str, parse: Callable[[Any], None], data: Any) -> None:
    """Read an event of the gateway; log the error of one that cannot be read."""
    try:
        parse(data)
    except Exception:
        log.exception("an event of the gateway cannot be read", event_name=name)
