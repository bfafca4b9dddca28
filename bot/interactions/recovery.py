"""What an earlier process has left owing, answered by this one.

An interaction that is answered again goes the way it went the first time: the same command, button or form runs with
the same payload and finds it acknowledged. Seeds that nobody gave are drawn from the interaction's id, so the words
are the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog

from bot.interactions.reply import TOKEN_SECONDS, Reply
from bot.tasks import BackgroundTasks
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot.interactions.journal import Entry
    from bot.interactions.pending import PendingReplies
    from bot.text import Text
    from bot.ui.locales import Catalogue

RESERVE_SECONDS: Final = 60.0
"""An answer is begun only if Discord will take edits for longer than this."""

FORGET_SECONDS: Final = 3600.0
"""Rows of other processes that are older belong to one that is not coming back."""

MAX_ATTEMPTS: Final = 3
"""Starts that try to answer a request. After as many crashes in its company it is given up, for it may be the cause."""

_GONE: Final = frozenset({401, 404})  # HTTP statuses of an interaction or a message that is over
_DISCORD_EPOCH: Final = 1_420_070_400.0
_TOO_LATE: Final = say("I was away for too long to answer this in time. Please ask again.")
_GIVEN_UP: Final = say(
    "I stopped unexpectedly while I worked on this, several times, so I gave up. Try something else."
)

log = structlog.get_logger(__name__)


class Recovery:
    """Answers the interactions in the journal.

    Args:
        pending: The journal, and where the replies are owed meanwhile.
        catalogue: The languages to answer in.
        read: Makes an interaction of its payload, and returns the error if discord.py cannot read it.
        handle: Runs the command, button or form that a reply is for, or apologizes for such an error.
    """

    def __init__(
        self,
        pending: PendingReplies,
        catalogue: Catalogue,
        read: Callable[[Any], tuple[discord.Interaction, Exception | None]],
        handle: Callable[[Reply, Exception | None], Awaitable[None]],
    ) -> None:
        self._pending = pending
        self._journal = pending.journal
        self._catalogue = catalogue
        self._read = read
        self._handle = handle
        self._tasks = BackgroundTasks()

    async def start(self, is_mine: Callable[[Any], bool]) -> None:
        """Begin to answer what is owed, each request in a task of its own.

        Args:
            is_mine: Whether this process answers a payload, if several share the journal.
        """
        entries = await self._journal.entries()
        mine = [entry for entry in entries if is_mine(entry.payload)]
        for entry in entries:
            if not is_mine(entry.payload) and _age(entry) > FORGET_SECONDS:
                self._tasks.start(self._forget_if_over(entry), "forget")
        if not mine:
            return
        log.info("requests of an earlier run are answered now", requests=len(mine))
        await self._journal.count_attempt(entry.id for entry in mine)
        for entry in mine:
            try:
                interaction, fault = self._read(entry.payload)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("an interaction in the journal cannot be read", error=repr(error))
                self._journal.remove(entry.id)
            else:
                self._tasks.start(self._answer(interaction, entry, fault), "answer again")

    async def _answer(self, interaction: discord.Interaction, entry: Entry, fault: Exception | None) -> None:
        age = _age(entry)
        # Older than it can be: the clock is wrong, or Discord will say so.
        known_age = age if 0 <= age <= TOKEN_SECONDS else 0.0
        reply = Reply.resumed(
            interaction,
            entry.payload,
            self._catalogue,
            self._pending,
            private=entry.private,
            in_place=entry.in_place,
            age=known_age,
        )
        self._pending.add_journaled(reply)
        if entry.attempts >= MAX_ATTEMPTS:
            await self._end(reply, _GIVEN_UP)
        elif age <= TOKEN_SECONDS - RESERVE_SECONDS:
            await self._handle(reply, fault)
        elif age <= TOKEN_SECONDS:
            await self._end(reply, _TOO_LATE)
        else:
            await self._answer_if_alive(reply, fault)

    async def _answer_if_alive(self, reply: Reply, fault: Exception | None) -> None:
        """Answer what looks too old, if Discord still knows it: this machine's clock may have jumped."""
        try:
            await reply.interaction.original_response()
        except (discord.DiscordException, OSError) as error:
            log.info("a request of an earlier run has expired", interaction=reply.interaction.id, error=str(error))
            reply.settle()
        else:
            await self._handle(reply, fault)

    async def _forget_if_over(self, entry: Entry) -> None:
        """Remove another process's row that looks too old, if Discord says that it is: the clock may have jumped."""
        try:
            interaction, _ = self._read(entry.payload)
            await interaction.original_response()
        except (discord.DiscordException, OSError) as error:
            if not isinstance(error, discord.HTTPException) or error.status not in _GONE:
                return  # Discord is in trouble: the next start asks again
        except (KeyError, TypeError, ValueError):
            pass  # no process can read it
        else:
            return
        self._journal.remove(entry.id)

    @staticmethod
    async def _end(reply: Reply, text: Text) -> None:
        """Say that there will be no answer; if Discord takes no word, say nothing."""
        try:
            await reply.announce(text)
            log.info("a request of an earlier run could not be answered", interaction=reply.interaction.id)
        except (discord.HTTPException, OSError) as error:
            log.info("a request of an earlier run has expired", interaction=reply.interaction.id, error=str(error))
        finally:
            reply.settle()


def _age(entry: Entry) -> float:
    """Return the seconds since the interaction was made.

    The smaller of two ages counts: by Discord's clock, which is in the interaction's id, and by this machine's, which
    may have jumped since (a small computer without a battery begins its day in the past). Discord refuses what is
    really too old.
    """
    made = (entry.id >> 22) / 1000 + _DISCORD_EPOCH
    now = time.time()
    return min(now - made, now - entry.written)
