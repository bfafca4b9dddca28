"""What was acknowledged and is still owed: kept in the journal, answered again by the next start.

An interaction that is answered again goes the way it went the first time: the same command, button or form is called
with the same payload and finds it acknowledged. Seeds that nobody gave are drawn from the interaction's id, so the
words are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog

from bot.interactions.journal import Entry
from bot.interactions.reply import TOKEN_SECONDS, Reply
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.interactions.journal import Journal
    from bot.text import Text
    from bot.ui.locales import Catalogue

PAYLOAD: Final = "payload"
"""The key in `Interaction.extras` under which there is what Discord sent."""

RESERVE_SECONDS: Final = 60.0
"""What is left of them must be more than this for an answer to be begun."""

FORGET_SECONDS: Final = 3600.0
"""Rows of other processes that are older belong to one that is not coming back."""

MAX_ATTEMPTS: Final = 3
"""Starts that take a request up. After as many crashes in its company it is given up, for it may be the cause."""

CLAIM_SECONDS: Final = 10.0
"""How long a command, button or form may take to come for its interaction."""

NOTICE_SECONDS: Final = 3.0
"""How long telling those who wait that the bot goes may take; all at once."""

_GONE: Final = frozenset({401, 404})  # HTTP's, for an interaction or a message that is over
_DISCORD_EPOCH: Final = 1_420_070_400.0
_GOING: Final = say(
    "I'm being restarted. Your answer will appear here when I'm back; if there is none in {minutes} minutes, ask "
    "again.",
    minutes=round(TOKEN_SECONDS / 60),
)
_TOO_LATE: Final = say("I was away for too long to answer this in time. Please ask again.")
_GIVEN_UP: Final = say(
    "I stopped unexpectedly while I worked on this, several times, so I gave up. Try something else."
)
_UNCLAIMED: Final = say("I was restarted and don't know this button or form any more. Please use the command again.")

log = structlog.get_logger(__name__)


class JournaledPromises:
    """Every reply that is owed, in memory and on disk; see `bot.interactions.reply.Promises`."""

    def __init__(self, journal: Journal, catalogue: Catalogue) -> None:
        self.journal = journal
        self._catalogue = catalogue
        self._open: set[Reply] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """How many replies are owed."""
        return len(self._open)

    async def make(self, reply: Reply, *, private: bool) -> None:
        """See `Promises.make`."""
        self._open.add(reply)
        payload = reply.interaction.extras.get(PAYLOAD)
        if payload is not None:  # SimCord's own have none
            await self.journal.add(Entry(payload, private=private, written=time.time()))

    def keep(self, reply: Reply) -> None:
        """See `Promises.keep`. What is left to a later process stays in the journal: its notice may have come last."""
        owed = reply in self._open
        self._open.discard(reply)
        if owed and PAYLOAD in reply.interaction.extras:
            self.journal.remove(reply.interaction.id)

    async def kept(self) -> None:
        """Wait until nothing is owed."""
        while self._open:
            await asyncio.gather(*(reply.settled.wait() for reply in self._open))

    async def postpone(self) -> None:
        """Leave what is owed to the next start, and tell those who wait. Without a journal nothing can be left.

        An answer that is on its way is not overtaken by such a notice.
        """
        left = [reply for reply in self._open if not reply.delivering]
        if not self.journal.works or not left:
            return
        self._open.difference_update(left)
        for reply in left:
            reply.postponed = True
        log.info("requests are left to the next start", requests=len(left))
        # That the process ended well says that none of them made it crash.
        await self.journal.count_attempt([reply.interaction.id for reply in left], -1)
        notices = [asyncio.create_task(_notify(reply)) for reply in left]
        await asyncio.wait(notices, timeout=NOTICE_SECONDS)

    async def take_up(
        self,
        state: discord.state.ConnectionState[Any],
        hand_on: Callable[[discord.Interaction, Any], None],
        mine: Callable[[Any], bool],
    ) -> None:
        """Answer what an earlier process has left owing.

        Args:
            state: discord.py's, from which interactions are made.
            hand_on: Calls the command, button or form that an interaction is for.
            mine: Whether a payload is this process's to answer, where several share the journal.
        """
        every = await self.journal.owed()
        entries = [entry for entry in every if mine(entry.payload)]
        for entry in every:
            if not mine(entry.payload) and _age(entry) > FORGET_SECONDS:
                self._in_background(self._forget_if_over(entry, state))
        if not entries:
            return
        log.info("requests of an earlier run are answered now", requests=len(entries))
        await self.journal.count_attempt(entry.id for entry in entries)
        for entry in entries:
            try:
                interaction = discord.Interaction(data=entry.payload, state=state)  # type: ignore[arg-type] # as sent
            except (KeyError, TypeError, ValueError) as error:
                log.warning("an interaction in the journal cannot be read", error=repr(error))
                self.journal.remove(entry.id)
                continue
            self._answer_again(interaction, entry, hand_on)

    async def _forget_if_over(self, entry: Entry, state: discord.state.ConnectionState[Any]) -> None:
        """Another process's row that looks too old: Discord is asked whether it is, since the clock may have jumped."""
        try:
            interaction = discord.Interaction(data=entry.payload, state=state)  # type: ignore[arg-type] # as sent
            await interaction.original_response()
        except (discord.DiscordException, OSError) as error:
            if not isinstance(error, discord.HTTPException) or error.status not in _GONE:
                return  # Discord is in trouble: the next start asks again
        except (KeyError, TypeError, ValueError):
            pass  # nobody can read it
        else:
            return
        self.journal.remove(entry.id)

    def _answer_again(
        self, interaction: discord.Interaction, entry: Entry, hand_on: Callable[[discord.Interaction, Any], None]
    ) -> None:
        interaction.extras[PAYLOAD] = entry.payload
        age = _age(entry)
        # Older than can be: then the clock is wrong, or Discord will say so.
        known = age if 0 <= age <= TOKEN_SECONDS else 0.0
        reply = Reply.again(interaction, self._catalogue, self, private=entry.private, age=known)
        self._open.add(reply)
        if entry.attempts >= MAX_ATTEMPTS:
            self._in_background(self._end(reply, _GIVEN_UP))
        elif age <= TOKEN_SECONDS - RESERVE_SECONDS:
            self._in_background(self._call(reply, hand_on))
        elif age <= TOKEN_SECONDS:
            self._in_background(self._end(reply, _TOO_LATE))
        else:
            self._in_background(self._call_if_alive(reply, hand_on))

    async def _call_if_alive(self, reply: Reply, hand_on: Callable[[discord.Interaction, Any], None]) -> None:
        """What this machine's clock takes for too old: the clock may have jumped, so Discord is asked."""
        try:
            await reply.interaction.original_response()
        except (discord.DiscordException, OSError) as error:
            log.info("a request of an earlier run has expired", interaction=reply.interaction.id, error=str(error))
            reply.settle()
        else:
            await self._call(reply, hand_on)

    async def _call(self, reply: Reply, hand_on: Callable[[discord.Interaction, Any], None]) -> None:
        hand_on(reply.interaction, reply.interaction.extras[PAYLOAD])
        try:
            await asyncio.wait_for(reply.claimed.wait(), CLAIM_SECONDS)
        except TimeoutError:
            await self._end(reply, _UNCLAIMED)

    @staticmethod
    async def _end(reply: Reply, text: Text) -> None:
        """The last word about something that is not answered any more; if Discord takes no word, then none."""
        try:
            await reply.leave(text)
            log.info("a request of an earlier run could not be answered", interaction=reply.interaction.id)
        except (discord.HTTPException, OSError) as error:
            log.info("a request of an earlier run has expired", interaction=reply.interaction.id, error=str(error))
        finally:
            reply.settle()

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work, name="answer again")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _notify(reply: Reply) -> None:
    with contextlib.suppress(discord.HTTPException, OSError):
        await reply.leave(_GOING)


def _age(entry: Entry) -> float:
    """Seconds since the interaction was made.

    By Discord's clock, which is in its id, and by this machine's, which may have jumped since: a small computer without
    a battery begins its day in the past. The smaller of the two counts, for Discord refuses what is really too old.
    """
    made = (entry.id >> 22) / 1000 + _DISCORD_EPOCH
    now = time.time()
    return min(now - made, now - entry.written)
