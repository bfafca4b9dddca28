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
    """The synchronization of Discord's list of commands with the command tree.

    Attributes:
        command_ids: Discord's ids of the commands by name; filled by the first sync.
    """

    def __init__(self, client: commands.AutoShardedBot) -> None:
        self._client = client
        self.command_ids: dict[str, int] = {}

    async def sync(self, *, force: bool = False) -> bool:
        """Bring Discord's list of commands up to date, and return whether anything had to be sent.

        This asks Discord for its list. A file of what was last sent would be wrong after a restore, on a second
        machine, or after a change by hand.
        """
        ours = await command_payload(self._client.tree)
        if not force:
            theirs = await self._registered()
            self.command_ids = {command["name"]: int(command["id"]) for command in theirs}
            if {_key(command): _normalized(command) for command in theirs} == {
                _key(command): _normalized(command) for command in ours
            }:
                log.info("commands are up to date", commands=len(ours))
                return False
            if self._client.shard_ids is not None and 0 not in self._client.shard_ids:
                log.info("commands differ; the process with shard 0 syncs them", commands=len(ours))
                return False
        self.command_ids = {command.name: command.id for command in await self._client.tree.sync()}
        log.info("commands synced", commands=len(ours))
        return True

    async def sync_until_done(self) -> None:
        """Sync, with retries while Discord is in trouble; until then the bot works with the commands Discord has."""
        for seconds in (*SYNC_RETRY_SECONDS, None):
            try:
                await self.sync()
            except retry.REQUEST_ERRORS as error:
                log.warning("cannot sync commands", error=str(error), retry_seconds=seconds)
                if seconds is None:
                    return
                await asyncio.sleep(seconds)
            except app_commands.AppCommandError:
                log.exception("Discord rejected the commands")
                return
            else:
                return

    async def _registered(self) -> list[dict[str, Any]]:
        # Not tree.fetch_commands(), which omits translations, so that every comparison would fail.
        route = discord.http.Route(
            "GET", "/applications/{application_id}/commands", application_id=self._client.application_id
        )
        commands: list[dict[str, Any]] = await self._client.http.request(route, params={"with_localizations": "true"})
        return commands


async def command_payload(tree: app_commands.CommandTree[Any]) -> list[dict[str, Any]]:
    """Return the commands as `tree.sync` sends them to Discord."""
    every = tree.get_commands(type=None)
    if tree.translator is None:
        return [dict(command.to_dict(tree)) for command in every]
    return [dict(await command.get_translated_payload(tree, tree.translator)) for command in every]


# Fields that Discord adds to a command.
_ADDED_FIELDS: Final = frozenset({"id", "application_id", "version", "guild_id", "handler", "dm_permission"})
_SETS: Final = frozenset({"contexts", "integration_types"})
_BIT_SETS: Final = frozenset({"default_member_permissions"})  # a number when sent, digits when received


def _key(command: dict[str, Any]) -> tuple[int, str]:
    return command.get("type", 1), command["name"]


def _normalized(value: Any) -> Any:
    """Return a payload without fields that mean nothing, so that Discord's and ours can be compared."""
    if isinstance(value, dict):
        kept = {key: _normalized(item) for key, item in value.items() if key not in _ADDED_FIELDS}
        return {
            key: sorted(item) if key in _SETS else str(item) if key in _BIT_SETS else item
            for key, item in kept.items()
            if not _is_default(key, item)
        }
    if isinstance(value, list):
        return [_normalized(item) for item in value]
    return value


def _is_default(key: str, value: Any) -> bool:
    """Return whether omitting the field would mean the same; Discord itself omits some such fields.

    A lower limit of 0 is one: no option here accepts negative numbers, and Discord's omission is no change.
    """
    return value is None or value is False or value in ([], {}, "") or (key == "min_value" and value == 0)
