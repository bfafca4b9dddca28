"""/about and /help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.interactions.reply import Reply
from bot.ui.information import AboutLayout, HelpLayout

if TYPE_CHECKING:
    from bot.client import GPT2Client


class Information(commands.Cog):
    """The commands that explain the bot."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client

    @app_commands.command()
    async def about(self, interaction: discord.Interaction) -> None:
        """What I am: the model, its speed, how busy I am, how to add me."""
        reply = Reply.of(interaction)
        model = await reply.checked(self.client.engine.model())
        await reply.give(AboutLayout(model, self.client.current_status(), reply.translate))

    @app_commands.command(name="help")
    async def help_(self, interaction: discord.Interaction) -> None:
        """What I can do, one line a command."""
        reply = Reply.of(interaction)
        lines = self.client.described_commands(interaction.locale)
        await reply.show(HelpLayout(lines, reply.translate))
