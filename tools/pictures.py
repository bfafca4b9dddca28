"""Make the pictures of README and docs: the real bot's answers, photographed in the demo's page (`make pictures`).

Every run shows the same answers at the same time of day; only measured durations differ. A browser
(Chromium or Chrome) must be on the PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import shutil
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from PIL import Image
from playwright.async_api import async_playwright

from bot.cli.demo import open_page
from bot.cli.run import build_client
from bot.config import Settings
from bot.gpt2.model.files import SHIPPED
from bot.gpt2.requests import TUTORIAL_PROMPT, TUTORIAL_SEED
from bot.monitoring import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import simcord
    from playwright.async_api import Browser, Page

FOLDER: Final = Path(__file__).parent.parent / "docs" / "pictures"
TAKEN: Final = datetime(2026, 4, 23, 16, 16, tzinfo=UTC)
PIXEL_RATIO: Final = 2
# In CSS pixels, 256 of them for a list of messages that is not shown: as wide as an answer needs.
SIZE: Final = (976, 3000)  # higher than any answer
MAX_BYTES: Final = 400_000
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture's name, and the command whose answer it shows, or the button below that whose answer it shows."""

    name: str
    command: str
    options: dict[str, Any] = field(default_factory=dict)
    press: str = ""


AGAIN: Final = "Hello, I'm a language model, and you are a language model, too."  # repeats itself: induction
REPEATED: Final = (
    "The old wizard Gandrel met Misty Quorb at Zarn Hill. The next day, the old wizard Gandrel met Misty Quorb at"
)
WATCHED: Final = {"prompt": TUTORIAL_PROMPT, "seed": TUTORIAL_SEED, "samples": 1, "length": 24, "temperature": 0.8}
CONVERSATION: Final = (
    Scene("continue", "continue", {"prompt": TUTORIAL_PROMPT, "seed": TUTORIAL_SEED}),
    Scene("attention-grid", "attention grid", {"prompt": AGAIN}),
    Scene("attention-head", "attention head", {"prompt": AGAIN, "layer": 7, "head": 1, "sink": "removed"}),
    # The two strongest induction heads of gpt2-mini, and names that only they can repeat.
    Scene("ablate", "ablate", {"prompt": REPEATED, "heads": "7.1, 8.6"}),
    Scene("tokens-split", "tokens split", {"text": "Zoë said: 猫 🤖 antidisestablishmentarianism"}),
    Scene("tokens-next", "tokens next", {"prompt": "Hello, I'm a language", "temperature": 0.7, "top_k": 8}),
    Scene("tokens-surprise", "tokens surprise", {"text": AGAIN}),
    Scene("tokens-induction", "tokens induction"),
    Scene("lens", "lens", {"prompt": "Hello, I'm a language model, and I"}),
    Scene("compare", "compare", {"first": "The king is", "second": "The queen is"}),
    Scene("watch", "continue", WATCHED, press="Watch"),
    Scene("help", "help"),
    Scene("about", "about"),
)
WEIGHTS: Final = (
    Scene("positional-heatmap", "weights positional"),
    Scene("positional-lines", "weights positional", {"view": "lines"}),
    Scene("positional-similarity", "weights positional", {"view": "similarity"}),
    Scene("positional-helix", "weights positional", {"view": "helix"}),
    Scene("attention", "weights attention"),
    Scene("attention-heads", "weights attention", {"view": "heads"}),
    Scene("matrix", "weights matrix", {"name": "transformer.h.0.attn.c_proj.weight"}),
    Scene("list", "weights list"),
    Scene("tutorial-positional", "weights positional", {"style": "article"}),
    Scene("tutorial-attention", "weights attention", {"style": "article"}),
    Scene("tutorial-lines", "weights positional", {"view": "lines", "style": "article"}),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__)
    parser.add_argument(
        "--gpt2",
        metavar="FOLDER",
        default=SHIPPED,
        help="take the weights' pictures from this model (default: shipped)",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=FOLDER, help="where the pictures go")
    chosen = parser.parse_args(arguments)
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit(f"No browser: none of {', '.join(BROWSERS)} is on the PATH.")
    logs.configure("WARNING", "human")
    chosen.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(_photograph(executable, chosen.gpt2, chosen.out))


async def _photograph(executable: str, gpt2: str, out: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        )
        async with browser:
            async with _channel(SHIPPED) as channel:
                await _take_messages(browser, channel, CONVERSATION, out)
            async with _channel(gpt2) as channel:
                await _take_messages(browser, channel, WEIGHTS, out)


@contextlib.asynccontextmanager
async def _channel(model: str) -> AsyncIterator[simcord.Preview]:
    """Open a channel for one model, in which the time stands still."""
    async with contextlib.AsyncExitStack() as stack:
        with mock.patch("discord.utils.utcnow", return_value=TAKEN):  # since when the bot is up
            client = await stack.enter_async_context(build_client(Settings(gpt2_model=model)))
        page = await stack.enter_async_context(open_page(client, now=TAKEN))
        await client.engine.start()
        yield page


async def _ask(channel: simcord.Preview, scene: Scene) -> int:
    """Run the command, press the button if there is one, and return the number of answers."""
    visitor = channel.viewers[0]
    answer = await visitor.slash(channel.channel, scene.command, **scene.options)
    if not scene.press:
        return 1
    await visitor.click(answer.response, label=scene.press)
    return 2


async def _take_messages(browser: Browser, channel: simcord.Preview, scenes: Sequence[Scene], out: Path) -> None:
    """Photograph each answer by itself."""
    places = itertools.accumulate([await _ask(channel, scene) for scene in scenes])
    async with _opened(browser, channel) as page:
        messages = page.locator(".channel-message")
        for place, scene in zip(places, scenes, strict=True):
            _save(await messages.nth(place - 1).screenshot(), out / f"{scene.name}.png")


@contextlib.asynccontextmanager
async def _opened(browser: Browser, channel: simcord.Preview) -> AsyncIterator[Page]:
    """Open the channel in the browser and wait until it is drawn."""
    width, height = SIZE
    page = await browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=PIXEL_RATIO)
    async with page:
        await page.goto(channel.url)
        await page.locator("#preview-app[aria-busy=false]").wait_for()
        for image in await page.locator(".channel-message img").all():
            await image.evaluate("image => image.decode()")
        yield page


def _save(png: bytes, path: Path) -> None:
    """Write a picture, in 256 colours where it would be too large with all of them."""
    if len(png) > MAX_BYTES:
        smaller = io.BytesIO()
        # This method keeps the scale beside a heatmap smooth, and the means keep the background its own colour.
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        picture = picture.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        picture.save(smaller, "PNG", optimize=True)
        png = smaller.getvalue()
    if len(png) > MAX_BYTES:
        sys.exit(f"{path.name} is too large: {len(png):,} bytes, where {MAX_BYTES:,} is the limit.")
    path.write_bytes(png)
    print(f"{path.name}: {len(png) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
