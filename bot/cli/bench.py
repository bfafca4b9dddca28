"""`python -m bot bench`: this engine compared with Transformers' `generate` on this machine.

Every engine runs in a process of its own, and the measurements are interleaved, so that a machine that slows down
affects all engines. The ratios of the medians count. `benchmarks.compare` adds more engines.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from tqdm import tqdm

from bot.cli import gallery
from bot.errors import ExitCode, ModelInvalidError
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.installation import program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.config import Settings

PROMPT: Final = "Hello, I'm a language model,"
SECOND_PROMPT: Final = "Hello, I'm a language teacher,"
BASELINE: Final = "transformers"
ENGINES: Final = (BASELINE, "bot")
"""The measured engines; `bot.cli.bench_baselines` builds them."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A number of equal requests that arrive at once.

    Attributes:
        users: Number of requests.
        samples: Samples of each request.
        length: New tokens of each sample.
    """

    users: int
    samples: int
    length: int

    def __str__(self) -> str:
        """Describe it for a heading: users if several, samples, length."""
        one = f"{self.samples} × {self.length}"
        return one if self.users == 1 else f"{self.users} users × {one}"

    @property
    def tokens(self) -> int:
        """Number of new tokens in all."""
        return self.users * self.samples * self.length

    def requests(self) -> list[ContinuationRequest]:
        """Return the requests, which differ in seed and prompt only."""
        return [
            ContinuationRequest(f"{PROMPT} number {seed}", SamplingParams(seed, self.samples, self.length))
            for seed in range(self.users)
        ]


class Run(NamedTuple):
    """One measurement of a workload."""

    seconds: float
    acceptance: float | None  # the share of drafted tokens that were right; None without drafts


WORKLOADS: Final = (Workload(1, 1, 22), Workload(1, 5, 22), Workload(16, 5, 40))


def bench(
    settings: Settings,
    *,
    rounds: int,
    engines: Sequence[str] = ENGINES,
    process: str = "bot.cli.bench_baselines",
) -> ExitCode:
    """Measure, and print a table in Markdown.

    Args:
        settings: The model, and how to compute with it.
        rounds: Number of measurements of each workload.
        engines: Their names, the baseline among them.
        process: The module that runs an engine, see `EngineProcess`.

    Raises:
        OperatorError: The model cannot be loaded.
    """
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(contextlib.closing(EngineProcess(engine, settings, process))) for engine in engines
        ]
        for each in processes:
            each.wait_until_ready()
        runs = _measure(processes, rounds)
        memory = {each.engine: each.peak_megabytes() for each in processes}
    print(_report(settings, runs, memory, rounds))
    return ExitCode.OK


async def bench_pictures(settings: Settings, *, rounds: int) -> ExitCode:
    """Measure the time for each picture of the gallery, from the question to the PNG, and print a table in Markdown.

    Raises:
        OperatorError: The model cannot be loaded.
    """
    async with gallery.opened(settings) as (engine, renderer):
        model, continuation = await engine.model(), await gallery.sampled(engine, PROMPT)
        made = [
            (piece.name, await piece.exhibit()) for piece in gallery.pieces(engine, model, continuation, SECOND_PROMPT)
        ]
        seconds: dict[str, list[float]] = {name: [] for name, _ in made}
        size: dict[str, int] = {}
        for number in range(rounds + 1):
            for name, exhibit in tqdm(made, unit="picture", disable=None):
                began = time.perf_counter()
                size[name] = len((await exhibit.render(engine, renderer)).file)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
    print(_picture_report(settings, seconds, size, rounds))
    return ExitCode.OK


def _picture_report(settings: Settings, seconds: dict[str, list[float]], size: dict[str, int], rounds: int) -> str:
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    worst = max(time for times in seconds.values() for time in times)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join(
        [
            f"{settings.gpt2_model}, {machine}, {rounds} rounds after one to warm up; from the question to the PNG",
            "",
            "| picture | median | worst | size |",
            "| --- | --- | --- | --- |",
            *(
                f"| {name} | {medians[name]:.2f} s | {max(times):.2f} s | {size[name] / 1000:.0f} KB |"
                for name, times in seconds.items()
            ),
            "",
            f"The median picture takes {statistics.median(medians.values()):.2f} s, the slowest {worst:.2f} s.",
        ]
    )


def _measure(processes: Sequence[EngineProcess], rounds: int) -> dict[tuple[str, Workload], list[Run]]:
    runs: dict[tuple[str, Workload], list[Run]] = {
        (each.engine, workload): [] for each in processes for workload in WORKLOADS
    }
    with tqdm(total=(rounds + 1) * len(runs), unit="run", disable=None) as bar:
        for number in range(rounds + 1):
            for workload in WORKLOADS:
                for each in processes:
                    bar.set_description(f"{each.engine}, {workload}")
                    run = each.run(workload)
                    if number:  # the first round warms up
                        runs[each.engine, workload].append(run)
                    bar.update()
    return runs


def _report(
    settings: Settings,
    runs: dict[tuple[str, Workload], list[Run]],
    memory: dict[str, float],
    rounds: int,
) -> str:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    title = (
        f"{settings.gpt2_model}, {settings.gpt2_precision}, {machine}, median of {rounds} interleaved rounds; "
        "tokens/s (ratio to Transformers' generate, share of drafts accepted)"
    )
    lines = [
        title,
        "",
        "| engine | " + " | ".join(map(str, WORKLOADS)) + " | peak RSS |",
        "| --- |" + " --- |" * (len(WORKLOADS) + 1),
    ]
    seconds = {key: statistics.median(run.seconds for run in each) for key, each in runs.items()}
    for engine, megabytes in memory.items():
        cells = [
            f"{workload.tokens / seconds[engine, workload]:.1f} "
            f"({seconds[BASELINE, workload] / seconds[engine, workload]:.2f}×{_acceptance(runs[engine, workload])})"
            for workload in WORKLOADS
        ]
        lines.append(f"| {engine} | " + " | ".join(cells) + f" | {megabytes:.0f} MiB |")
    return "\n".join(lines)


def _acceptance(runs: Sequence[Run]) -> str:
    shares = [run.acceptance for run in runs if run.acceptance is not None]
    return f", {statistics.median(shares):.0%} of drafts" if shares else ""


class EngineProcess:
    """An engine in a process of its own, with one JSON value a line on its standard input and output."""

    def __init__(self, engine: str, settings: Settings, module: str) -> None:
        self.engine = engine
        self._process = subprocess.Popen(  # noqa: S603 # this Python
            [
                sys.executable,
                "-m",
                module,
                engine,
                settings.gpt2_model,
                str(settings.gpt2_threads),
                settings.gpt2_precision,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            ModelInvalidError: It cannot be loaded.
        """
        self._answer()

    def run(self, workload: Workload) -> Run:
        """Compute a workload."""
        return Run(*self._ask([workload.users, workload.samples, workload.length]))

    def peak_megabytes(self) -> float:
        """Return the process's peak resident set."""
        return float(self._ask("memory"))

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()  # waits, and closes the pipes

    def _ask(self, question: Any) -> Any:
        _pipe(self._process.stdin).write(json.dumps(question) + "\n")
        _pipe(self._process.stdin).flush()
        return self._answer()

    def _answer(self) -> Any:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise ModelInvalidError(f"The process that measures {self.engine} ended; `{program()} check` may say why.")
        return json.loads(line)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:  # pragma: no cover # Popen opened pipes
        raise RuntimeError("the process has no pipe")
    return pipe
