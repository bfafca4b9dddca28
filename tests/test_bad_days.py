"""Discord's outages: the bot reconnects by itself and answers everyone who was told to wait."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bot.errors import ExitCode
from tests.answers import answered
from tests.loopback import FOREVER, BotProcess, LoopbackDiscord, hurried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


pytestmark = pytest.mark.asyncio(loop_scope="module")

HURRIED = "tests.loopback.hurried:main"
SHORT = {"prompt": "Hello", "samples": 1, "length": 2}
LONG = {"prompt": "Hello, I'm a language model,", "samples": 10, "length": 100}
ANSWER = "/messages/@original"


def settings(model: Path, **more: str) -> dict[str, str]:
    return {"GPT2_MODEL": str(model), "GPT2_THREADS": "1", **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bot(server: LoopbackDiscord, tiny_model: Path) -> AsyncIterator[BotProcess]:
    """Run one process through all tests; it starts without name resolution and without commands."""
    server.faults.add("GET", "/users/@me", status=503)
    server.faults.add("GET", "/gateway/bot", status=503)
    server.faults.add("*", "/commands", status=503, count=2)
    async with BotProcess(server, env=settings(tiny_model, NAMES_FAIL="3"), entry=HURRIED) as bot:
        await bot.loaded()
        yield bot
        assert await bot.stop() == ExitCode.OK
    assert server.violations == []


@pytest_asyncio.fixture(loop_scope="module")
async def discord(server: LoopbackDiscord, bot: BotProcess) -> AsyncIterator[LoopbackDiscord]:
    await server.gateway.ready()
    yield server
    assert bot.exit_code is None
    server.faults.clear()
    server.rate_limits.enforce = True


async def test_it_waited_for_names_discord_and_commands(discord: LoopbackDiscord, bot: BotProcess) -> None:
    assert sum("cannot reach Discord yet" in line and '"at": "login"' in line for line in bot.stderr) == 4
    assert sum("cannot reach Discord yet" in line and '"at": "gateway"' in line for line in bot.stderr) == 1
    assert sum("cannot sync commands" in line for line in bot.stderr) == 2
    assert "Unclosed" not in bot.log
    await answered(await discord.slash("continue", SHORT))


@pytest.mark.parametrize("day", ["drop", "op 7", "op 9", "op 9, resumable", "a refused resume", "closed"])
async def test_the_gateway_breaks_off(discord: LoopbackDiscord, day: str) -> None:
    gateway = discord.gateway
    running = [await discord.slash("continue", LONG) for _ in range(3)]
    await asyncio.gather(*(interaction.acknowledged() for interaction in running))
    identified = len(gateway.identifies)
    match day:
        case "drop":
            gateway.drop()
        case "op 7":
            await gateway.ask_to_reconnect()
        case "op 9":
            await gateway.invalidate()
        case "op 9, resumable":
            await gateway.invalidate(resumable=True)
        case "a refused resume":
            gateway.settings.accept_resumes = False
            gateway.drop()
            await gateway.until(lambda g: len(g.identifies) > identified, what="a new session")
            gateway.settings.accept_resumes = True
        case _:
            await gateway.close(code=4000)
    if day == "op 9":
        await gateway.until(lambda g: len(g.identifies) > identified, what="a new session")
    await gateway.ready()
    assert len(gateway.identifies) == identified + (day in {"op 9", "a refused resume"})
    await answered(await discord.slash("continue", SHORT))
    for interaction in running:
        await answered(interaction)


@pytest.mark.slow
async def test_hours_offline_end_in_answers(discord: LoopbackDiscord, bot: BotProcess) -> None:
    running = [await discord.slash("continue", LONG) for _ in range(5)]
    await asyncio.gather(*(interaction.acknowledged() for interaction in running))
    seen = len(bot.stderr)
    await discord.go_offline()

    def pauses() -> list[float]:
        found = (re.search(r"Attempting a reconnect .* in ([\d.]+)s", line) for line in bot.stderr[seen:])
        return [float(each[1]) * hurried.HASTE for each in found if each]

    await discord.changes.until(lambda: len(pauses()) >= 20, within=60, what="many attempts to come back")
    assert max(pauses()) <= 64, "discord.py alone would pause for up to 17 minutes by now"
    assert bot.exit_code is None
    await discord.go_online()
    await discord.gateway.ready()
    for interaction in running:
        await answered(interaction)
    await answered(await discord.slash("continue", SHORT))


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "count": 2},
        {"status": 429, "count": 2},
        {"status": 429, "count": 2, "headers": {"Retry-After": "0"}},
        {"drop": True, "count": 3},
        {"drop": True, "after": True},
    ],
    ids=["500", "503", "429", "429 without Via", "reset", "delivered, and the answer lost"],
)
async def test_answers_are_delivered_through(discord: LoopbackDiscord, fault: dict[str, Any]) -> None:
    ordered = discord.faults.add("PATCH", ANSWER, **fault)
    interaction = await discord.slash("continue", SHORT)
    picture = await discord.slash("weights positional")
    await answered(interaction)
    await picture.until(lambda each: each.original is not None and each.original.attachments, what="the picture")
    assert ordered.hits == fault.get("count", 1)
    assert not interaction.followups


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"drop": True, "count": 2}, {"delay": 1.5}, {"status": 429, "count": 1}],
    ids=["503", "reset", "slow", "429"],
)
async def test_acknowledgements_are_made_through(discord: LoopbackDiscord, fault: dict[str, Any]) -> None:
    discord.faults.add("POST", "/callback", **fault)
    interaction = await discord.slash("continue", SHORT)
    assert await interaction.acknowledged() < 3
    await answered(interaction)


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 503}], ids=str)
async def test_a_deferral_counts_though_its_response_was_lost(discord: LoopbackDiscord, fault: dict[str, Any]) -> None:
    discord.faults.add("POST", "/callback", **fault, after=True)
    interaction = await discord.slash("continue", SHORT)
    await answered(interaction)
    assert [violation.kind for violation in discord.take_violations()] == ["acknowledged twice"]


async def test_what_another_process_has_acknowledged_is_left_to_it(discord: LoopbackDiscord, bot: BotProcess) -> None:
    taken = discord.faults.add("POST", "/callback", status=400, count=3, body={"code": 40060, "message": "Already."})
    seen = len(bot.stderr)
    # A deferral, a message at once, and a refusal.
    asked = [await discord.slash("continue", SHORT), await discord.slash("help")]
    asked.append(await discord.slash("tokens surprise", {"text": "a"}))
    await discord.changes.until(
        lambda: sum('"event": "request"' in line for line in bot.stderr[seen:]) == 3, within=20, what="three log lines"
    )
    assert taken.hits == 3
    assert not [
        each for each in discord.requests if any(one.token in each.path for one in asked) and each.status != 400
    ]
    (warning,) = (line for line in bot.stderr[seen:] if '"level": "warning"' in line)
    assert "it runs with the same token" in warning, "said once"
    await answered(await discord.slash("continue", SHORT))


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        pytest.param({"drop": True}, marks=pytest.mark.slow),
        pytest.param({"status": 429, "headers": {"Retry-After": "3"}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
async def test_an_unconfirmed_deferral_is_answered(discord: LoopbackDiscord, fault: dict[str, Any]) -> None:
    discord.faults.add("POST", "/callback", drop=True, after=True)
    again = discord.faults.add("POST", "/callback", **fault, count=FOREVER)
    interaction = await discord.slash("continue", SHORT)
    await interaction.until(lambda each: "tokens/s" in each.text, within=10, what="an answer")
    assert again.hits


async def test_an_undeliverable_answer_is_one_log_line(discord: LoopbackDiscord, bot: BotProcess) -> None:
    seen = len(bot.stderr)
    discord.faults.add("POST", "/callback", status=503, count=FOREVER)
    asked = await discord.slash("continue", SHORT)
    await discord.changes.until(
        lambda: any("could not be told" in line for line in bot.stderr[seen:]), within=20, what="a line in the log"
    )
    sent = [each for each in discord.requests if each.path.startswith(f"/interactions/{asked.id}/")]
    assert sent[-1].at - asked.sent_at < 5, "Discord takes nothing any more"
    assert not any("Traceback" in line for line in bot.stderr[seen:])
    discord.faults.clear()
    await answered(await discord.slash("continue", SHORT))


@pytest.mark.parametrize(("status", "code"), [(404, 10062), (401, 50027), (403, 50013), (404, 10015)], ids=str)
async def test_permanent_errors_are_not_retried(
    discord: LoopbackDiscord, bot: BotProcess, status: int, code: int
) -> None:
    seen = len(bot.stderr)
    refused = discord.faults.add(
        "*", "/interactions/|/webhooks/", status=status, count=FOREVER, body={"code": code, "message": "no"}
    )
    await discord.slash("continue", LONG)
    await discord.changes.until(
        lambda: any("could not be shown" in line or "ended before" in line for line in bot.stderr[seen:]),
        within=20,
        what="a line in the log",
    )
    discord.faults.clear()
    # What comes next is answered, and nothing was left running in between.
    await answered(await discord.slash("continue", SHORT))
    assert refused.hits <= 2, "at most the acknowledgement, and the word that it failed"


@pytest.mark.slow
async def test_a_banned_address_sends_no_more(discord: LoopbackDiscord) -> None:
    running = [await discord.slash("continue", LONG) for _ in range(20)]
    await asyncio.gather(*(interaction.acknowledged() for interaction in running))
    banned = discord.faults.add("*", "/webhooks/", status=429, count=FOREVER, headers={})
    for interaction in running:
        await interaction.until(lambda _: banned.hits >= 3, within=60, what="three attempts")
    await asyncio.sleep(2)
    assert banned.hits < 30, "one at a time asks whether it has passed"
    discord.faults.clear()
    for interaction in running:
        await answered(interaction)
