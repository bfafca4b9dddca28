"""Replies that were acknowledged and are still owed, in memory and in the journal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import discord
import structlog

from bot.interactions.journal import Entry
from bot.interactions.reply import TOKEN_SECONDS
from bot.text import say

if TYPE_CHECKING:
    from bot.interactions.journal import Journal
    from bot.interactions.reply import Reply

NOTICE_SECONDS: Final = 3.0
"""How long telling everybody who waits about a restart may take."""

_RESTARTING: Final = say(
    "I'm being restarted. Your answer will appear here when I'm back; if there is none in {minutes} minutes, ask "
    "again.",
    minutes=round(TOKEN_SECONDS / 60),
)

log = structlog.get_logger(__name__)


class PendingReplies:
    """Every reply that is owed; see `bot.interactions.reply.OwedReplies`.

    Attributes:
        journal: Where they are kept for the next start.
        postponed: Set once what is owed was left to the next start, where there is a journal.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.postponed = asyncio.Event()
        self._owed: set[Reply] = set()

    def __len__(self) -> int:
        """Return how many replies are owed."""
        return len(self._owed)

    async def add(self, reply: Reply) -> None:
        """Write a reply into the journal before it is acknowledged."""
        self._owed.add(reply)
        entry = Entry(reply.payload, private=reply.private, written=time.time(), in_place=reply.in_place)
        await self.journal.add(entry)

    def add_journaled(self, reply: Reply) -> None:
        """Take over a reply that an earlier process has written into the journal."""
        self._owed.add(reply)

    def discard(self, reply: Reply) -> None:
        """Forget a reply that is settled. A postponed one stays in the journal."""
        if reply in self._owed:
            self._owed.discard(reply)
            self.journal.remove(reply.interaction.id)

    async def drained(self) -> None:
        """Wait until nothing is owed."""
        while self._owed:
            await asyncio.gather(*(reply.settled.wait() for reply in self._owed))

    async def postpone(self, *, harmful: bool = False) -> None:
        """Leave what is owed to the next start, and tell everybody who waits. Does nothing without a journal.

        An answer that is on its way is not overtaken by such a notice.

        Args:
            harmful: Whether one of the requests may be why this process ends.
        """
        left = [reply for reply in self._owed if reply.postpone()] if self.journal.available else []
        self.postponed.set()
        if not left:
            return
        self._owed.difference_update(left)
        log.info("requests are left to the next start", requests=len(left))
        if not harmful:
            await self.journal.count_attempt([reply.interaction.id for reply in left], -1)
        notices = [asyncio.create_task(_notify(reply)) for reply in left]
        await asyncio.wait(notices, timeout=NOTICE_SECONDS)


async def _notify(reply: Reply) -> None:
    with contextlib.suppress(discord.HTTPException, OSError):
        await reply.announce(_RESTARTING)
