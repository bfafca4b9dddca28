"""One engine of two threads compared with a cluster of two replicas of one thread each, on this machine.

    python benchmarks/cluster.py --model FOLDER --rounds 5

All run in processes of their own and take turns, so that a machine that slows down affects all; the first round warms
up. An engine of one thread shows what a replica's share of the machine does without the cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bot.cli.workloads import Workload
from bot.gpt2.cluster.engine import ClusterEngine
from bot.gpt2.requests import Progress
from bot.monitoring import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from bot.gpt2.engine import Engine
    from bot.gpt2.requests import ContinuationRequest

WORKLOADS: Final = (Workload(1, 1, 40), Workload(1, 5, 40), Workload(16, 5, 40))
LOCAL_TWO: Final = "one engine, 2 threads"
PROCESSES: Final = (
    "ServeReplica:gpt2:FrontEnd",
    "ProxyActor",
    "ServeController",
    "ServeReplica:gpt2:Replica",
    "raylet",
)
LOCAL_ONE: Final = "one engine, 1 thread"
CLUSTER: Final = "cluster, 2 replicas × 1 thread"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a workload: its duration, and the median of the times to the first token."""

    seconds: float
    first: float


async def measure(engine: Engine, workload: Workload) -> Measured:
    """Submit all requests at once and follow each as the bot does."""
    began, firsts = time.perf_counter(), []

    async def ask(number: int, request: ContinuationRequest) -> None:
        ticket = await engine.submit(request, owner=number)
        seen = False
        async for update in ticket.updates():
            if not seen and isinstance(update, Progress) and any(update.token_ids):
                firsts.append(time.perf_counter() - began)
                seen = True
        await ticket.result()

    await asyncio.gather(*(ask(number, request) for number, request in enumerate(workload.requests())))
    return Measured(time.perf_counter() - began, statistics.median(firsts or [time.perf_counter() - began]))


def serve(model: str, threads: int, pipe: Connection) -> None:
    """Run a local engine: receive workloads and send the measurements."""
    from bot.gpt2.local.engine import LocalEngine  # noqa: PLC0415 # only where it computes

    logs.configure("WARNING", "json")

    async def run() -> None:
        engine = LocalEngine(model, device="cpu", threads=threads)
        await engine.start()
        pipe.send(None)
        while workload := await asyncio.to_thread(pipe.recv):
            pipe.send(await measure(engine, workload))
        await engine.close()

    asyncio.run(run())


@contextlib.contextmanager
def local(model: str, threads: int) -> Iterator[Connection]:
    """Start that process and yield its pipe once it is ready."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(model, threads, there))
    process.start()
    here.recv()
    try:
        yield here
    finally:
        here.send(None)
        process.join()


@contextlib.contextmanager
def cluster(model: str) -> Iterator[str]:
    """Run `python -m bot cluster` and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", "cluster", "--model", model, "--replicas", "2", "--port", str(port)],
        env=os.environ | {"GPT2_THREADS": "1", "MEASURED": str(os.getpid())},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        for line in process.stdout or ():
            if line.startswith("Bots reach it"):
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def used(titles: tuple[str, ...], mark: str) -> tuple[float, float]:
    """Return CPU seconds and resident MiB of this cluster's processes with such titles, summed."""
    seconds = pages = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(each in title for each in titles) and mark.encode() in (folder / "environ").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                seconds += int(fields[11]) + int(fields[12])  # user and system time
                pages += int(fields[21])
    return seconds / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def run(model: str, rounds: int) -> str:
    """Measure everything and return the table."""
    names = (LOCAL_TWO, CLUSTER, LOCAL_ONE)
    mark = f"MEASURED={os.getpid()}"
    found: dict[tuple[str, Workload], list[Measured]] = {(name, each): [] for name in names for each in WORKLOADS}
    with local(model, 2) as two, local(model, 1) as one, cluster(model) as address:
        remote = ClusterEngine([address])
        await remote.start()

        async def ask(name: str, workload: Workload) -> Measured:
            if name == CLUSTER:
                return await measure(remote, workload)
            pipe = two if name == LOCAL_TWO else one
            pipe.send(workload)
            measured: Measured = await asyncio.to_thread(pipe.recv)
            return measured

        before = {title: used((title,), mark)[0] for title in PROCESSES}
        for number in range(rounds + 1):
            for workload in WORKLOADS:
                for name in names:
                    measured = await ask(name, workload)
                    if number:
                        found[name, workload].append(measured)
                    print(number, workload, name, measured, os.getloadavg()[0], file=sys.stderr)
        lines = []
        requests, tokens = (
            (rounds + 1) * sum(column)
            for column in zip(*((each.users, each.tokens) for each in WORKLOADS), strict=True)
        )
        for title in PROCESSES:
            seconds, mebibytes = used((title,), mark)
            took = seconds - before[title]
            lines.append(
                f"{title}: {mebibytes:.0f} MiB, {1e3 * took / requests:.1f} ms of CPU a request, "
                f"{1e6 * took / tokens:.0f} µs a token"
            )
        await remote.close()
    return "\n".join([table(found, rounds), "", *lines])


def table(found: dict[Any, list[Measured]], rounds: int) -> str:
    """Format as Markdown: tokens a second (ratio to the first engine), seconds to the first token."""
    lines = [
        f"median of {rounds} interleaved rounds: tokens/s (ratio), seconds to the first token",
        "",
        "| engine | " + " | ".join(map(str, WORKLOADS)) + " |",
        "| --- |" + " --- |" * len(WORKLOADS),
    ]
    for name in (LOCAL_TWO, CLUSTER, LOCAL_ONE):
        cells = []
        for workload in WORKLOADS:
            took = statistics.median(each.seconds for each in found[name, workload])
            base = statistics.median(each.seconds for each in found[LOCAL_TWO, workload])
            first = statistics.median(each.first for each in found[name, workload])
            cells.append(f"{workload.tokens / took:.1f} ({base / took:.2f}×), {first:.2f} s")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(arguments.model)
    model_name = str(folder.resolve()) if folder.is_dir() else arguments.model
    print(asyncio.run(run(model_name, arguments.rounds)))
