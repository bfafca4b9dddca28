"""Commands for the bot's owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord
import structlog
from discord import app_commands
from discord.ext import commands

from bot.config import LogLevel  # noqa: TC001 # discord.py reads the annotations at run time
from bot.errors import InvalidInputError
from bot.interactions.reply import Reply
from bot.monitoring import logs
from bot.text import say

if TYPE_CHECKING:
    from bot.client import GPT2Client

log = structlog.get_logger(__name__)


class Owner(commands.Cog):
    """The owner's commands. Discord shows them to administrators, and the bot checks for its owner."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client

    @app_commands.command()
    @app_commands.default_permissions()
    @app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
    @app_commands.describe(force="Send the commands even if Discord has them already")
    async def sync(self, interaction: discord.Interaction, force: bool = False) -> None:  # noqa: FBT001, FBT002
        """Bring Discord's list of this bot's commands up to date (for the bot's owner)."""
        await self._check_owner(interaction)
        reply = Reply.of(interaction)
        await reply.acknowledge(private=True)
        changed = await self.client.command_sync.sync(force=force)
        done = (
            say("Discord's list of commands is now up to date.")
            if changed
            else say("Discord's list of commands was already up to date.")
        )
        await reply.tell(done)

    @app_commands.command()
    @app_commands.default_permissions()
    @app_commands.allowed_contexts(guilds=True, dms=False, private_channels=False)
    @app_commands.describe(level="The least severe level to log; LOG_LEVEL sets it for the next start")
    async def loglevel(self, interaction: discord.Interaction, level: LogLevel) -> None:
        """Change how much the bot logs, until its next start (for the bot's owner)."""
        await self._check_owner(interaction)
        reply = Reply.of(interaction)
        await reply.acknowledge(private=True)
        logs.set_level(level)
        log.warning("the log level was changed", to=level)
        await reply.tell(say("My log now has {level} and everything more severe.", level=level))

    async def _check_owner(self, interaction: discord.Interaction) -> None:
        """Raise InvalidInputError unless the owner of the bot asks."""
        if not await self.client.is_owner(interaction.user):
            raise InvalidInputError(say("Only the owner of this bot can do that."))
