"""The client: its commands as Discord sees them, their sync, and the one handler of errors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import discord
import pytest
import structlog

from bot.client import INTENTS
from bot.command_sync import command_payload
from bot.gpt2.local.engine import LocalEngine, LocalTicket
from cogs import COGS
from tests.cogs.conftest import Server, server  # noqa: F401 # a fixture

if TYPE_CHECKING:
    import simcord

    from bot.client import GPT2Client

SNAPSHOT = Path(__file__).parent / "snapshots" / "commands.json"


def calls(env: simcord.Env, method: str) -> list[Any]:
    return [each for each in env.http_requests if each.method == method and each.path.endswith("/commands")]


async def test_the_command_tree_matches_the_snapshot(simcord_bot: GPT2Client, simcord_env: simcord.Env) -> None:
    """After a deliberate change: UPDATE_SNAPSHOTS=1 make test, and read the difference."""
    import os  # noqa: PLC0415

    tree = [dict(command.to_dict(simcord_bot.tree)) for command in simcord_bot.tree.get_commands(type=None)]
    current = json.dumps(tree, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(current, encoding="utf-8")
    assert current == SNAPSHOT.read_text(encoding="utf-8")


async def test_every_text_of_a_command_fits_discord(simcord_bot: GPT2Client, simcord_env: simcord.Env) -> None:
    def check(node: dict[str, Any]) -> None:
        assert 1 <= len(node["name"]) <= 32
        assert len(node.get("description", "x")) in range(1, 101), node
        for key, most in (("name_localizations", 32), ("description_localizations", 100)):
            assert all(1 <= len(text) <= most for text in (node.get(key) or {}).values()), node
        assert len(node.get("options", ())) <= 25
        for child in node.get("options", ()):
            check(child)

    for command in await command_payload(simcord_bot.tree):
        check(command)


def test_only_the_intent_for_guilds_is_asked_for() -> None:
    assert discord.Intents(guilds=True) == INTENTS


async def test_commands_work_in_servers_and_private_channels(simcord_bot: GPT2Client, simcord_env: simcord.Env) -> None:
    for command in await command_payload(simcord_bot.tree):
        assert sorted(command["integration_types"]) == [0, 1]
        assert sorted(command["contexts"]) == ([0] if command["name"] in {"sync", "loglevel"} else [0, 1, 2])


async def test_unchanged_commands_are_not_sent_again(simcord_bot: GPT2Client, simcord_env: simcord.Env) -> None:
    await simcord_env.settle()
    assert len(calls(simcord_env, "PUT")) == 1
    assert not await simcord_bot.command_sync.sync()
    assert len(calls(simcord_env, "PUT")) == 1


async def test_a_changed_command_is_sent_again(simcord_bot: GPT2Client, simcord_env: simcord.Env) -> None:
    await simcord_env.settle()
    command = simcord_bot.tree.get_command("continue")
    command.description = "Something else"
    assert await simcord_bot.command_sync.sync()
    assert len(calls(simcord_env, "PUT")) == 2


async def test_a_changed_limit_of_an_option_is_noticed(
    simcord_bot: GPT2Client, simcord_env: simcord.Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    await simcord_env.settle()
    command = simcord_bot.tree.get_command("continue")
    # Put back afterwards: every client's copy of a command shares the class's options.
    monkeypatch.setattr(command._params["seed"], "min_value", 1)
    assert await simcord_bot.command_sync.sync()


async def test_the_bot_starts_though_the_sync_fails(
    engine: LocalEngine, renderer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import simcord  # noqa: PLC0415

    from bot import client, command_sync  # noqa: PLC0415
    from bot.ui.locales import Catalogue  # noqa: PLC0415

    monkeypatch.setattr(command_sync, "SYNC_RETRY_SECONDS", (60,))
    bot = client.GPT2Client(engine, renderer, Catalogue.shipped(), COGS, shard_count=1)
    env = simcord.Env(bot)
    env.inject_error("GET", "/applications/*/commands", status=503)
    await env.start()
    try:
        await env.settle()
        assert bot.is_ready()
        assert not calls(env, "PUT")
        await env.advance_time(61)
        assert len(calls(env, "PUT")) == 1
    finally:
        await env.shutdown()


async def test_an_unexpected_error_shows_the_logs_reference(
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(LocalTicket, "result", broken)
    with structlog.testing.capture_logs() as logged:
        result = await server.slash("continue", prompt="my own words", seed=1)
    assert server.env.errors
    (message,) = result.followups
    assert message.ephemeral
    assert result.response is None, "nobody else is left looking at “is thinking…”"
    (entry,) = [entry for entry in logged if entry["event"] == "a command failed"]
    assert message.content.endswith(f"this reference: {entry['reference']}.")
    assert "secret detail" not in message.content
    assert "my own words" not in repr({key: value for key, value in entry.items() if key != "exc_info"})


async def test_only_the_bots_owner_may_use_the_owners_commands(server: Server) -> None:  # noqa: F811
    guild = server.member.guild
    administrators = guild.create_role("admins", permissions=discord.Permissions(administrator=True))
    server.member = guild.add_member(server.env.create_user("admin"), roles=[administrators])
    assert await server.refusal("sync") == "Only the owner of this bot can do that."
    assert await server.refusal("loglevel", level="DEBUG") == "Only the owner of this bot can do that."


async def test_the_owner_syncs(server: Server, simcord_bot: GPT2Client) -> None:  # noqa: F811
    guild = server.member.guild
    administrators = guild.create_role("admins", permissions=discord.Permissions(administrator=True))
    server.member = guild.add_member(server.env.create_user("owner"), roles=[administrators])
    simcord_bot.owner_id = server.member.id
    assert (await server.slash("sync")).response.content == "Discord's list of commands was already up to date."
    forced = await server.slash("sync", force=True)
    assert forced.response.content == "Discord's list of commands is now up to date."
    assert forced.response.ephemeral


async def test_the_owner_changes_the_log_level(server: Server, simcord_bot: GPT2Client) -> None:  # noqa: F811
    guild = server.member.guild
    administrators = guild.create_role("admins", permissions=discord.Permissions(administrator=True))
    server.member = guild.add_member(server.env.create_user("owner"), roles=[administrators])
    simcord_bot.owner_id = server.member.id
    names = ("", "discord.http", "discord.gateway")
    before = [logging.getLogger(name).level for name in names]
    try:
        answer = (await server.slash("loglevel", level="DEBUG")).response
        assert [logging.getLogger(name).level for name in names] == [logging.DEBUG, logging.WARNING, logging.INFO]
    finally:
        for name, level in zip(names, before, strict=True):
            logging.getLogger(name).setLevel(level)
    assert answer.content == "My log now has DEBUG and everything more severe."
    assert answer.ephemeral
