"""Drive the bot against a Discord on loopback for a given time, and inject faults meanwhile.

``python -m benchmarks.soak --seconds 600 --rate 2 --kill-every 30``

The bot runs in a process of its own, unchanged but for Discord's address. Users run commands, press buttons and make
mistakes. The process is killed or terminated; Discord drops connections, responds with 5xx and 429, and is slow.

The exit code is 1 if an acknowledged interaction got neither an answer nor a reason ("lost"), if the bot violated one
of Discord's rules and no injected fault explains it, if the bot ended or hung by itself, or if the soak failed. The
report is printed in any case. The first Ctrl-C ends the soak early and cleanly, the second one at once.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.soak_outcomes import InjectedFaults, button_for_more, final, outcome, percentiles
from tests.loopback import BotExitedError, BotProcess, LoopbackDiscord, RefusedByDiscord
from tests.loopback.inspected import END_OF_STACKS, PREFIX
from tests.models import make_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.loopback import Interaction

ENTRY = "tests.loopback.inspected:main"
SAMPLE_SECONDS = 10.0
DRAIN_SECONDS = 180.0
STOP_SECONDS = 60.0
STACK_LINES = 400  # of the log, with the stacks at its end
MAX_FAILED_STARTS = 5  # in a row
PROMPTS = (
    "ROMEO:",
    "Hello, I'm a language model,",
    "@everyone **bold** `code` $x^{$",
    "日本語 🎭 العربية \u202eabc",
    "To be, or not to be",
    "   ",
    "x" * 3000,
)


class Soak:
    """A run and its results."""

    def __init__(
        self,
        discord: LoopbackDiscord,
        arguments: argparse.Namespace,
        env: dict[str, str],
        models: Sequence[str] = (),
    ) -> None:
        self.discord = discord
        self.arguments = arguments
        self.env = env
        self.models = models  # the names of several models
        self.random = random.Random(arguments.seed)
        self.asked: list[Interaction] = []
        self.undelivered: set[int] = set()  # sent while the bot was not connected: Discord tells its user at once
        self.latencies: list[float] = []
        self.acknowledgements: list[float] = []
        self.samples: list[dict[str, float]] = []
        self.events: collections.Counter[str] = collections.Counter()
        self.exit_codes: collections.Counter[int] = collections.Counter()
        self.problems: list[str] = []  # faults of the bot or of the soak that no figure shows
        self.began = time.monotonic()
        self.bot: BotProcess | None = None
        self.logs: list[list[str]] = []  # of each process, in order
        self._interrupted = False
        self._watchers: set[asyncio.Task[None]] = set()
        self._replacing = asyncio.Lock()  # held while the process is being replaced

    @property
    def over(self) -> bool:
        """Return whether enough requests were sent."""
        most: int = self.arguments.requests
        enough = time.monotonic() - self.began > self.arguments.seconds or 0 < most <= len(self.asked)
        return enough or self._interrupted

    async def run(self) -> None:
        """Run from the first start to the last stop. Errors go to `problems`; nothing is raised."""
        helpers: list[asyncio.Task[None]] = []
        try:
            with self._interruptible():
                await self._start()
                helpers += [
                    asyncio.create_task(work)
                    for work in (
                        self._sample(),
                        self._inject_faults(),
                        self._every(self.arguments.kill_every, self._kill),
                        self._every(self.arguments.term_every, self._terminate),
                        self._every(self.arguments.drop_every, self._disturb_gateway),
                    )
                ]
                await self._drive(helpers)
                await self._drain(helpers)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 # the report is printed in any case
            self.problems.append(f"the soak broke off; what it calls lost may be late only:\n{traceback.format_exc()}")
        finally:
            for task in (*helpers, *self._watchers):
                task.cancel()
            await asyncio.gather(*helpers, *self._watchers, return_exceptions=True)
            await self._stop()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let a first Ctrl-C or SIGTERM end the soak early and a second one at once."""
        loop, whole = asyncio.get_running_loop(), asyncio.current_task()

        def handle() -> None:
            if self._interrupted and whole:
                whole.cancel()
            print("ending early; once more to end at once", file=sys.stderr)
            self._interrupted = True

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, handle)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _drive(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        while not self.over:
            await self._ask()
            await asyncio.sleep(self.random.expovariate(self.arguments.rate))
            for helper in helpers:
                if helper.done():
                    helper.result()  # raises its error
            if not self._replacing.locked():
                await self._revive()

    async def _drain(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        """Inject no more faults and let the bot answer its pending requests."""
        async with self._replacing:
            for helper in helpers:
                helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        self.discord.faults.clear()
        await self._revive()
        if self._watchers:
            await asyncio.wait(self._watchers, timeout=DRAIN_SECONDS)
        await self._take_sample()

    # Users

    async def _ask(self) -> None:
        live = self.discord.gateway.live()
        try:
            interaction = await self._random_action()
        except (RefusedByDiscord, RuntimeError):  # the button is gone, or the bot has no session yet
            self.events["not sent: the bot or the button was away"] += 1
            return
        self.asked.append(interaction)
        if not live:
            self.undelivered.add(interaction.id)
        task = asyncio.create_task(self._watch(interaction))
        self._watchers.add(task)
        task.add_done_callback(self._watched)

    def _watched(self, task: asyncio.Task[None]) -> None:
        self._watchers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.problems.append("".join(traceback.format_exception(error)))

    async def _random_action(self) -> Interaction:
        chance, user = self.random.random(), self.discord.user(f"user{self.random.randrange(50)}")
        if chance < 0.65:
            options: dict[str, Any] = {
                "prompt": self.random.choice(PROMPTS),
                "samples": self.random.randint(1, 4),
                "length": self.random.randint(1, 30),
                "private": self.random.random() < 0.2,
            }
            return await self.discord.slash("continue", options | self._model(), user=user)
        if chance < 0.80:
            return await self.discord.slash(
                "weights positional", {"positions": str(self.random.randint(5, 60))} | self._model(), user=user
            )
        if chance < 0.85:
            return await self.discord.slash("weights matrix", {"name": "nope", "rows": "9:1"}, user=user)
        if chance < 0.90:
            return await self.discord.slash(self.random.choice(["about", "help", "weights list"]), user=user)
        answers = [each.original for each in self.asked[-50:] if final(each)]
        pressable = [message for message in answers if message is not None and button_for_more(message)]
        if not pressable:
            return await self.discord.slash("about", user=user)
        message = self.random.choice(pressable)
        return await self.discord.component(message, button_for_more(message), user=message.viewer or user)

    def _model(self) -> dict[str, str]:
        """Return the option that chooses one of several models, now and then one that does not exist."""
        if len(self.models) < 2:
            return {}
        name = self.random.choice([*self.models, *self.models, *self.models, "no-such-model"])
        self.events[f"requests for {name}"] += 1
        return {"model": name}

    async def _watch(self, interaction: Interaction) -> None:
        changes = self.discord.changes
        with contextlib.suppress(TimeoutError):
            await changes.until(lambda: interaction.callback is not None, within=10, what="acknowledged")
        if interaction.seconds is None:
            return
        self.acknowledgements.append(interaction.seconds)
        with contextlib.suppress(TimeoutError):
            await changes.until(lambda: final(interaction), within=16 * 60, what="answered")
            self.latencies.append(asyncio.get_running_loop().time() - interaction.sent_at)

    # Faults

    async def _start(self) -> None:
        """Start the bot; retry if it exits at once.

        Raises:
            BotExitedError: Every start failed.
        """
        for attempt in range(1, MAX_FAILED_STARTS + 1):
            folder = Path(self.env["FOLDER"])
            self.bot = await BotProcess(self.discord, env=self.env, entry=ENTRY, cwd=folder, fresh=True).start()
            self.logs.append(self.bot.stderr)
            try:
                await self.bot.ready()
            except TimeoutError:
                self.events["starts that took over a minute"] += 1
                self.problems.append(f"a start took over a minute:\n{await self._stacks(self.bot)}")
                return
            except BotExitedError as error:
                self.exit_codes[self.bot.exit_code or 0] += 1
                self.bot = None
                self.events["starts that failed"] += 1
                print(str(error)[-2000:], file=sys.stderr)
                if attempt == MAX_FAILED_STARTS:
                    raise
                await asyncio.sleep(2)
            else:
                self.events["starts"] += 1
                return

    async def _every(self, seconds: float, action: Any) -> None:
        while seconds:
            await asyncio.sleep(seconds * self.random.uniform(0.7, 1.3))
            async with self._replacing:
                await action()

    async def _revive(self) -> None:
        """Restart a bot that has ended by itself, as a supervisor does; Ctrl-C at a terminal reaches it, too."""
        if self._ended_by_itself():
            async with self._replacing:
                await self._start()

    def _ended_by_itself(self) -> bool:
        """Return whether the bot has ended; note it as a problem unless the terminal interrupted it."""
        bot = self.bot
        if bot is None or bot.exit_code is None:
            return False
        self.bot = None
        self.exit_codes[bot.exit_code] += 1
        if bot.exit_code or not self._interrupted:
            self.problems.append(f"the bot ended by itself with {bot.exit_code}:\n" + "\n".join(bot.stderr[-30:]))
        return True

    async def _kill(self) -> None:
        if not self._ended_by_itself() and self.bot is not None:
            await self.bot.kill()
            self.exit_codes[self.bot.exit_code or 0] += 1
            self.events["kills"] += 1
        await self._start()

    async def _terminate(self) -> None:
        await self._stop()
        self.events["SIGTERMs"] += 1
        await self._start()

    async def _stop(self) -> None:
        if self._ended_by_itself() or self.bot is None:
            return
        bot = self.bot
        try:
            code = await bot.stop(within=STOP_SECONDS)
            if code:
                self.problems.append(f"the bot ended with {code} on SIGTERM:\n" + "\n".join(bot.stderr[-30:]))
        except TimeoutError:
            self.events["SIGTERMs that took over a minute"] += 1
            self.problems.append(f"a SIGTERM took over a minute:\n{await self._stacks(bot)}")
            bot.signal(signal.SIGKILL)
            code = await bot.wait()
        self.exit_codes[code] += 1
        self.bot = None

    async def _stacks(self, bot: BotProcess) -> str:
        """Return the end of the bot's log, with the stacks of its threads and tasks."""
        before = bot.stderr.count(END_OF_STACKS)
        bot.signal(signal.SIGUSR2)
        with contextlib.suppress(TimeoutError):  # a stuck interpreter reports its threads but not its tasks
            await self.discord.changes.until(
                lambda: bot.exit_code is not None or bot.stderr.count(END_OF_STACKS) > before, within=10, what="stacks"
            )
        return "\n".join(bot.stderr[-STACK_LINES:])

    async def _disturb_gateway(self) -> None:
        gateway, kind = self.discord.gateway, self.random.randrange(4)
        with contextlib.suppress(RuntimeError):  # it is not connected
            if kind == 0:
                gateway.drop()
            elif kind == 1:
                await gateway.ask_to_reconnect()
            elif kind == 2:
                await gateway.invalidate(resumable=True)
            else:
                await gateway.invalidate()
            self.events["gateway disturbances"] += 1

    async def _inject_faults(self) -> None:
        """Inject faults so that about the given share of requests meets one."""
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
            if not self._replacing.locked():
                await self._take_sample()

    async def _take_sample(self) -> None:
        bot = self.bot
        if bot is None or bot.exit_code is not None:
            return

        def latest() -> str | None:
            return next((line for line in reversed(bot.stdout) if line.startswith(PREFIX)), None)

        before = latest()
        bot.signal(signal.SIGUSR1)
        with contextlib.suppress(
            TimeoutError, FileNotFoundError, ProcessLookupError, KeyError
        ):  # the process is ending
            await self.discord.changes.until(lambda: latest() != before, within=5, what="tasks")
            process = Path(f"/proc/{bot.pid}")
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            sample = {
                "seconds": round(time.monotonic() - self.began),
                "requests": len(self.asked),
                "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
                "threads": int(status["Threads"]),
                "descriptors": len(list((process / "fd").iterdir())),
                "tasks": json.loads(str(latest()).removeprefix(PREFIX))["tasks"],
            }
            self.samples.append(sample)
            if self.arguments.verbose:
                print(" ".join(f"{name} {value:.0f}" for name, value in sample.items()), flush=True)

    def report(self) -> int:
        """Print the figures and return the exit code."""
        outcomes = collections.Counter(outcome(each) for each in self.asked)
        lost = [each for each in self.asked if outcome(each) == "lost"]
        print(f"asked {len(self.asked)} in {time.monotonic() - self.began:.0f} s, seed {self.arguments.seed}")
        print(f"acknowledged {sum(each.callback is not None for each in self.asked)}")
        away = sum(each.callback is None and each.id in self.undelivered for each in self.asked)
        print(f"never acknowledged, for the bot was away: {away}")
        for name in ("answered", "refused or told why not", "never acknowledged", "lost"):
            print(f"{name} {outcomes[name]}")
        for name, values in (("acknowledgement", self.acknowledgements), ("answer", self.latencies)):
            print(f"seconds to {name}: {percentiles(values)}")
        print("done to it:", ", ".join(f"{name} {count}" for name, count in sorted(self.events.items())))
        print("exit codes:", dict(self.exit_codes))
        faults = InjectedFaults(self.discord)
        own = [each for each in self.discord.violations if not faults.explains(each)]
        for name, violations in (
            ("that the faults ordered led to", [each for each in self.discord.violations if each not in own]),
            ("of the bot's own", own),
        ):
            kinds = collections.Counter(each.kind for each in violations)
            print(f"violations of Discord's rules {name}:", dict(kinds) or "none")
        for each in self.samples[:: max(1, len(self.samples) // 12)] + self.samples[-1:]:
            print("  ", ", ".join(f"{name} {value:.0f}" for name, value in each.items()))
        for interaction in lost[:20]:
            print("  lost:", interaction, interaction.id)
            for line in self._story(interaction):
                print("    ", line)
        for violation in own[:20]:
            print("  its own:", violation)
        for problem in self.problems[:20]:
            print("  problem:", problem.replace("\n", "\n    "))
        return int(bool(lost or own or self.problems))

    def _story(self, interaction: Interaction) -> Iterator[str]:
        """Yield the bot's HTTP requests for an interaction, and the log lines that mention it."""
        for each in self.discord.requests:
            if interaction.token in each.path:
                answered = f"{each.status}, {each.seconds:.2f} s" if each.seconds is not None else "no answer"
                path = each.path.replace(interaction.token, "…")
                after = each.at - interaction.sent_at
                yield f"{after:8.2f} s {each.method} {path}: {answered} {each.fault or ''}"
        for number, lines in enumerate(self.logs):
            yield from (f"process {number}: {line}" for line in lines if str(interaction.id) in line)


async def _main(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        made = [
            str(make_model(Path(folder) / f"tiny-gpt2-{number}", layers=number + 2, seed=number + 6))
            for number in range(1, arguments.models + (0 if arguments.model else 1))
        ]
        models = [arguments.model, *made] if arguments.model else made
        env = {"GPT2_MODEL": models[0], "GPT2_THREADS": "1", "JOURNAL": f"{folder}/journal", "FOLDER": folder}
        if len(models) > 1:
            env["GPT2_MODELS"] = ",".join(models)
        env |= dict(pair.split("=", 1) for pair in arguments.setting)
        async with LoopbackDiscord() as discord:
            soak = Soak(discord, arguments, env, [Path(model).name for model in models])
            try:
                await soak.run()
            finally:
                code = soak.report()
            return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="duration (600)")
    parser.add_argument("--requests", type=int, default=0, help="end after so many requests; 0 is unlimited (0)")
    parser.add_argument("--rate", type=float, default=2, help="requests a second (2)")
    parser.add_argument(
        "--kill-every", type=float, default=30, metavar="S", help="seconds between kill -9; 0 is never (30)"
    )
    parser.add_argument("--term-every", type=float, default=70, metavar="S", help="SIGTERM; 0 is never (70)")
    parser.add_argument("--drop-every", type=float, default=20, metavar="S", help="gateway trouble; 0 is never (20)")
    parser.add_argument("--faults", type=float, default=0.1, help="HTTP faults for each request (0.1)")
    parser.add_argument("--model", help="a model; a tiny one with random weights by default")
    parser.add_argument("--models", type=int, default=1, metavar="N", help="how many models in one bot (1)")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="a setting of the bot")
    parser.add_argument("--seed", type=int, default=0, help="of the order of events (0)")
    parser.add_argument("--verbose", action="store_true", help="print a sample every 10 s")
    return parser


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_parser().parse_args())))
