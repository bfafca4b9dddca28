"""/attention: attention maps of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.errors import InvalidInputError
from bot.figures import Sink  # noqa: TC001 # discord.py reads the annotations at run time
from bot.gpt2.model_info import heads_text
from bot.gpt2.requests import TUTORIAL_PROMPT
from bot.gpt2.validation import MAX_PROMPT_CHARACTERS, has_visible_character
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui.first_steps import TryAttention
from bot.ui.forms import PromptForm, SubmitAttention, show, typed_prompt
from bot.ui.message_text import text_of
from cogs._models import leave_out, with_model
from cogs._pictures import register, show_further, show_picture
from cogs._text_pictures import Ablation, Grid, Head, Silence

if TYPE_CHECKING:
    from bot.client import GPT2Client

_Prompt = app_commands.Range[str, 1, MAX_PROMPT_CHARACTERS]
_Count = app_commands.Range[int, 1, 100]

_PROMPT = "The text that GPT-2 reads; of more than 40 tokens, the last 40"
_SINK = "With the attention on the first token, or without it and the rest rescaled (raw)"


class Attention(commands.GroupCog, group_name="attention", group_description="See what GPT-2's heads look at"):
    """The commands that show attention."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        self._menu = app_commands.ContextMenu(name="Show attention", callback=self.show_attention)
        leave_out(self, client)
        register(client, Grid, Head, Ablation)
        client.actions.on(Silence, self._silence)
        client.actions.on(TryAttention, self._try)
        client.actions.on(SubmitAttention, self._asked)

    async def cog_load(self) -> None:
        """Add the entry to the menu of messages; cogs cannot declare one."""
        self.client.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Remove the entry."""
        self.client.tree.remove_command(self._menu.name, type=self._menu.type)

    @app_commands.command()
    @app_commands.describe(prompt=_PROMPT, sink=_SINK)
    @with_model
    async def grid(
        self, interaction: discord.Interaction, prompt: _Prompt, sink: Sink = "raw", model: str | None = None
    ) -> None:
        """All heads of all layers at once, the notable ones named."""
        await show_picture(self.client, interaction, Grid(self.client.models.checksum(model), sink), prompt)

    @app_commands.command()
    @app_commands.describe(
        prompt=_PROMPT, layer="Which layer, counted from 1", head="Which head of it, counted from 1", sink=_SINK
    )
    @with_model
    async def head(
        self,
        interaction: discord.Interaction,
        prompt: _Prompt,
        layer: _Count,
        head: _Count,
        sink: Sink = "raw",
        model: str | None = None,
    ) -> None:
        """One head, with the tokens it looks from and at."""
        asked = Head(self.client.models.checksum(model), layer, head, sink)
        await show_picture(self.client, interaction, asked, prompt)

    async def _silence(self, interaction: discord.Interaction, pressed: Silence) -> None:
        """Answer the button below a head."""
        heads = heads_text([(pressed.layer, pressed.head)])
        await show_further(self.client, interaction, Ablation(pressed.model, heads))

    async def _try(self, interaction: discord.Interaction, _: TryAttention) -> None:
        """Answer the button with a form that asks for words and suggests the tutorial's."""
        title, translate = say("Attention of your words"), Reply.of(interaction).translate
        await show(interaction, PromptForm(SubmitAttention(), title, translate, TUTORIAL_PROMPT))

    async def _asked(self, interaction: discord.Interaction, _: SubmitAttention) -> None:
        """Answer the submitted form."""
        await show_picture(self.client, interaction, Grid(), typed_prompt(interaction))

    async def show_attention(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Show the attention maps for a message, from the menu of messages."""
        prompt = text_of(interaction, message)
        if not has_visible_character(prompt):
            raise InvalidInputError(say("That message has no text to look at. Choose another one."))
        await show_picture(self.client, interaction, Grid(), prompt)
