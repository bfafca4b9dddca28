"""Forms (Discord calls them modals): what a slash option cannot hold is asked for here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import discord

from bot.text import Text, say
from bot.ui.limits import FORM_TITLE_CHARACTERS, TEXT_INPUT_CHARACTERS, clip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Answering(Protocol):
    """What a form needs of the client: the one handler for errors, the one for languages."""

    async def answer_error(self, interaction: discord.Interaction, error: Exception) -> None:
        """Tell the user of an error."""
        ...

    def say(self, text: Text, interaction: discord.Interaction) -> str:
        """A text in the language of the interaction's user."""
        ...


class PromptForm(discord.ui.Modal):
    """Asks for a prompt of several lines and hands it on."""

    def __init__(
        self,
        client: Answering,
        interaction: discord.Interaction,
        submitted: Callable[[discord.Interaction, str], Awaitable[None]],
    ) -> None:
        super().__init__(title=clip(client.say(say("Continue a text with GPT-2"), interaction), FORM_TITLE_CHARACTERS))
        self._client = client
        self._submitted = submitted
        self.prompt: discord.ui.TextInput[PromptForm] = discord.ui.TextInput(
            style=discord.TextStyle.paragraph, max_length=TEXT_INPUT_CHARACTERS
        )
        self.add_item(
            discord.ui.Label(
                text=client.say(say("Prompt"), interaction),
                description=client.say(say("The beginning of a text, as many lines as you like"), interaction),
                component=self.prompt,
            )
        )

    async def on_submit(self, interaction: discord.Interaction) -> None:
        """Hand the prompt to whoever asked for it."""
        await self._submitted(interaction, self.prompt.value)

    async def on_error(self, interaction: discord.Interaction, error: Exception, /) -> None:  # type: ignore[override]
        """As for commands; discord.py by itself would only log it."""
        await self._client.answer_error(interaction, error)
