"""What was acknowledged is answered: through kill -9, SIGTERM, and rows that have seen better days."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from bot.errors import ExitCode
from bot.interactions import recovery
from bot.interactions.reply import TOKEN_SECONDS
from bot.ui.readback import body, plain
from tests.loopback import FOREVER, BotProcess, LoopbackDiscord, interactions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.loopback import Interaction

# A process takes seconds to start, so each test shows all that one restart can show.
pytestmark = pytest.mark.asyncio(loop_scope="module")

LEISURELY: Final = "tests.loopback.leisurely:main"
LONG = {"prompt": "Hello, I'm a language model,", "samples": 10, "length": 75}
"""Takes three seconds, time enough to be killed in, and more when there are many."""


@pytest_asyncio.fixture(loop_scope="module")
async def discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


@pytest.fixture
def env(tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    return {"GPT2_MODEL": str(tiny_model), "GPT2_THREADS": "1", "JOURNAL": str(tmp_path / "state" / "journal")}


def execute(env: dict[str, str], statement: str, *values: Any) -> list[Any]:
    connection = sqlite3.connect(env["JOURNAL"])
    with connection:
        found = connection.execute(statement, values).fetchall()
    connection.close()
    return found


def owed(env: dict[str, str]) -> list[int]:
    return [number for (number,) in execute(env, "SELECT id FROM owed ORDER BY id")]


async def nothing_owed(env: dict[str, str]) -> None:
    """Wait until the journal has no rows; a row goes just after its answer."""
    async with asyncio.timeout(20):
        while owed(env):  # noqa: ASYNC110 # a file announces nothing
            await asyncio.sleep(0.05)


COST: Final = r"\d+ (tokens?|Token) in [\d.,]+ s \(.*\)"


async def answered(interaction: Interaction) -> str:
    """Return the text of the answer without the duration, which differs between runs."""
    await interaction.until(lambda each: re.search(COST, each.text), within=120, what="an answer")
    return re.sub(COST, "", interaction.text)


def unanswered(interaction: Interaction) -> bool:
    return not re.search(COST, interaction.text) and not (interaction.original and interaction.original.attachments)


async def test_a_kill_loses_nothing_and_changes_no_word(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    async with BotProcess(discord, env=env, entry=LEISURELY) as bot:
        await bot.loaded()
        asked = [await discord.slash("continue", LONG) for _ in range(12)]
        private = await discord.slash("continue", LONG | {"private": True}, locale="de")
        picture = await discord.slash("weights positional", {})
        last = await discord.slash("continue", LONG)
        owing = [*asked, private, picture, last]
        await asyncio.gather(*(interaction.acknowledged() for interaction in owing))
        # One more, whose acknowledgement is on its way, and does not arrive.
        fault = discord.faults.add("POST", "/callback", delay=20, drop=True)
        unknown = await discord.slash("continue", LONG)
        await discord.changes.until(lambda: fault.hits, within=10, what="an acknowledgement on its way")
        await bot.kill()
    discord.faults.clear()
    left = [each.id for each in owing if unanswered(each)]
    assert len(left) > 5, "it was killed too late to show anything"
    assert set(owed(env)) >= {*left, unknown.id}
    async with BotProcess(discord, env=env, entry=LEISURELY) as bot:
        texts = [await answered(interaction) for interaction in (*asked, private, last)]
        await picture.until(lambda each: each.original is not None and each.original.attachments, what="the picture")
        assert private.original is not None
        assert private.original.ephemeral
        assert not any(interaction.followups for interaction in owing)
        # The words are those that the seed gives which the answer names.
        seed = int(re.findall(r"seed (\d+)", texts[-1])[0])
        assert await answered(await discord.slash("continue", LONG | {"seed": seed})) == texts[-1]
        await nothing_owed(env)
        assert unknown.callback is None
        assert not any(interaction.token in bot.log for interaction in owing)
        # And while it is told to end, a second signal ends it at once.
        await asyncio.gather(*[(await discord.slash("continue", LONG)).acknowledged() for _ in range(20)])
        bot.signal(signal.SIGTERM)
        await bot.logged("stopping")
        bot.signal(signal.SIGTERM)
        assert await bot.wait(within=10) == -signal.SIGTERM


def growing(interaction: Interaction) -> list[str]:
    """Return the samples that a message shows while they grow."""
    message = interaction.original
    if message is None or not any(each.get("label") == "Stop" for each in message.buttons):
        return []
    return re.findall(r"\*\*Hello, I'm a language model,\*\*(.+)", message.text)


@pytest.mark.slow
async def test_a_killed_answer_is_completed_identically(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    async with BotProcess(discord, env=env, entry=LEISURELY) as bot:
        await bot.loaded()
        asked = [await discord.slash("continue", LONG) for _ in range(6)]
        watched = await discord.changes.until(
            lambda: next((each for each in asked if growing(each)), None), within=60, what="an answer that grows"
        )
        # Nothing that is sent from here on arrives: what stands there now is what the kill leaves.
        discord.faults.add("PATCH", "/messages/@original", delay=20, drop=True, count=FOREVER)
        await bot.kill()
    discord.faults.clear()
    partial = growing(watched)
    assert partial
    async with BotProcess(discord, env=env, entry=LEISURELY, fresh=True) as bot:
        await bot.loaded()
        text = await answered(watched)
        assert not growing(watched)
        assert not watched.followups
        seed = int(re.findall(r"seed (\d+)", text)[0])
        assert await answered(await discord.slash("continue", LONG | {"seed": seed})) == text
        for words in partial:
            # A backslash or the guard at the end may stand there only because the text ended there.
            assert body(words.removesuffix("…")) in plain(text), "what people had seen has changed"
        for interaction in asked:
            await answered(interaction)
        await nothing_owed(env)


@pytest.mark.slow
async def test_killed_buttons_and_forms_are_answered(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    async with BotProcess(discord, env=env, entry=LEISURELY) as bot:
        await bot.loaded()
        short = {"prompt": "bell\x07 and page\x0c", "samples": 2, "length": 3}  # whose text is in a file
        shown = await discord.slash("continue", short)
        await answered(shown)
        message = shown.original
        assert message is not None
        edit = await discord.component(message, label="Edit")
        form = await discord.slash("continue", {"samples": 2, "length": 5})
        await asyncio.gather(edit.acknowledged(), form.acknowledged())
        # Nothing that is sent from here on arrives, but for the acknowledgements.
        discord.faults.add("PATCH", "/messages/@original", delay=20, drop=True, count=FOREVER)
        others = [await discord.slash("continue", LONG, user=discord.user(f"user {n}")) for n in range(4)]
        owing = [
            await discord.component(message, label="Re-roll"),
            await discord.component(message, label="Continue"),
            await discord.component(message, label="Insights"),
            await discord.modal(edit, {"Samples": "1"}),
            await discord.modal(form, {"Prompt": "two\nlines"}),
        ]
        await asyncio.gather(*(interaction.acknowledged() for interaction in (*owing, *others)))
        await bot.kill()
    discord.faults.clear()
    assert all(unanswered(interaction) for interaction in owing)
    async with BotProcess(discord, env=env, entry=LEISURELY) as bot:
        await bot.loaded()
        reroll, further, insights, edited, prompted = owing
        for interaction in (reroll, further, edited, prompted):
            await answered(interaction)
            assert interaction.original is not None
            assert not interaction.original.ephemeral
        assert "samples 1 · length 3" in edited.text
        assert "**two\nlines**" in prompted.text
        await insights.until(lambda each: each.original is not None and each.original.attachments, what="the picture")
        assert insights.original is not None
        assert insights.original.ephemeral
        for interaction in others:
            await answered(interaction)
        await nothing_owed(env)


@pytest.mark.slow
async def test_sigterm_leaves_unfinished_requests_to_the_next_start(
    discord: LoopbackDiscord, env: dict[str, str]
) -> None:
    async with BotProcess(discord, env=env | {"SHUTDOWN_SECONDS": "0.5"}, entry=LEISURELY) as bot:
        await bot.loaded()
        asked = [await discord.slash("continue", LONG) for _ in range(8)]
        await asyncio.gather(*(interaction.acknowledged() for interaction in asked))
        bot.signal(signal.SIGTERM)
        await bot.logged("stopping")
        late = await (await discord.slash("about")).answered()
        assert late.ephemeral
        assert "shutting down" in late.text
        assert await bot.wait() == ExitCode.OK
    left = [interaction for interaction in asked if unanswered(interaction)]
    assert left, "8 of the longest requests should not be done yet"
    assert all("Your answer will appear here" in interaction.text for interaction in left)
    # An answer that Discord has and whose arrival the bot has not heard of is owed, too; it is given again, the same.
    rows = dict(execute(env, "SELECT id, attempts FROM owed"))
    assert {each.id for each in left} <= rows.keys() <= {each.id for each in asked}
    assert set(rows.values()) == {0}
    async with BotProcess(discord, env=env | {"SHUTDOWN_SECONDS": "60"}, entry=LEISURELY) as bot:
        await bot.loaded()
        for interaction in left:
            assert "Your answer will appear" not in await answered(interaction)
        more = [await discord.slash("continue", LONG) for _ in range(3)]
        await asyncio.gather(*(interaction.acknowledged() for interaction in more))
        assert await bot.stop(within=60) == ExitCode.OK
    assert all("tokens/s" in interaction.text for interaction in more), "there was time for them"
    assert owed(env) == []


@pytest.mark.slow
async def test_late_progress_does_not_hide_the_notice(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    async with BotProcess(discord, env=env | {"SHUTDOWN_SECONDS": "0"}, entry=LEISURELY) as bot:
        await bot.loaded()
        asked = [await discord.slash("continue", LONG) for _ in range(24)]
        await asyncio.gather(*(interaction.acknowledged() for interaction in asked))
        # The last request shows its place in the queue before its answer.
        slow = discord.faults.add("PATCH", asked[-1].token, delay=1.0)
        await discord.changes.until(lambda: slow.hits, within=20, what="an edit under way")
        assert await bot.stop() == ExitCode.OK
    came = lambda: all(request.seconds is not None for request in discord.requests)  # noqa: E731
    await discord.changes.until(came, within=10, what="the edit that was under way")
    left = [interaction for interaction in asked if unanswered(interaction)]
    assert asked[-1] in left, "24 of the longest requests should not be done yet"
    assert all("Your answer will appear here" in interaction.text for interaction in left)


def left_by_an_earlier_run(
    discord: LoopbackDiscord, env: dict[str, str], *, age: float = 0.0, attempts: int = 0, **data: Any
) -> Interaction:
    """Make an acknowledged interaction and its row, `age` seconds old by the machine's clock."""
    options = [{"name": "prompt", "type": 3, "value": "a"}, {"name": "length", "type": 4, "value": 2}]
    command = {"id": "1", "name": "continue", "type": 1, "options": options} | data
    payload = discord._envelope(
        data.get("kind", interactions.COMMAND), command, discord.user(), discord.channel, "en-US"
    )
    kind = payload["type"]
    interaction = discord.desk.open(kind, discord.user(), discord.channel, payload, None)
    interaction.sent_at = asyncio.get_running_loop().time()
    discord.desk.acknowledge(interaction.id, interaction.token, {"type": 5}, [])
    made = interaction.id - (int(age * 1000) << 22)
    row = json.dumps(payload | {"id": str(made)})
    execute(env, "INSERT INTO owed VALUES (?, ?, 0, ?, ?)", made, row, time.time() - age, attempts)
    return interaction


@pytest.mark.slow
async def test_every_row_gets_an_answer_or_explanation(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    Path(env["JOURNAL"]).parent.mkdir()
    execute(
        env,
        "CREATE TABLE owed (id INTEGER PRIMARY KEY, payload TEXT NOT NULL, "
        "private INTEGER NOT NULL, written REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0)",
    )
    sound = left_by_an_earlier_run(discord, env, attempts=recovery.MAX_ATTEMPTS - 1)
    poison = left_by_an_earlier_run(discord, env, attempts=recovery.MAX_ATTEMPTS)
    # As young as "too late" can be: a busy machine may take most of a minute to start.
    late = left_by_an_earlier_run(discord, env, age=TOKEN_SECONDS - recovery.RESERVE_SECONDS + 1)
    clock_ahead = left_by_an_earlier_run(discord, env, age=30 * 86_400)
    clock_behind = left_by_an_earlier_run(discord, env, age=-86_400)
    changed = left_by_an_earlier_run(discord, env, name="was_once")
    unknown_button = left_by_an_earlier_run(
        discord, env, kind=interactions.COMPONENT, custom_id="x" * 32, component_type=2
    )
    gone = left_by_an_earlier_run(discord, env)
    assert gone.original is not None
    gone.original.deleted = True
    dead = left_by_an_earlier_run(discord, env, age=TOKEN_SECONDS + 60)
    dead.sent_at -= TOKEN_SECONDS + 60
    execute(env, 'INSERT INTO owed VALUES (1, \'{"id": "1"}\', 0, ?, 0)', time.time())
    async with BotProcess(discord, env=env) as bot:
        for interaction, words in (
            (sound, "tokens/s"),
            (poison, "so I gave up"),
            (late, "I was away for too long"),
            (clock_ahead, "tokens/s"),
            (clock_behind, "tokens/s"),
            (changed, "This command has changed"),
            (unknown_button, "from an older version of me"),
        ):
            await interaction.until(lambda each, words=words: words in each.text, within=60, what=words)
        await nothing_owed(env)
        assert await bot.stop() == ExitCode.OK
    refused = [request.status for request in discord.requests if request.status in {401, 403, 404, 429}]
    assert len(refused) <= 4, "what Discord refuses for good is asked once"


@pytest.mark.slow
async def test_an_unwritable_journal_is_logged_once(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    async with BotProcess(discord, env=env | {"JOURNAL": "/dev/null/journal"}) as bot:
        await bot.loaded()
        for _ in range(3):
            await answered(await discord.slash("continue", {"prompt": "a", "length": 2}))
        assert await bot.stop() == ExitCode.OK
    assert sum("cannot write the journal" in line for line in bot.stderr) == 1
