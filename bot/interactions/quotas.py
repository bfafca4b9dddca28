"""Admission control: quotas and a cooldown for each person and server, and where the model's texts may be shown.

The queue already gives everyone the same share of the machine; quotas keep one person from filling it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import discord

from bot.errors import InvalidInputError, UnavailableError
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from discord import app_commands

EXEMPT_COMMANDS: Final = frozenset({"about", "help", "sync"})
"""Commands that show nothing of what the model computes."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one running request in the quotas.

    Attributes:
        holders: The person and the server that it counts for.
        person: The id of the person who asked.
        cooldown_ends: When its person may ask again, by the quotas' clock; None without a cooldown.
    """

    holders: tuple[Hashable, ...]
    person: int
    cooldown_ends: float | None


class Quotas:
    """Admits requests and counts those that run.

    Args:
        per_person: Requests of one person at one time; 0 for no limit.
        per_server: Requests from one server at one time; 0 for no limit.
        cooldown_seconds: Seconds between two requests of a person; 0 for none.
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
        self._running: Counter[Hashable] = Counter()
        self._cooldown_ends: dict[int, float] = {}  # by person, in ascending order: all cooldowns are equally long

    def mark(self, tree: app_commands.CommandTree[Any]) -> None:
        """Have Discord offer the commands in age-restricted channels alone, if the operator wants that."""
        for command in tree.get_commands(type=None):
            if self._nsfw_only and command.name not in EXEMPT_COMMANDS:
                command.nsfw = True

    def acquire(self, interaction: discord.Interaction) -> Slot | None:
        """Admit a request and return its slot, to be released when it ends; None for exempt commands.

        Raises:
            InvalidInputError: The channel is not age-restricted and has to be.
            UnavailableError: A limit is reached; the text says when to ask again, or what to wait for.
        """
        command = interaction.command
        if command and command.qualified_name in EXEMPT_COMMANDS:
            return None
        if self._nsfw_only and not _is_age_restricted(interaction):
            raise InvalidInputError(
                say("I may only write in age-restricted channels here. Ask again in one, or in a direct message.")
            )
        person, server = ("person", interaction.user.id), ("server", interaction.guild_id)
        if self._per_person and self._running[person] >= self._per_person:
            raise UnavailableError(
                say(
                    "You already have {count} requests running, which is the limit. Wait for one to finish.",
                    count=self._running[person],
                )
            )
        if self._per_server and interaction.guild_id and self._running[server] >= self._per_server:
            raise UnavailableError(
                say(
                    "This server already has {count} requests running, which is the limit. Try again in a minute.",
                    count=self._running[server],
                )
            )
        slot = Slot((person, server), interaction.user.id, self._start_cooldown(interaction))
        self._running.update(slot.holders)
        return slot

    def release(self, slot: Slot | None, *, answered: bool = True) -> None:
        """Free the slot of a request that has ended. One that was not answered costs no cooldown."""
        if slot is None:
            return
        self._running.subtract(slot.holders)
        for holder in slot.holders:
            if not self._running[holder]:
                del self._running[holder]
        # A later request of the same person may have begun another cooldown.
        started = slot.cooldown_ends
        if not answered and started is not None and self._cooldown_ends.get(slot.person) == started:
            del self._cooldown_ends[slot.person]

    def _start_cooldown(self, interaction: discord.Interaction) -> float | None:
        """Start a person's cooldown and return when it ends; refuse while an earlier one lasts."""
        if not self._cooldown_seconds:
            return None
        person, now = interaction.user.id, self._clock()
        while self._cooldown_ends and (oldest := next(iter(self._cooldown_ends.items())))[1] <= now:
            del self._cooldown_ends[oldest[0]]
        left = self._cooldown_ends.get(person, now) - now
        if left > 0:
            # Counted from Discord's own clock, which its clients go by; this machine's may be wrong.
            when = interaction.created_at + timedelta(seconds=left)
            text = say(
                "I take one request every {seconds} seconds from each person. You can ask again {when}.",
                seconds=self._cooldown_seconds,
                when=discord.utils.format_dt(when, "R"),  # Discord's clients count it down
            )
            raise UnavailableError(replace(text, markup=True))
        self._cooldown_ends[person] = ends = now + self._cooldown_seconds
        return ends


def _is_age_restricted(interaction: discord.Interaction) -> bool:
    """Return whether Discord shows this place to adults alone; in direct messages it has asked already."""
    if interaction.guild_id is None:
        return True
    channel: Any = interaction.channel
    # A thread whose channel is unknown, in a server that the bot is not in, counts as not restricted.
    return bool(getattr(channel, "is_nsfw", bool)())
