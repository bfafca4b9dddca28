"""`python -m bot bench`: this engine against Transformers' `generate` and other peers, on this machine.

Every engine runs in a process of its own and the measurements take turns, so that a machine that slows down slows
down everyone. What counts are the ratios of the medians.
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
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from tqdm import tqdm

from bot.cli import gallery
from bot.errors import ExitCode, HostError, ModelInvalidError
from bot.gpt2.requests import ContinuationRequest
from bot.monitoring import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.config import Precision, Settings

PROMPT: Final = "Hello, I'm a language model,"
SECOND: Final = "Hello, I'm a language teacher,"
BASELINE: Final = "transformers"
ENGINES: Final = {BASELINE: "transformers", "ctranslate2": "ctranslate2", "llama.cpp": "llama_cpp", "bot": "bot"}
"""What can be measured, and the package that it takes; `bot.cli.bench_baselines` has how."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured.

    Attributes:
        users: Requests that come at the same moment.
        samples: Of each request.
        length: New tokens of each sample.
    """

    users: int
    samples: int
    length: int

    def __str__(self) -> str:
        """As a heading: users, samples, length; the users only where there are several."""
        one = f"{self.samples} × {self.length}"
        return one if self.users == 1 else f"{self.users} users × {one}"

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.users * self.samples * self.length

    def requests(self) -> list[ContinuationRequest]:
        """The requests, alike but for seed and prompt."""
        return [
            ContinuationRequest(f"{PROMPT} number {seed}", seed, self.samples, self.length)
            for seed in range(self.users)
        ]


WORKLOADS: Final = (Workload(1, 1, 22), Workload(1, 5, 22), Workload(16, 5, 40))


def bench(settings: Settings, *, rounds: int) -> ExitCode:
    """Measure, and print a table in Markdown.

    Raises:
        HostError: The model cannot be loaded.
    """
    engines = [name for name, package in ENGINES.items() if find_spec(package)]
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(contextlib.closing(Peer(engine, settings))) for engine in engines]
        for peer in peers:
            peer.wait_until_ready()
        seconds = _measure(peers, rounds)
        memory = {peer.engine: peer.peak_megabytes() for peer in peers}
    print(_report(settings, seconds, memory, rounds))
    return ExitCode.OK


async def bench_pictures(settings: Settings, *, rounds: int) -> ExitCode:
    """Measure how long each picture of the gallery takes, from the question to the PNG, and print a table in Markdown.

    Raises:
        HostError: The model cannot be loaded.
    """
    async with gallery.opened(settings) as (engine, renderer):
        model, continuation = await engine.model(), await gallery.sampled(engine, PROMPT)
        made = [(piece.name, await piece.exhibit()) for piece in gallery.pieces(engine, model, continuation, SECOND)]
        seconds: dict[str, list[float]] = {name: [] for name, _ in made}
        size: dict[str, int] = {}
        for number in range(rounds + 1):
            for name, exhibit in tqdm(made, unit="picture", disable=None):
                began = time.perf_counter()
                size[name] = len((await exhibit.render(engine, renderer)).png)
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


def _measure(peers: Sequence[Peer], rounds: int) -> dict[tuple[str, Workload], list[float]]:
    seconds: dict[tuple[str, Workload], list[float]] = {
        (peer.engine, workload): [] for peer in peers for workload in WORKLOADS
    }
    with tqdm(total=(rounds + 1) * len(seconds), unit="run", disable=None) as bar:
        for number in range(rounds + 1):
            for workload in WORKLOADS:
                for peer in peers:
                    bar.set_description(f"{peer.engine}, {workload}")
                    took = peer.run(workload)
                    if number:  # the first round warms up
                        seconds[peer.engine, workload].append(took)
                    bar.update()
    return seconds


def _report(
    settings: Settings,
    seconds: dict[tuple[str, Workload], list[float]],
    memory: dict[str, float],
    rounds: int,
) -> str:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    title = (
        f"{settings.gpt2_model}, {settings.gpt2_precision}, {machine}, median of {rounds} interleaved rounds; "
        "tokens/s (ratio to Transformers' generate)"
    )
    lines = [
        title,
        "",
        "| engine | " + " | ".join(map(str, WORKLOADS)) + " | peak RSS |",
        "| --- |" + " --- |" * (len(WORKLOADS) + 1),
    ]
    for engine, megabytes in memory.items():
        cells = []
        for workload in WORKLOADS:
            median = statistics.median(seconds[engine, workload])
            ratio = statistics.median(seconds[BASELINE, workload]) / median
            cells.append(f"{workload.tokens / median:.1f} ({ratio:.2f}×)")
        lines.append(f"| {engine} | " + " | ".join(cells) + f" | {megabytes:.0f} MiB |")
    return "\n".join(lines)


class Peer:
    """One engine in a process of its own, asked over its standard input and output, a JSON value a line."""

    def __init__(self, engine: str, settings: Settings) -> None:
        self.engine = engine
        self._process = subprocess.Popen(  # noqa: S603 # this program itself
            [
                sys.executable,
                "-m",
                "bot.cli.bench",
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
            ModelInvalidError: It cannot be.
        """
        self._answer()

    def run(self, workload: Workload) -> float:
        """Seconds for a workload."""
        return float(self._ask([workload.users, workload.samples, workload.length]))

    def peak_megabytes(self) -> float:
        """The process's largest resident set so far."""
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
            raise ModelInvalidError(
                f"The process that measures {self.engine} ended; `python -m bot check` may say why."
            )
        return json.loads(line)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:  # pragma: no cover # Popen was asked for pipes
        raise RuntimeError("the process has no pipe")
    return pipe


def _serve(engine: str, model: str, threads: int, precision: Precision) -> None:
    """The measured process: answers until its standard input ends."""
    import torch  # noqa: PLC0415

    from bot.cli.bench_baselines import BUILDERS  # noqa: PLC0415 # it imports PyTorch, for which the parent has no use

    logs.configure("WARNING", "json")  # on standard error, away from the answers
    if threads:
        torch.set_num_threads(threads)
    compute = BUILDERS[engine](model, torch.get_num_threads(), precision)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question == "memory":
            print(json.dumps(_peak_megabytes()), flush=True)
            continue
        began = time.perf_counter()
        compute(Workload(*question).requests())
        print(json.dumps(time.perf_counter() - began), flush=True)


def _peak_megabytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource  # noqa: PLC0415 # neither is on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    try:
        _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), "float16" if sys.argv[4] == "float16" else "float32")
    except HostError as error:
        sys.exit(str(error))
