"""Commands for the bot's owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.errors import InvalidInputError
from bot.interactions.reply import Reply
from bot.text import say

if TYPE_CHECKING:
    from bot.client import GPT2Client


class Owner(commands.Cog):
    """The owner's command. Discord shows it to administrators, and the bot checks for its owner."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client

    @app_commands.command()
    @app_commands.default_permissions()
    @app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
    @app_commands.describe(force="Send the commands even if Discord has them already")
    async def sync(self, interaction: discord.Interaction, force: bool = False) -> None:  # noqa: FBT001, FBT002
        """Bring Discord's list of this bot's commands up to date (for the bot's owner)."""
        if not await self.client.is_owner(interaction.user):
            raise InvalidInputError(say("Only the owner of this bot can do that."))
        reply = Reply.of(interaction)
        await reply.acknowledge(private=True)
        changed = await self.client.command_sync.sync(force=force)
        done = (
            say("Discord's list of commands is now up to date.")
            if changed
            else say("Discord's list of commands was already up to date.")
        )
        await reply.tell(done)
