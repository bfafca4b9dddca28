"""The one answer to an interaction: acknowledged at once, then given, or taken back for a private word."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import discord

from bot.ui.limits import ELLIPSIS, MESSAGE_CHARACTERS, clip, fit
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bot.text import Text, Translate
    from bot.ui.locales import Catalogue

T = TypeVar("T")

PATIENCE_SECONDS: Final = 0.25
"""How long a check may take before the command is acknowledged without it. Discord allows 3 s in all."""

TOKEN_SECONDS: Final = 15 * 60.0
"""How long Discord lets an interaction be answered."""

_KEY: Final = "reply"


class Promises(Protocol):
    """Remembers what was acknowledged and is still owed."""

    async def make(self, reply: Reply, *, private: bool) -> None:
        """It is about to be acknowledged."""
        ...

    def keep(self, reply: Reply) -> None:
        """Nothing is owed any more."""
        ...


class Reply:
    """Wraps an interaction's response; `Reply.to` finds the one that the command began."""

    def __init__(
        self,
        interaction: discord.Interaction,
        catalogue: Catalogue,
        promises: Promises,
        admit: Callable[[discord.Interaction], None] = lambda _: None,
    ) -> None:
        self.interaction = interaction
        self.claimed = asyncio.Event()  # a command, button or form has come for it
        self._admit = admit
        self.settled = asyncio.Event()
        self.postponed = False  # left to a later process
        self.delivering = False  # its last word is on the way
        self._catalogue = catalogue
        self._promises = promises
        self._waiting = False  # "is thinking…" stands there
        self._private = False
        self._laid_out = False  # what stands there is a layout, and Discord takes no plain sentence in its place
        self._editing = asyncio.Lock()  # of two edits under way at once either may come last
        # One that comes from Discord has just been made, whatever this machine's clock says.
        self._ends = time.monotonic() + TOKEN_SECONDS

    @classmethod
    def to(
        cls,
        interaction: discord.Interaction,
        catalogue: Catalogue,
        promises: Promises,
        admit: Callable[[discord.Interaction], None] = lambda _: None,
    ) -> Reply:
        """The reply of this interaction, made the first time it is asked for.

        Args:
            interaction: What to reply to.
            catalogue: The languages to say it in.
            promises: Hears what is acknowledged and what is answered.
            admit: Called before anything is checked; refuses who may not ask now, by raising a UserError.
        """
        reply = interaction.extras.get(_KEY)
        if not isinstance(reply, cls):
            reply = interaction.extras[_KEY] = cls(interaction, catalogue, promises, admit)
        reply.claimed.set()
        return reply

    @classmethod
    def again(
        cls,
        interaction: discord.Interaction,
        catalogue: Catalogue,
        promises: Promises,
        *,
        private: bool,
        age: float,
    ) -> Reply:
        """The reply of an interaction that an earlier process has acknowledged, `age` seconds ago.

        Whatever answers it finds it acknowledged, as a command does that was acknowledged before its check was done.
        It was admitted then.
        """
        # discord.py has no way to say so from outside; tests hold that this is where it looks.
        interaction.response._response_type = discord.InteractionResponseType.deferred_channel_message  # noqa: SLF001
        reply = interaction.extras[_KEY] = cls(interaction, catalogue, promises)
        reply._private = private
        # "is thinking…", or a layout that was live: whatever treats both as both is right.
        reply._waiting = reply._laid_out = True
        reply._ends -= age
        return reply

    @property
    def translate(self) -> Translate:
        """From English to the language of the one who asked."""
        return self._catalogue.translate_to(self.interaction.locale)

    @property
    def seconds_left(self) -> float:
        """How long Discord will take edits."""
        return self._ends - time.monotonic()

    def say(self, text: Text) -> str:
        """`text` in the language of the one who asked."""
        return self._catalogue.say(text, self.interaction.locale)

    async def acknowledge(self, *, private: bool = False) -> None:
        """Tell Discord within its 3 seconds that an answer will come; people see "is thinking…"."""
        if self.interaction.response.is_done():
            return
        # First the promise, then the word that makes it one: killed between the two, the bot finds at its next start
        # a promise that nobody was given, and lets it go. The other way round somebody would wait for nothing.
        await self._promises.make(self, private=private)
        try:
            await self.interaction.response.defer(ephemeral=private, thinking=True)
        except BaseException:
            self.settle()
            raise
        self._waiting, self._private = True, private

    async def checked(
        self, check: Awaitable[T], *, private: bool = False, undo: Callable[[T], object] | None = None
    ) -> T:
        """The result of a check whose refusal should stay private from the first moment.

        It is acknowledged afterwards, and before its result only if that takes long (the model is being loaded).

        Args:
            check: What may refuse, by raising a UserError.
            private: Whether the answer is for the one who asked alone.
            undo: What to do with the result where Discord does not take the acknowledgement.
        """
        task = asyncio.ensure_future(check)
        try:
            self._admit(self.interaction)
            await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            if not task.done():
                await self.acknowledge(private=private)
            result = await task
            await self.acknowledge(private=private)
        except BaseException:
            # It may have ended well while Discord refused the acknowledgement.
            if undo and task.done() and not task.cancelled() and not task.exception():
                undo(task.result())
            task.cancel()
            raise
        return result

    async def show(self, view: discord.ui.LayoutView) -> None:
        """Answer at once, without "is thinking…"."""
        await self.interaction.response.send_message(view=view)

    async def update(self, view: discord.ui.LayoutView) -> None:
        """Show how the answer is getting on where it will stand. It is still owed."""
        async with self._editing:
            if self.postponed:  # and who waits has been told so
                return
            self._laid_out = True
            await self.interaction.edit_original_response(view=view)
            self._waiting = False

    async def give(self, view: discord.ui.LayoutView, files: Sequence[discord.File] = ()) -> None:
        """Put the answer where "is thinking…" stands."""
        self.delivering = True
        await self.interaction.edit_original_response(view=view, attachments=files)
        self.settle()

    async def tell(self, text: Text) -> None:
        """Put a sentence where "is thinking…" stands."""
        self.delivering = True
        await self._put(clip(self.say(text), MESSAGE_CHARACTERS))
        self.settle()

    async def leave(self, text: Text) -> None:
        """Put a sentence where the answer stands or would stand. It is still owed."""
        async with self._editing:
            self._laid_out = True  # a layout can follow whatever is there
            await self._put(clip(self.say(text), MESSAGE_CHARACTERS))

    async def refuse(self, text: Text) -> None:
        """Say in private why there is no answer. What everybody saw waiting is taken away."""
        if self.postponed:  # a later process will answer
            return
        self.delivering = True
        # It may quote what the person wrote, which is to be read and not to be formatted.
        message = self.say(text) if text.markup else fit(self.say(text), MESSAGE_CHARACTERS, literal)
        response = self.interaction.response
        if not response.is_done():
            await response.send_message(message, ephemeral=True)
            return
        try:
            if self._private and not self._laid_out:
                await self.interaction.followup.send(message, ephemeral=True)  # it fills "is thinking…"
                return
            # A follow-up to a public "is thinking…" would fill it and so be public, and after deleting it Discord
            # takes none (discord-api-docs#2866, #2739). So it is ended first, and deleted last.
            if self._waiting:
                await self._put(ELLIPSIS)
            await self.interaction.followup.send(message, ephemeral=True)
            await self.interaction.delete_original_response()
        finally:
            self.settle()

    async def tell_privately(self, text: Text) -> None:
        """Say a sentence to the one who asked alone, at once."""
        message = fit(self.say(text), MESSAGE_CHARACTERS, literal)
        await self.interaction.response.send_message(message, ephemeral=True)

    async def _put(self, sentence: str) -> None:
        """A sentence where the answer stands or would stand."""
        if self._laid_out:
            view = discord.ui.LayoutView(timeout=None).add_item(discord.ui.TextDisplay(sentence))
            await self.interaction.edit_original_response(view=view, attachments=[])
        else:
            await self.interaction.edit_original_response(content=sentence)

    def settle(self) -> None:
        """Nothing is owed any more."""
        self._promises.keep(self)
        self.settled.set()
