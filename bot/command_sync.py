"""Discord's list of commands, kept equal to the command tree."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog
from discord import app_commands

from bot.interactions import retry

if TYPE_CHECKING:
    from discord.ext import commands

SYNC_RETRY_SECONDS: Final = (5, 30, 120, 600)

log = structlog.get_logger(__name__)


class CommandSync:
    """Compares Discord's list of commands with the tree's, and sends what has changed.

    Attributes:
        command_ids: Discord's ids of the commands by name; filled by the first sync.
    """

    def __init__(self, client: commands.AutoShardedBot) -> None:
        self._client = client
        self.command_ids: dict[str, int] = {}

    async def sync(self, *, force: bool = False) -> bool:
        """Bring Discord's list of commands up to date; returns whether anything had to be sent.

        Discord is asked what it has, rather than a file what was last sent: the file would be wrong after a restore,
        on a second machine, or when the commands were changed by hand.
        """
        ours = await command_payload(self._client.tree)
        if not force:
            theirs = await self._registered()
            self.command_ids = {command["name"]: int(command["id"]) for command in theirs}
            if {_identity(command): _meaning(command) for command in theirs} == {
                _identity(command): _meaning(command) for command in ours
            }:
                log.info("commands are up to date", commands=len(ours))
                return False
            if self._client.shard_ids is not None and 0 not in self._client.shard_ids:
                log.info("the process with shard 0 sends the commands", commands=len(ours))
                return False
        self.command_ids = {command.name: command.id for command in await self._client.tree.sync()}
        log.info("commands synced", commands=len(ours))
        return True

    async def sync_until_done(self) -> None:
        """Sync, trying again while Discord is in trouble; the bot works with the commands that Discord has."""
        for seconds in (*SYNC_RETRY_SECONDS, None):
            try:
                await self.sync()
            except retry.REQUEST_ERRORS as error:
                log.warning("commands could not be synced", error=str(error), retry_seconds=seconds)
                if seconds is None:
                    return
                await asyncio.sleep(seconds)
            except app_commands.AppCommandError:
                log.exception("Discord does not accept the commands")
                return
            else:
                return

    async def _registered(self) -> list[dict[str, Any]]:
        # tree.fetch_commands() asks without translations, which would make every comparison fail.
        route = discord.http.Route(
            "GET", "/applications/{application_id}/commands", application_id=self._client.application_id
        )
        commands: list[dict[str, Any]] = await self._client.http.request(route, params={"with_localizations": "true"})
        return commands


async def command_payload(tree: app_commands.CommandTree[Any]) -> list[dict[str, Any]]:
    """What `tree.sync` sends to Discord."""
    every = tree.get_commands(type=None)
    if tree.translator is None:
        return [dict(command.to_dict(tree)) for command in every]
    return [dict(await command.get_translated_payload(tree, tree.translator)) for command in every]


# What Discord adds to a command that we never send.
_DISCORDS_OWN: Final = frozenset({"id", "application_id", "version", "guild_id", "handler", "dm_permission"})
_SETS: Final = frozenset({"contexts", "integration_types"})
_BIT_SETS: Final = frozenset({"default_member_permissions"})  # a number when sent, digits when received


def _identity(command: dict[str, Any]) -> tuple[int, str]:
    return command.get("type", 1), command["name"]


def _meaning(value: Any) -> Any:
    """A payload without what says nothing, so that Discord's and ours can be compared."""
    if isinstance(value, dict):
        kept = {key: _meaning(item) for key, item in value.items() if key not in _DISCORDS_OWN}
        return {
            key: sorted(item) if key in _SETS else str(item) if key in _BIT_SETS else item
            for key, item in kept.items()
            if not _says_nothing(key, item)
        }
    if isinstance(value, list):
        return [_meaning(item) for item in value]
    return value


def _says_nothing(key: str, value: Any) -> bool:
    """Whether leaving the field out would mean the same, to Discord or to us; Discord leaves some such out itself.

    A lower limit of 0 counts, since nothing here may be negative: it must not look like a change at every start.
    """
    return value is None or value is False or value in ([], {}, "") or (key == "min_value" and value == 0)
