"""Pictures that move, with the bot in its own process: restarts, kills, strangers, impatience, and thirty at once."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.loopback import FOREVER, BotProcess, LoopbackDiscord, rules
from tests.models import make_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.loopback import Interaction, Message, User

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PROMPT = "Hello, I'm a language model,"
UPDATE, REPLY = 6, 5
GIVEN_UP = "I stopped unexpectedly while I worked on this, several times, so I gave up. Try something else."


@pytest_asyncio.fixture(loop_scope="module")
async def discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


@pytest.fixture
def env(tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    return {"GPT2_MODEL": str(tiny_model), "GPT2_THREADS": "1", "JOURNAL": str(tmp_path / "state" / "journal")}


def alt(message: Message) -> str:
    """Return the description of the only picture."""
    (picture,) = (each for each in message.attachments if each.filename.endswith(".png"))
    return picture.description or ""


async def pictured(interaction: Interaction) -> Message:
    await interaction.until(lambda each: each.original and each.original.attachments, what="a picture")
    assert interaction.original is not None
    return interaction.original


def options(message: Message) -> list[str]:
    """Return the labels of the options of all menus."""
    found = (each.get("options", ()) for _, each in rules.walk(message.components))
    return [option["label"] for of_menu in found for option in of_menu]


async def choose(discord: LoopbackDiscord, message: Message, option: str, user: User | None = None) -> Interaction:
    """Choose an option of any menu below a picture."""
    selects = [each for _, each in rules.walk(message.components) if each["type"] == rules.STRING_SELECT]
    ((menu, value),) = (
        (each["custom_id"], found["value"]) for each in selects for found in each["options"] if found["label"] == option
    )
    return await discord.component(message, menu, values=[value], user=user)


async def shows(interaction: Interaction, words: str) -> Message:
    """Wait until the answer's picture is the one with this description."""

    def done(each: Interaction) -> bool:
        message = each.original
        return message is not None and bool(message.attachments) and alt(message).startswith(words)

    await interaction.until(done, within=60, what=words)
    assert interaction.original is not None
    return interaction.original


def rows(env: dict[str, str], statement: str = "SELECT id, private FROM owed ORDER BY id", *values: Any) -> list[Any]:
    connection = sqlite3.connect(env["JOURNAL"])
    with connection:
        found = connection.execute(statement, values).fetchall()
    connection.close()
    return found


async def test_a_picture_moves_for_everybody(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    stranger = discord.user("mallory")
    async with BotProcess(discord, env=env) as bot:
        await bot.loaded()
        message = await pictured(await discord.slash("attention head", {"prompt": PROMPT, "layer": 1, "head": 1}))
        # The person who asked moves it in place, also when it is private.
        moved = await choose(discord, message, "Layer 2")
        assert await shows(moved, "Layer 2, head 1") is message
        assert moved.callback_type == UPDATE
        assert not moved.followups
        # Somebody else gets a private one, which moves in place from then on.
        other = await choose(discord, message, "Head 3", stranger)
        private = await shows(other, "Layer 2, head 3")
        assert private.ephemeral
        assert private.viewer == stranger
        assert alt(message).startswith("Layer 2, head 1")
        assert await shows(await choose(discord, private, "Layer 3"), "Layer 3, head 3") is private
        # Impatience is answered once, and what is refused leaves the picture.
        pause = discord.faults.add("POST", "/callback", delay=1.0, count=1)
        first = await discord.component(message, label="All heads")
        await discord.changes.until(lambda: pause.hits, within=10, what="a press on its way")
        second = await choose(discord, message, "Layer 3")
        refusal = await second.answered()
        assert refusal.ephemeral
        assert refusal.content == "You already pressed that; the answer is on its way."
        await shows(first, "Attention maps of 12 heads")
        # A deleted message can be pressed where a client has not heard of it.
        grid = message.button("Remove first token")["custom_id"]
        discord.messages.delete(message)
        gone = await discord.component(message, grid, unchecked=True)
        await gone.acknowledged()
        await bot.logged("an interaction ended before it could be answered")
        assert not gone.followups
        faults = [line for line in bot.stderr if '"level": "error"' in line or "Traceback" in line]
        assert faults == []


async def test_a_move_survives_kills_and_restarts(
    discord: LoopbackDiscord, env: dict[str, str], tmp_path: Path
) -> None:
    asked = {
        "attention head": {"prompt": PROMPT, "layer": 1, "head": 1},
        "tokens next": {"prompt": PROMPT},
        "weights matrix": {"name": "wte", "rows": "0:100", "columns": "0:16"},
        "lens": {"prompt": "theatre of thoughts " * 3},
    }
    stranger = discord.user("mallory")
    async with BotProcess(discord, env=env) as bot:
        await bot.loaded()
        head, next_, matrix, lens = [await pictured(await discord.slash(*each)) for each in asked.items()]
        other = await pictured(await discord.slash("tokens next", {"prompt": PROMPT}))
        # From here on no edit arrives.
        discord.faults.add("PATCH", "/messages/@original", delay=20, drop=True, count=FOREVER)
        pressed = [
            await choose(discord, head, "Layer 3"),
            await discord.component(next_, label="Let GPT-2 draw"),
            await discord.component(matrix, label="Down"),
            await choose(discord, head, "Head 2", stranger),
            await discord.component(lens, label="Earlier"),
        ]
        await asyncio.gather(*(each.acknowledged() for each in pressed))
        await bot.kill()
    discord.faults.clear()
    before = alt(lens)
    assert [private for _, private in rows(env)] == [2, 2, 2, 1, 2], "four in place, one private"
    rows(env, "UPDATE owed SET attempts = 3 WHERE id = ?", pressed[4].id)
    async with BotProcess(discord, env=env) as bot:
        await bot.loaded()
        assert await shows(pressed[0], "Layer 3, head 1") is head
        await pressed[1].until(lambda each: "GPT-2 drew" in each.text, what="a token")
        assert pressed[1].original is next_
        await pressed[2].until(lambda each: "100:200" in matrix.text or "rows 100" in alt(matrix), what="rows")
        assert (await shows(pressed[3], "Layer 1, head 2")).ephemeral
        # What made the bot crash three times is given up in private, and its picture stays.
        assert (await pressed[4].followed_up()).content == GIVEN_UP
        assert alt(lens) == before
        # Every control of the old messages still works, also for what was written token by token.
        await shows(await choose(discord, head, "Head 4"), "Layer 3, head 4")
        prompt = other.text.split("\n")[1]
        # The tiny model also offers bytes that are no text; their labels are digits and capitals.
        letters = next(
            each for each in options(other) if each.split(" · ")[0].islower() and each.split(" · ")[0].isalpha()
        )
        await (await choose(discord, other, letters)).answered()
        assert other.text.split("\n")[1] == prompt + letters.split(" · ")[0]
        await (await discord.component(other, label="Undo")).answered()
        assert other.text.split("\n")[1] == prompt
        await discord.component(matrix, label="Up")
        await shows(await choose(discord, lens, "Tokens"), "Text split into")
    another = make_model(tmp_path / "other-gpt2", layers=1, seed=3)
    async with BotProcess(discord, env=env | {"GPT2_MODEL": str(another)}) as bot:
        await bot.loaded()
        for message, label in ((head, "All heads"), (matrix, "Zoom out")):
            shown = alt(message)
            refusal = await (await discord.component(message, label=label)).answered()
            assert refusal.ephemeral
            assert refusal.content.startswith("This was made with a different model; I now run other-gpt2.")
            assert alt(message) == shown


async def test_thirty_people_move_one_picture_at_once(discord: LoopbackDiscord, env: dict[str, str]) -> None:
    async with BotProcess(discord, env=env) as bot:
        await bot.loaded()
        message = await pictured(await discord.slash("attention grid", {"prompt": PROMPT}))
        people = [discord.user(f"person {number}") for number in range(29)]
        pressed = [await choose(discord, message, f"Layer {number % 3 + 1}", who) for number, who in enumerate(people)]
        mine = await choose(discord, message, "Layer 2")
        assert await shows(mine, "Layer 2, head 1") is message
        for number, each in enumerate(pressed):
            assert await each.acknowledged() < 3
            private = await shows(each, f"Layer {number % 3 + 1}, head 1")
            assert private.viewer == people[number]
        assert discord.rate_limits.refused == 0
