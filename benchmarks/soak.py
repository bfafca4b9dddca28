"""Drive the bot against a Discord on loopback for as long as told, and break things meanwhile.

``python -m benchmarks.soak --seconds 600 --rate 2 --kill-every 30``

The bot runs in a process of its own with nothing changed but Discord's address. People type commands, press buttons and
make mistakes; the process is killed or told to end; Discord drops connections, answers 5xx and 429, and is slow. What
counts is the line "lost": what was acknowledged and never got its answer or a word why not. It has to be 0, and
is the exit code's business.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.loopback import BotExitedError, BotProcess, LoopbackDiscord, RefusedByDiscord
from tests.loopback.inspected import PREFIX
from tests.loopback.interactions import DEFER_REPLY
from tests.models import make_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.loopback import Interaction, Message

ENTRY = "tests.loopback.inspected:main"
SAMPLE_SECONDS = 10.0
DRAIN_SECONDS = 180.0
PROMPTS = (
    "ROMEO:",
    "Hello, I'm a language model,",
    "@everyone **bold** `code` $x^{$",
    "日本語 🎭 العربية \u202eabc",
    "To be, or not to be",
    "   ",
    "x" * 3000,
)
PROMISE = "Your answer will appear here"


class Soak:
    """One run: what is done, and what came of it."""

    def __init__(self, discord: LoopbackDiscord, arguments: argparse.Namespace, env: dict[str, str]) -> None:
        self.discord = discord
        self.arguments = arguments
        self.env = env
        self.random = random.Random(arguments.seed)
        self.asked: list[Interaction] = []
        self.latencies: list[float] = []
        self.acknowledgements: list[float] = []
        self.samples: list[dict[str, float]] = []
        self.events: collections.Counter[str] = collections.Counter()
        self.exit_codes: collections.Counter[int] = collections.Counter()
        self.began = time.monotonic()
        self.bot: BotProcess | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self._away = asyncio.Lock()  # held while the process is being replaced

    @property
    def over(self) -> bool:
        """Whether enough has been asked."""
        most: int = self.arguments.requests
        return time.monotonic() - self.began > self.arguments.seconds or 0 < most <= len(self.asked)

    async def run(self) -> None:
        """All of it, from the first start to the last stop."""
        await self._start()
        helpers = [
            asyncio.create_task(work)
            for work in (
                self._sample(),
                self._break(),
                self._every(self.arguments.kill_every, self._kill),
                self._every(self.arguments.term_every, self._terminate),
                self._every(self.arguments.drop_every, self._disturb_gateway),
            )
        ]
        while not self.over:
            await self._ask()
            await asyncio.sleep(self.random.expovariate(self.arguments.rate))
            for helper in helpers:
                if helper.done():
                    helper.result()  # raise what went wrong in it
        async with self._away:
            for helper in helpers:
                helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        self.discord.faults.clear()
        if self._watchers:
            await asyncio.wait(self._watchers, timeout=DRAIN_SECONDS)
        await self._take_sample()
        if self.bot is not None:
            self.exit_codes[await self.bot.stop(within=60)] += 1
        for watcher in self._watchers:
            watcher.cancel()

    # People

    async def _ask(self) -> None:
        try:
            interaction = await self._deed()
        except (RefusedByDiscord, RuntimeError):  # a button that is gone; no session, for the bot has not come yet
            self.events["not sent: the bot or the button was away"] += 1
            return
        self.asked.append(interaction)
        task = asyncio.create_task(self._watch(interaction))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _deed(self) -> Interaction:
        chance, user = self.random.random(), self.discord.user(f"user{self.random.randrange(50)}")
        if chance < 0.65:
            options: dict[str, Any] = {
                "prompt": self.random.choice(PROMPTS),
                "samples": self.random.randint(1, 4),
                "length": self.random.randint(1, 30),
                "private": self.random.random() < 0.2,
            }
            return await self.discord.slash("continue", options, user=user)
        if chance < 0.80:
            return await self.discord.slash(
                "weights positional", {"positions": str(self.random.randint(5, 60))}, user=user
            )
        if chance < 0.85:
            return await self.discord.slash("weights matrix", {"name": "nope", "rows": "9:1"}, user=user)
        if chance < 0.90:
            return await self.discord.slash(self.random.choice(["about", "help", "weights list"]), user=user)
        answers = [each.original for each in self.asked[-50:] if _final(each)]
        pressable = [message for message in answers if message is not None and _button(message)]
        if not pressable:
            return await self.discord.slash("about", user=user)
        message = self.random.choice(pressable)
        return await self.discord.component(message, _button(message), user=message.viewer or user)

    async def _watch(self, interaction: Interaction) -> None:
        changes = self.discord.changes
        with contextlib.suppress(TimeoutError):
            await changes.until(lambda: interaction.callback is not None, within=10, what="acknowledged")
        if interaction.seconds is None:
            return
        self.acknowledgements.append(interaction.seconds)
        with contextlib.suppress(TimeoutError):
            await changes.until(lambda: _final(interaction), within=16 * 60, what="answered")
            self.latencies.append(asyncio.get_running_loop().time() - interaction.sent_at)

    # Trouble

    async def _start(self) -> None:
        while True:
            self.bot = await BotProcess(self.discord, env=self.env, entry=ENTRY, cwd=Path(self.env["FOLDER"])).start()
            try:
                await self.bot.ready()
            except BotExitedError as error:
                self.exit_codes[self.bot.exit_code or 0] += 1
                self.events["starts that failed"] += 1
                print(str(error)[-2000:], file=sys.stderr)
                await asyncio.sleep(2)
            else:
                self.events["starts"] += 1
                return

    async def _every(self, seconds: float, deed: Any) -> None:
        while seconds:
            await asyncio.sleep(seconds * self.random.uniform(0.7, 1.3))
            async with self._away:
                await deed()

    async def _kill(self) -> None:
        if self.bot is not None:
            await self.bot.kill()
            self.exit_codes[self.bot.exit_code or 0] += 1
            self.events["kills"] += 1
        await self._start()

    async def _terminate(self) -> None:
        if self.bot is not None:
            self.exit_codes[await self.bot.stop(within=60)] += 1
            self.events["SIGTERMs"] += 1
        await self._start()

    async def _disturb_gateway(self) -> None:
        gateway, kind = self.discord.gateway, self.random.randrange(4)
        with contextlib.suppress(RuntimeError):  # it is not connected: disturbed enough
            if kind == 0:
                gateway.drop()
            elif kind == 1:
                await gateway.ask_to_reconnect()
            elif kind == 2:
                await gateway.invalidate(resumable=True)
            else:
                await gateway.invalidate()
            self.events["gateway disturbances"] += 1

    async def _break(self) -> None:
        """Order faults so that about this share of requests meets one."""
        kinds: Sequence[dict[str, Any]] = (
            {"status": 500},
            {"status": 502},
            {"status": 503},
            {"status": 429, "retry_after": 0.3},
            {"status": 429, "headers": {"Retry-After": "1"}},
            {"drop": True},
            {"drop": True, "after": True},
            {"delay": 1.0},
        )
        while self.arguments.faults:
            await asyncio.sleep(self.random.expovariate(self.arguments.rate * 2 * self.arguments.faults))
            path = self.random.choice(["/callback", "/messages/@original", "/webhooks/"])
            self.discord.faults.due[:] = [fault for fault in self.discord.faults.due if fault.hits < fault.count]
            self.discord.faults.add("*", path, **self.random.choice(kinds))
            self.events["faults"] += 1

    # Figures

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            if not self._away.locked():
                await self._take_sample()

    async def _take_sample(self) -> None:
        bot = self.bot
        if bot is None or bot.exit_code is not None:
            return
        lines = len(bot.stdout)
        bot.signal(signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            await self.discord.changes.until(lambda: len(bot.stdout) > lines, within=5, what="tasks")
            told = next(line for line in reversed(bot.stdout) if line.startswith(PREFIX))
            process = Path(f"/proc/{bot.pid}")
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            sample = {
                "seconds": round(time.monotonic() - self.began),
                "requests": len(self.asked),
                "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
                "threads": int(status["Threads"]),
                "descriptors": len(list((process / "fd").iterdir())),
                "tasks": json.loads(told.removeprefix(PREFIX))["tasks"],
            }
            self.samples.append(sample)
            if self.arguments.verbose:
                print(" ".join(f"{name} {value:.0f}" for name, value in sample.items()), flush=True)

    def report(self) -> int:
        """Print the figures; returns how many requests were lost."""
        outcomes = collections.Counter(_outcome(each) for each in self.asked)
        lost = [each for each in self.asked if _outcome(each) == "lost"]
        print(f"asked {len(self.asked)} in {time.monotonic() - self.began:.0f} s, seed {self.arguments.seed}")
        print(f"acknowledged {sum(each.callback is not None for each in self.asked)}")
        for name in ("answered", "refused or told why not", "never acknowledged", "lost"):
            print(f"{name} {outcomes[name]}")
        for name, values in (("acknowledgement", self.acknowledgements), ("answer", self.latencies)):
            print(f"seconds to {name}: {_percentiles(values)}")
        print("done to it:", ", ".join(f"{name} {count}" for name, count in sorted(self.events.items())))
        print("exit codes:", dict(self.exit_codes))
        violations = collections.Counter(each.kind for each in self.discord.violations)
        print("violations of Discord's rules:", dict(violations) or "none")
        for each in self.samples[:: max(1, len(self.samples) // 12)] + self.samples[-1:]:
            print("  ", ", ".join(f"{name} {value:.0f}" for name, value in each.items()))
        for interaction in lost[:20]:
            print("  lost:", interaction, interaction.id)
        return len(lost)


def _button(message: Message) -> str | None:
    """The custom_id of a button that asks for more, if a message has one that can be pressed."""
    if message.deleted:
        return None
    wanted = (each for each in message.buttons if each.get("label") in {"1", "Re-roll"})
    return next((str(each["custom_id"]) for each in wanted if not each.get("disabled")), None)


def _final(interaction: Interaction) -> bool:
    """Whether nothing is owed any more: no "is thinking…", no growing answer, no promise."""
    if interaction.callback_type is None:
        return False
    if interaction.callback_type != DEFER_REPLY:
        return True
    original = interaction.original
    if original is None or original.deleted:
        return bool(interaction.followups)
    growing = any(component.get("custom_id", "").startswith("stop") for component in _components(original.components))
    return not original.loading and not growing and PROMISE not in original.text and original.text != "…"


def _components(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for component in tree:
        found.append(component)
        found += _components(component.get("components", []))
        found += _components([component["accessory"]] if "accessory" in component else [])
    return found


def _outcome(interaction: Interaction) -> str:
    if interaction.callback is None:
        return "never acknowledged"
    if not _final(interaction):
        return "lost"
    original = interaction.original
    if interaction.callback_type == DEFER_REPLY:
        refused = original is None or original.deleted or not (original.components or original.attachments)
        told = any(words in interaction.text for words in ("I was away", "I stopped unexpectedly", "I was restarted"))
        return "refused or told why not" if refused or told else "answered"
    plain = original is not None and original.ephemeral and not original.components
    return "refused or told why not" if plain else "answered"


def _percentiles(values: list[float]) -> str:
    if len(values) < 2:
        return "too few"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.2f}, p90 {cuts[89]:.2f}, p99 {cuts[98]:.2f}, most {max(values):.2f}"


async def _main(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        model = arguments.model or str(make_model(Path(folder) / "tiny-gpt2"))
        env = {"GPT2_MODEL": model, "GPT2_THREADS": "1", "JOURNAL": f"{folder}/journal", "FOLDER": folder}
        env |= dict(pair.split("=", 1) for pair in arguments.setting)
        async with LoopbackDiscord() as discord:
            soak = Soak(discord, arguments, env)
            await soak.run()
            return min(soak.report(), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long (600)")
    parser.add_argument("--requests", type=int, default=0, help="end after so many requests; 0 is no end (0)")
    parser.add_argument("--rate", type=float, default=2, help="requests a second (2)")
    parser.add_argument("--kill-every", type=float, default=30, metavar="S", help="kill -9, every so often; 0 is never")
    parser.add_argument("--term-every", type=float, default=70, metavar="S", help="SIGTERM; 0 is never (70)")
    parser.add_argument("--drop-every", type=float, default=20, metavar="S", help="gateway trouble; 0 is never (20)")
    parser.add_argument("--faults", type=float, default=0.1, help="HTTP faults for each request (0.1)")
    parser.add_argument("--model", help="a model; a tiny one with random weights by default")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="a setting of the bot")
    parser.add_argument("--seed", type=int, default=0, help="of the order of events (0)")
    parser.add_argument("--verbose", action="store_true", help="say how it is every 10 s")
    return parser


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_parser().parse_args())))
