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
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from tqdm import tqdm

from bot.cli import gallery
from bot.cli.workloads import PROMPT, WORKLOADS
from bot.errors import ExitCode, ModelInvalidError
from bot.gpt2.local.threads import limit_spinning
from bot.installation import program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.cli.workloads import Workload
    from bot.config import Settings

SECOND_PROMPT: Final = "Hello, I'm a language teacher,"
BASELINE: Final = "transformers"
ENGINES: Final = (BASELINE, "bot")
"""The measured engines; `bot.cli.bench_baselines` builds them."""


class Run(NamedTuple):
    """One measurement of a workload."""

    seconds: float
    acceptance: float | None  # the share of drafted tokens that were right; None without drafts


class Peak(NamedTuple):
    """The most memory that a process held, in MiB."""

    resident: float
    gpu: float | None  # None if PyTorch's allocator held none there


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
        processes, gpus = [], []
        for engine in engines:  # one after another: some measure the machine when they start
            processes.append(stack.enter_context(contextlib.closing(EngineProcess(engine, settings, process))))
            gpus.append(processes[-1].wait_until_ready())
        runs = _measure(processes, rounds)
        memory = {each.engine: each.peak() for each in processes}
    print(_report(settings, runs, memory, rounds, gpus[0]))
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
    memory: dict[str, Peak],
    rounds: int,
    gpu: str | None,
) -> str:
    machine = f"{gpu or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    title = (
        f"{settings.gpt2_model}, {settings.gpt2_precision}, {machine}, median of {rounds} interleaved rounds; "
        "tokens/s (ratio to Transformers' generate, share of drafts accepted)"
    )
    columns = ["engine", *map(str, WORKLOADS), "peak RSS", *(["peak GPU memory"] if gpu else [])]
    lines = [title, "", _row(columns), _row(["---"] * len(columns))]
    seconds = {key: statistics.median(run.seconds for run in each) for key, each in runs.items()}
    for engine, peak in memory.items():
        cells = [
            f"{workload.tokens / seconds[engine, workload]:.1f} "
            f"({seconds[BASELINE, workload] / seconds[engine, workload]:.2f}×{_acceptance(runs[engine, workload])})"
            for workload in WORKLOADS
        ]
        held = [peak.resident, peak.gpu] if gpu else [peak.resident]
        sizes = ["–" if size is None else f"{size:.0f} MiB" for size in held]
        lines.append(_row([engine, *cells, *sizes]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _acceptance(runs: Sequence[Run]) -> str:
    shares = [run.acceptance for run in runs if run.acceptance is not None]
    return f", {statistics.median(shares):.0%} of drafts" if shares else ""


class EngineProcess:
    """An engine in a process of its own, with one JSON value a line on its standard input and output."""

    def __init__(self, engine: str, settings: Settings, module: str) -> None:
        self.engine = engine
        environment = dict(os.environ)
        if engine == "bot":
            limit_spinning(environment)  # as `python -m bot run` does
        self._process = subprocess.Popen(  # noqa: S603 # this Python
            [
                sys.executable,
                "-m",
                module,
                engine,
                settings.gpt2_model,
                settings.gpt2_device,
                settings.gpt2_precision,
                str(settings.gpt2_threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def wait_until_ready(self) -> str | None:
        """Wait until the model is loaded, and return the name of the GPU that computes, None on the CPU.

        Raises:
            ModelInvalidError: It cannot be loaded.
        """
        name: str | None = self._answer()
        return name

    def run(self, workload: Workload) -> Run:
        """Compute a workload."""
        return Run(*self._ask([workload.users, workload.samples, workload.length]))

    def peak(self) -> Peak:
        """Return the most memory that the process has held so far."""
        return Peak(*self._ask("memory"))

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
