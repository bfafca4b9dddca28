"""The message that answers an interaction, as Discord lets it be shown, edited and taken back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import discord

from bot.ui.limits import ELLIPSIS, MESSAGE_CHARACTERS, clip

if TYPE_CHECKING:
    from collections.abc import Sequence


class ResponseMessage:
    """The message of one interaction, and what stands in it now.

    Args:
        interaction: The interaction it answers.
    """

    def __init__(self, interaction: discord.Interaction) -> None:
        self._interaction = interaction
        self._thinking = False  # "is thinking…" stands there
        self._private = False
        self._in_place = False  # it is the message of the pressed button, which stays if there is no answer
        self._has_layout = False  # Discord takes no plain content in place of a layout
        self._editing = asyncio.Lock()  # Discord may apply two concurrent edits in either order

    @property
    def acknowledged(self) -> bool:
        """Return whether Discord has had its first response."""
        return self._interaction.response.is_done()

    def resume(self, *, private: bool, in_place: bool) -> None:
        """Take over a message that an earlier process has deferred."""
        types = discord.InteractionResponseType
        # discord.py has no public way to say so; tests hold that this is where it looks.
        self._interaction.response._response_type = (  # noqa: SLF001
            types.deferred_message_update if in_place else types.deferred_channel_message
        )
        self._private, self._in_place = private, in_place
        # "is thinking…" or a layout that was live: code that expects either works with both.
        self._thinking, self._has_layout = not in_place, True

    async def defer(self, *, private: bool, in_place: bool) -> None:
        """Show "is thinking…", or leave the message of the pressed button as it is until it is edited."""
        await self._interaction.response.defer(ephemeral=private, thinking=not in_place)
        self._thinking, self._private, self._in_place = not in_place, private, in_place

    async def edit(self, view: discord.ui.LayoutView) -> None:
        """Show a layout that more edits will follow."""
        async with self._editing:
            self._has_layout = True
            await self._interaction.edit_original_response(view=view)
            self._thinking = False

    async def finish(self, view: discord.ui.LayoutView, files: Sequence[discord.File]) -> None:
        """Show the whole answer with its files."""
        await self._interaction.edit_original_response(view=view, attachments=files)

    async def put(self, sentence: str) -> None:
        """Show a sentence in place of the answer; in private if that is an older message, which stays."""
        sentence = clip(sentence, MESSAGE_CHARACTERS)
        if self._in_place:
            await self._interaction.followup.send(sentence, ephemeral=True)
        elif self._has_layout:
            view = discord.ui.LayoutView(timeout=None).add_item(discord.ui.TextDisplay(sentence))
            await self._interaction.edit_original_response(view=view, attachments=[])
        else:
            await self._interaction.edit_original_response(content=sentence)

    async def announce(self, sentence: str) -> None:
        """Show a sentence that an answer may still replace, after any edit under way."""
        async with self._editing:
            self._has_layout = True  # a layout can replace anything
            await self.put(sentence)

    async def take_back(self, sentence: str) -> None:
        """Say a sentence in private, and remove the message that everybody saw waiting."""
        if not self.acknowledged:
            await self._interaction.response.send_message(sentence, ephemeral=True)
            return
        if self._in_place or (self._private and not self._has_layout):
            await self._interaction.followup.send(sentence, ephemeral=True)  # it replaces "is thinking…", if any
            return
        # A follow-up to a public "is thinking…" would replace it and so be public, and after deleting it Discord
        # takes none (discord-api-docs#2866, #2739). So end it first, and delete it last.
        if self._thinking:
            await self.put(ELLIPSIS)
        await self._interaction.followup.send(sentence, ephemeral=True)
        await self._interaction.delete_original_response()
