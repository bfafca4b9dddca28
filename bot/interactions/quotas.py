"""Who may ask now: bounds and a cooldown for each person and server, and where what the model writes may be shown.

The queue already gives everyone the same share of the machine; these keep it from being filled by one.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import discord

from bot.errors import InvalidInputError, UnavailableError
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from discord import app_commands

ALWAYS_ALLOWED: Final = frozenset({"about", "help", "sync"})
"""Commands that show nothing of what the model computes."""

_KEY: Final = "admitted"


class Manners:
    """Admits requests, and counts those that are under way.

    Args:
        per_person: Requests of one person at one time; 0 for no bound.
        per_server: Requests from one server at one time; 0 for no bound.
        cooldown_seconds: Between two requests of a person; 0 for none.
        nsfw_only: Whether only age-restricted channels are served, and direct messages, where Discord itself asks.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        *,
        per_person: int = 0,
        per_server: int = 0,
        cooldown_seconds: int = 0,
        nsfw_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_person = per_person
        self._per_server = per_server
        self._cooldown_seconds = cooldown_seconds
        self._nsfw_only = nsfw_only
        self._clock = clock
        self._under_way: Counter[Hashable] = Counter()
        self._free_again: dict[int, float] = {}  # by person, in ascending order of time: the cooldown is always as long

    def mark(self, tree: app_commands.CommandTree[Any]) -> None:
        """Have Discord itself offer the commands in age-restricted channels alone, where that is wanted."""
        for command in tree.get_commands(type=None):
            if self._nsfw_only and command.name not in ALWAYS_ALLOWED:
                command.nsfw = True

    def admit(self, interaction: discord.Interaction) -> None:
        """Let a request in, once; `release` it when it is over.

        Raises:
            InvalidInputError: Not in this channel.
            UnavailableError: Not now; the text says when, or what to wait for.
        """
        command = interaction.command
        if _KEY in interaction.extras or (command and command.qualified_name in ALWAYS_ALLOWED):
            return
        if self._nsfw_only and not _is_age_restricted(interaction):
            raise InvalidInputError(
                say("I may only write in age-restricted channels here. Ask again in one, or in a direct message.")
            )
        person, server = ("person", interaction.user.id), ("server", interaction.guild_id)
        if self._per_person and self._under_way[person] >= self._per_person:
            raise UnavailableError(
                say(
                    "{count} of your requests are under way; more I don't take at one time. Wait for one of them.",
                    count=self._under_way[person],
                )
            )
        if self._per_server and interaction.guild_id and self._under_way[server] >= self._per_server:
            raise UnavailableError(
                say(
                    "{count} requests from this server are under way; more I don't take at one time. "
                    "Try again in a minute.",
                    count=self._under_way[server],
                )
            )
        interaction.extras[_KEY] = (person, server), self._cool_down(interaction)
        self._under_way.update((person, server))

    def release(self, interaction: discord.Interaction, *, answered: bool = True) -> None:
        """A request is over, whether or not it was admitted. One that was not answered costs no cooldown."""
        admitted, free_again = interaction.extras.pop(_KEY, ((), None))
        self._under_way.subtract(admitted)
        for each in admitted:
            if not self._under_way[each]:
                del self._under_way[each]
        # The one that lasts now may be that of a later request.
        if not answered and free_again is not None and self._free_again.get(interaction.user.id) == free_again:
            del self._free_again[interaction.user.id]

    def _cool_down(self, interaction: discord.Interaction) -> float | None:
        """Begin a person's cooldown and return when it ends, or refuse because one still lasts."""
        if not self._cooldown_seconds:
            return None
        person, now = interaction.user.id, self._clock()
        while self._free_again and (oldest := next(iter(self._free_again.items())))[1] <= now:
            del self._free_again[oldest[0]]
        left = self._free_again.get(person, now) - now
        if left > 0:
            # Counted from Discord's own clock, which its clients go by; this machine's may be wrong.
            when = interaction.created_at + timedelta(seconds=left)
            text = say(
                "I take one request every {seconds} seconds from each person. You can ask again {when}.",
                seconds=self._cooldown_seconds,
                when=discord.utils.format_dt(when, "R"),  # Discord's clients count it down
            )
            raise UnavailableError(replace(text, markup=True))
        self._free_again[person] = ends = now + self._cooldown_seconds
        return ends


def _is_age_restricted(interaction: discord.Interaction) -> bool:
    """Whether Discord shows this place to adults alone; in direct messages it has asked already."""
    if interaction.guild_id is None:
        return True
    channel: Any = interaction.channel
    # A thread whose channel is not known, in a server that the bot is not in, counts as not restricted.
    return bool(getattr(channel, "is_nsfw", bool)())
