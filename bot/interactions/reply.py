"""The reply to an interaction: its states, and the calls with which a command moves it from one to the next."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from bot.interactions.message import ResponseMessage
from bot.ui.limits import MESSAGE_CHARACTERS, fit
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import discord

    from bot.interactions.quotas import Quotas, Slot
    from bot.text import Text, Translate
    from bot.ui.locales import Catalogue

T = TypeVar("T")

PATIENCE_SECONDS: Final = 0.25
"""How long a check may take before the interaction is acknowledged without its result. Discord allows 3 s in all."""

TOKEN_SECONDS: Final = 15 * 60.0
"""How long Discord lets an interaction be answered."""

_KEY: Final = "reply"


class ReplyState(enum.Enum):
    """The state of a reply; `NEXT_STATES` has the transitions."""

    ARRIVED = enum.auto()  # Discord waits 3 seconds for an acknowledgement
    ACKNOWLEDGED = enum.auto()  # people see "is thinking…", or samples that grow; an answer is owed
    DELIVERING = enum.auto()  # the final answer, or the refusal, is on its way to Discord
    POSTPONED = enum.auto()  # left to the next start of the bot, which finds it in the journal
    SETTLED = enum.auto()  # nothing is owed any more


NEXT_STATES: Final[Mapping[ReplyState, frozenset[ReplyState]]] = {
    ReplyState.ARRIVED: frozenset({ReplyState.ACKNOWLEDGED, ReplyState.DELIVERING, ReplyState.SETTLED}),
    # Back to the beginning where Discord does not take the acknowledgement.
    ReplyState.ACKNOWLEDGED: frozenset(
        {ReplyState.ARRIVED, ReplyState.DELIVERING, ReplyState.POSTPONED, ReplyState.SETTLED}
    ),
    # An answer that Discord does not take is followed by a refusal.
    ReplyState.DELIVERING: frozenset({ReplyState.DELIVERING, ReplyState.SETTLED}),
    ReplyState.POSTPONED: frozenset(),
    ReplyState.SETTLED: frozenset(),
}


class OwedReplies(Protocol):
    """Keeps the replies that were acknowledged and are not settled; see `bot.interactions.pending`."""

    async def add(self, reply: Reply) -> None:
        """Write down that a reply is about to be acknowledged."""
        ...

    def discard(self, reply: Reply) -> None:
        """Forget a reply that is settled."""
        ...


class Reply:
    """One interaction, from its arrival to its release; `bot.interactions.pipeline` shows the whole way.

    Args:
        interaction: The interaction to answer.
        payload: The interaction as Discord sent it, for the journal.
        catalogue: The languages to answer in.
        owed: Where an acknowledged reply is kept until it is settled.
        quotas: What admits the request.

    Attributes:
        state: Where it is on its way.
        private: Whether only the person who asked sees the answer; known once it is acknowledged.
        in_place: Whether the answer replaces what stands in the message of the pressed button; known likewise.
        slot: The place that the request takes up in the quotas, once it is admitted.
        settled: Set when nothing is owed any more.
    """

    def __init__(
        self,
        interaction: discord.Interaction,
        payload: dict[str, Any],
        catalogue: Catalogue,
        owed: OwedReplies,
        quotas: Quotas | None = None,
    ) -> None:
        self.interaction = interaction
        self.payload = payload
        self.state = ReplyState.ARRIVED
        self.private = False
        self.in_place = False
        self.slot: Slot | None = None
        self.settled = asyncio.Event()
        self._catalogue = catalogue
        self._owed = owed
        self._quotas = quotas
        self._message = ResponseMessage(interaction)
        # Discord has just made the interaction, whatever this machine's clock says.
        self._ends = time.monotonic() + TOKEN_SECONDS
        interaction.extras[_KEY] = self

    @classmethod
    def of(cls, interaction: discord.Interaction) -> Reply:
        """Return the reply of an interaction that the pipeline has taken in."""
        reply: Reply = interaction.extras[_KEY]
        return reply

    @classmethod
    def resumed(
        cls,
        interaction: discord.Interaction,
        payload: dict[str, Any],
        catalogue: Catalogue,
        owed: OwedReplies,
        *,
        private: bool,
        in_place: bool = False,
        age: float,
    ) -> Self:
        """Return the reply of an interaction that an earlier process acknowledged `age` seconds ago.

        Commands find it acknowledged, as after a check that took long. It was admitted then and takes no slot now.
        """
        reply = cls(interaction, payload, catalogue, owed)
        reply.state, reply.private, reply.in_place = ReplyState.ACKNOWLEDGED, private, in_place
        reply._message.resume(private=private, in_place=in_place)
        reply._ends -= age
        return reply

    @property
    def translate(self) -> Translate:
        """Translation from English to the language of the person who asked."""
        return self._catalogue.translate_to(self.interaction.locale)

    @property
    def seconds_left(self) -> float:
        """Seconds for which Discord takes edits."""
        return self._ends - time.monotonic()

    async def checked(
        self,
        check: Awaitable[T],
        *,
        private: bool = False,
        in_place: bool = False,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Admit the request, and return the result of a check whose refusal is to stay private.

        The interaction is acknowledged after the check; before its result only if that takes longer than
        `PATIENCE_SECONDS` (the model is being loaded).

        Args:
            check: What may refuse, by raising a UserError.
            private: Whether only the person who asked is to see the answer.
            in_place: Whether the answer is to replace the content of the message whose button was pressed. If there
                is none, that message stays as it is.
            undo: Called with the result if Discord does not take the acknowledgement.

        Raises:
            UserError: The quotas or the check refuse the request.
        """
        task = asyncio.ensure_future(check)
        try:
            if self.slot is None and self._quotas:
                self.slot = self._quotas.acquire(self.interaction)
            await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            if not task.done():
                await self.acknowledge(private=private, in_place=in_place)
            result = await task
            await self.acknowledge(private=private, in_place=in_place)
        except BaseException:
            # The check may have succeeded while Discord refused the acknowledgement.
            if undo and task.done() and not task.cancelled() and not task.exception():
                undo(task.result())
            task.cancel()
            raise
        return result

    async def acknowledge(self, *, private: bool = False, in_place: bool = False) -> None:
        """Tell Discord within its 3 seconds that an answer will come; people see "is thinking…", except in place.

        The adapter in `bot.interactions.retry` repeats an acknowledgement that is lost on the way for
        `ACKNOWLEDGE_SECONDS`, and takes one whose confirmation was lost for taken.
        """
        if self._message.acknowledged:
            return
        # Journal first, then tell Discord. Killed between the two, the bot finds a row at its next start that
        # Discord knows nothing of, and drops it. In the other order, somebody would wait for nothing.
        self.private, self.in_place = private, in_place
        self._enter(ReplyState.ACKNOWLEDGED)
        await self._owed.add(self)
        try:
            await self._message.defer(private=private, in_place=in_place)
        except BaseException:
            self._owed.discard(self)
            if self.state is ReplyState.ACKNOWLEDGED:  # a shutdown may have postponed it meanwhile
                self._enter(ReplyState.ARRIVED)
            raise

    async def update(self, view: discord.ui.LayoutView) -> None:
        """Show the answer so far. It is still owed."""
        if self.state is not ReplyState.POSTPONED:  # its user has just been told to wait
            await self._message.edit(view)

    async def give(self, view: discord.ui.LayoutView, files: Sequence[discord.File] = ()) -> None:
        """Show the answer where "is thinking…" stands, or in place of what stands in the message."""
        if self._deliver():
            await self._message.finish(view, files)
            self.settle()

    async def tell(self, text: Text) -> None:
        """Show a sentence where "is thinking…" stands."""
        if self._deliver():
            await self._message.put(self._say(text))
            self.settle()

    async def show(self, view: discord.ui.LayoutView) -> None:
        """Answer at once, without "is thinking…"."""
        if self._deliver():
            await self.interaction.response.send_message(view=view)
            self.settle()

    async def announce(self, text: Text) -> None:
        """Show a sentence where the answer stands or would stand. It is still owed."""
        await self._message.announce(self._say(text))

    async def refuse(self, text: Text) -> None:
        """Say in private why there is no answer, and remove what everybody saw waiting."""
        if not self._deliver():
            return
        # The text may quote what the person wrote, which is to be read and not to be formatted.
        sentence = self._say(text) if text.markup else fit(self._say(text), MESSAGE_CHARACTERS, literal)
        try:
            await self._message.take_back(sentence)
        finally:
            self.settle()

    def postpone(self) -> bool:
        """Leave the answer to the next start; return False if it is on its way already."""
        if self.state is not ReplyState.ACKNOWLEDGED:
            return False
        self._enter(ReplyState.POSTPONED)
        return True

    def settle(self) -> None:
        """Note that nothing is owed any more. What is postponed stays in the journal."""
        if self.state not in (ReplyState.POSTPONED, ReplyState.SETTLED):
            self._enter(ReplyState.SETTLED)
            self._owed.discard(self)
        self.settled.set()

    def _deliver(self) -> bool:
        """Begin to send the last message; return False if that is left to a later process."""
        if self.state is ReplyState.POSTPONED:
            return False
        self._enter(ReplyState.DELIVERING)
        return True

    def _say(self, text: Text) -> str:
        return self._catalogue.say(text, self.interaction.locale)

    def _enter(self, state: ReplyState) -> None:
        """Go to another state; the only place where one changes."""
        if state not in NEXT_STATES[self.state]:
            raise RuntimeError(f"a reply cannot go from {self.state.name} to {state.name}")
        self.state = state
