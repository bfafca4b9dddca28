"""The one answer to an interaction: acknowledged at once, then given, or taken back for a private word."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

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


class Reply:
    """Wraps an interaction's response; `Reply.to` finds the one that the command began."""

    def __init__(
        self,
        interaction: discord.Interaction,
        catalogue: Catalogue,
        unanswered: set[Reply],
        admit: Callable[[discord.Interaction], None],
    ) -> None:
        self._interaction = interaction
        self._catalogue = catalogue
        self._unanswered = unanswered
        self._admit = admit
        self._public_wait = False
        self._laid_out = False  # what stands there is a layout, and Discord takes no plain sentence in its place
        # One that comes from Discord has just been made, whatever this machine's clock says; an older one has not.
        age = (discord.utils.utcnow() - interaction.created_at).total_seconds() if interaction.response.is_done() else 0
        self._ends = time.monotonic() + TOKEN_SECONDS - max(age, 0.0)
        self.settled = asyncio.Event()

    @classmethod
    def to(
        cls,
        interaction: discord.Interaction,
        catalogue: Catalogue,
        unanswered: set[Reply],
        admit: Callable[[discord.Interaction], None] = lambda _: None,
    ) -> Reply:
        """The reply of this interaction, made the first time it is asked for.

        Args:
            interaction: What to reply to.
            catalogue: The languages to say it in.
            unanswered: Holds the replies that were acknowledged and are still owed.
            admit: Called before anything is checked; refuses who may not ask now, by raising a UserError.
        """
        if _KEY not in interaction.extras:
            interaction.extras[_KEY] = cls(interaction, catalogue, unanswered, admit)
        reply: Reply = interaction.extras[_KEY]
        return reply

    @property
    def translate(self) -> Translate:
        """From English to the language of the one who asked."""
        return self._catalogue.translate_to(self._interaction.locale)

    @property
    def seconds_left(self) -> float:
        """How long Discord will take edits."""
        return self._ends - time.monotonic()

    def say(self, text: Text) -> str:
        """`text` in the language of the one who asked."""
        return self._catalogue.say(text, self._interaction.locale)

    async def acknowledge(self, *, private: bool = False) -> None:
        """Tell Discord within its 3 seconds that an answer will come; people see "is thinking…"."""
        if not self._interaction.response.is_done():
            await self._interaction.response.defer(ephemeral=private, thinking=True)
            self._public_wait = not private
            self._unanswered.add(self)

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
            self._admit(self._interaction)
            await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            if not task.done():
                await self.acknowledge(private=private)
            result = await task
        finally:
            task.cancel()
        try:
            await self.acknowledge(private=private)
        except BaseException:
            if undo:
                undo(result)
            raise
        return result

    async def show(self, view: discord.ui.LayoutView) -> None:
        """Answer at once, without "is thinking…"."""
        await self._interaction.response.send_message(view=view)

    async def update(self, view: discord.ui.LayoutView) -> None:
        """Show how the answer is getting on where it will stand. It is still owed."""
        self._laid_out = True
        await self._interaction.edit_original_response(view=view)

    async def give(self, view: discord.ui.LayoutView, files: Sequence[discord.File] = ()) -> None:
        """Put the answer where "is thinking…" stands."""
        await self._interaction.edit_original_response(view=view, attachments=files)
        self._settle()

    async def tell(self, text: Text) -> None:
        """Put a sentence where "is thinking…" stands."""
        await self._put(clip(self.say(text), MESSAGE_CHARACTERS))
        self._settle()

    async def refuse(self, text: Text) -> None:
        """Say in private why there is no answer. What everybody saw waiting is taken away."""
        # It may quote what the person wrote, which is to be read and not to be formatted.
        message = self.say(text) if text.markup else fit(self.say(text), MESSAGE_CHARACTERS, literal)
        response = self._interaction.response
        if not response.is_done():
            await response.send_message(message, ephemeral=True)
            return
        try:
            if not self._public_wait:
                await self._interaction.followup.send(message, ephemeral=True)
                if self._laid_out:
                    await self._interaction.delete_original_response()
                return
            # A follow-up to a public "is thinking…" would fill it and so be public, and after deleting it Discord
            # takes none (discord-api-docs#2866, #2739). So it is ended first, and deleted last.
            if not self._laid_out:
                await self._put(ELLIPSIS)
            await self._interaction.followup.send(message, ephemeral=True)
            await self._interaction.delete_original_response()
        finally:
            self._settle()

    async def tell_privately(self, text: Text) -> None:
        """Say a sentence to the one who asked alone, at once."""
        message = fit(self.say(text), MESSAGE_CHARACTERS, literal)
        await self._interaction.response.send_message(message, ephemeral=True)

    async def _put(self, sentence: str) -> None:
        """A sentence where the answer stands or would stand."""
        if self._laid_out:
            view = discord.ui.LayoutView(timeout=None).add_item(discord.ui.TextDisplay(sentence))
            await self._interaction.edit_original_response(view=view, attachments=[])
        else:
            await self._interaction.edit_original_response(content=sentence)

    def _settle(self) -> None:
        """Nothing is owed any more."""
        self._public_wait = False
        self._unanswered.discard(self)
        self.settled.set()
