"""The time of a step between pictures: `python -m benchmarks.moves [--model NAME] [--steps N] [--users N]`.

The bot runs in a process of its own against a Discord on loopback. A step is timed from the press to the edited
picture, alone and while other users continue prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.answers import answered
from tests.loopback import BotProcess, LoopbackDiscord, rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.loopback import Interaction, Message

PROMPT = "Hello, I'm a language model, and I am here to talk about language. " * 3
WITHIN_SECONDS = 120.0

# For each picture its command, and the controls that lead away from it and back; a control is a label, or "menu" for
# the next option of the first menu.
STEPS: Mapping[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "head": ("attention head", {"prompt": PROMPT, "layer": 1, "head": 1}, ("menu",)),
    "lens": ("lens", {"prompt": PROMPT}, ("Earlier", "Later")),
    "surprise": ("tokens surprise", {"text": PROMPT * 8}, ("Earlier", "Later")),
    "matrix": ("weights matrix", {"name": "wte", "rows": "100:300", "columns": "100:300"}, ("Right", "Left")),
    "next token": ("tokens next", {"prompt": PROMPT}, ("menu",)),
    "GPT-2 draws": ("tokens next", {"prompt": PROMPT}, ("Let GPT-2 draw",)),
}


async def main() -> None:
    """Print a table of medians in seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moves", description=__doc__.partition(":")[0])
    parser.add_argument("--model", default="gpt2-mini", help="a hub name or a folder (gpt2-mini)")
    parser.add_argument("--steps", type=int, default=8, help="of each kind (8)")
    parser.add_argument("--users", type=int, default=16, help="who continue prompts meanwhile (16)")
    arguments = parser.parse_args()
    env = {"GPT2_MODEL": arguments.model, "PICTURES_MB": "0", "JOURNAL": "off"}
    async with LoopbackDiscord() as discord, BotProcess(discord, env=env, fresh=True) as bot:
        await bot.loaded()
        alone = {name: await _steps(discord, name, arguments.steps) for name in STEPS}
        crowd = [asyncio.create_task(_continue(discord, number)) for number in range(arguments.users)]
        try:
            beside = {name: await _steps(discord, name, arguments.steps) for name in STEPS}
        finally:
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
    print(f"| step | alone: median, slowest | beside {arguments.users} users of /continue |")
    print("| --- | --- | --- |")
    for name in STEPS:
        print(f"| {name} | {_summary(alone[name])} | {_summary(beside[name])} |")


async def _steps(discord: LoopbackDiscord, name: str, count: int) -> list[float]:
    """Return the seconds of so many steps from a new picture."""
    command, options, controls = STEPS[name]
    first = await discord.slash(command, options)
    await first.until(lambda each: each.original and each.original.attachments, within=WITHIN_SECONDS, what="a picture")
    message = first.messages[-1]
    found = []
    for step in range(count):
        before = _files(message)
        began = time.perf_counter()
        await _press(discord, message, controls[step % len(controls)], step)
        moved = partial(_shows_another, message, before)
        await discord.changes.until(moved, within=WITHIN_SECONDS, what=f"the next picture of {name}")
        found.append(time.perf_counter() - began)
    return found


def _files(message: Message) -> list[bytes]:
    return [attachment.content for attachment in message.attachments]


def _shows_another(message: Message, before: list[bytes]) -> bool:
    return _files(message) not in ([], before)


async def _press(discord: LoopbackDiscord, message: Message, control: str, step: int) -> Interaction:
    if control != "menu":
        return await discord.component(message, label=control)
    menus = [each for _, each in rules.walk(message.components) if each["type"] == rules.STRING_SELECT]
    options = [each["value"] for each in menus[0]["options"] if not each.get("default")]
    return await discord.component(message, menus[0]["custom_id"], values=[options[step % len(options)]])


async def _continue(discord: LoopbackDiscord, number: int) -> None:
    """Ask for samples again and again."""
    user = discord.user(f"user{number}")
    while True:
        asked = await discord.slash("continue", {"prompt": "Hello", "samples": 5, "length": 40}, user=user)
        await answered(asked, within=WITHIN_SECONDS)


def _summary(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s, {max(seconds):.2f} s"


if __name__ == "__main__":
    asyncio.run(main())
