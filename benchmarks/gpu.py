"""One command that checks and measures this engine on a fresh machine with a GPU, within a few minutes.

    python -m benchmarks.gpu

prints a report in Markdown, section by section, and exits with 1 if samples are not Transformers', depend on other
requests, or a section fails. It makes its own models, of GPT-2's sizes with random weights, and needs no network and
no package but the engine's. `--device cpu --quick` tries the command itself, with tiny models.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from benchmarks import equality
from benchmarks.gpu_machine import LARGE, QUICK, SMALL, Machine, Scale, timed
from benchmarks.gpu_speed import speed
from bot.cli.workloads import PROMPT
from bot.gpt2.local.slots import SlotRunner
from bot.gpt2.model import files
from bot.gpt2.questions import (
    AblationQuestion,
    AttentionQuestion,
    InductionQuestion,
    InsightsQuestion,
    LensQuestion,
    NextTokensQuestion,
    SurpriseQuestion,
)
from bot.gpt2.requests import ContinuationRequest, Progress, SamplingParams
from bot.monitoring import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from bot.gpt2.local.engine import LocalEngine
    from bot.gpt2.local.slot_group import SlotGroup
    from bot.gpt2.questions import Question

CROWD: Final = 9  # users beside the one whose tokens must not change
CROWDS_LONGEST: Final = 30  # new tokens of their samples
NEIGHBOURS: Final = 95  # rows beside the one whose logits must not change
STEPS: Final = 60  # passes of which the logits are compared


async def environment(machine: Machine) -> list[str]:
    """Name the device and the versions."""
    name = f"{platform.machine()}, {os.cpu_count()} cores"
    if machine.cuda:
        properties = torch.cuda.get_device_properties(0)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, driver {_driver()}; {name}"
    versions = (
        f"Python {platform.python_version()}, PyTorch {torch.__version__} (CUDA {torch.version.cuda}), "
        f"Transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    )
    return [name, versions]


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if not shutil.which(command[0]):
        return "unknown"
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition("\n")[0]


async def start(machine: Machine) -> list[str]:
    """Measure the time until an engine is ready, and its memory then and after a crowd."""
    lines, crowd = [], machine.scale.workloads[-1]
    for name in (LARGE, SMALL):  # the small one stays open for the next section
        machine.model(name)
        await machine.close()
        before = machine.reserved()
        if machine.cuda:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        engine = await machine.engine(name)
        seconds = time.perf_counter() - began
        ready = machine.reserved(peak=True) - before
        _, first = await timed(engine, machine.scale.workloads[0].requests())
        await timed(engine, crowd.requests())
        peak = machine.reserved(peak=True) - before
        memory = f"; GPU memory {ready:.0f} MiB, at most {peak:.0f} MiB with {crowd}" if machine.cuda else ""
        lines.append(f"{name}: ready in {seconds:.1f} s, first request in {first:.2f} s{memory}")
    return lines


async def exactness(machine: Machine) -> list[str]:
    """Compare mixed requests with Transformers."""
    lines = []
    for name, count in zip((SMALL, files.SHIPPED), machine.scale.requests, strict=True):
        requests = [equality.random_request(number, machine.scale.longest) for number in range(count)]
        engine, baseline = await machine.engine(name), machine.transformers(name)
        for comparison in await equality.compare(requests, engine, baseline):
            lines.append(f"{name}, {comparison}")
            if comparison.different:
                machine.faults.append(f"{name}, {comparison.way}: {len(comparison.different)} differ from Transformers")
        del baseline
        machine.collect()
    return lines


async def independence(machine: Machine) -> list[str]:
    """Compare the tokens of requests alone with the same beside others that join and leave."""
    engine = await machine.engine(SMALL)
    different = tokens = ended = 0
    for seed in range(machine.scale.alone):
        params = SamplingParams(seed, 1, machine.scale.lonely_length, temperature=2.0, top_k=0)
        request = ContinuationRequest(PROMPT, params)
        alone = await engine.continuation(request, owner="alone")
        async with _crowd(engine, seed) as answered:
            together = await engine.continuation(request, owner="alone")
            ended += len(answered)
        tokens += alone.new_tokens
        different += alone.samples[0].token_ids != together.samples[0].token_ids
    if different:
        machine.faults.append(f"{different} of {machine.scale.alone} requests depend on others")
    equal = f"{machine.scale.alone - different} of {machine.scale.alone} requests, {tokens} tokens, are the same"
    lines = [f"{equal} alone and beside {CROWD} users, of whose requests {ended} ended meanwhile"]
    if isinstance(runner := engine.runner, SlotRunner):
        # The last of the crowd, or else two threads would use the runner.
        while engine.statistics.computing:  # noqa: ASYNC110 # the engine has no event for it
            await asyncio.sleep(0.01)
        unequal = _unequal_logits(runner)
        if unequal:
            machine.faults.append(f"the logits of {unequal} of {STEPS} passes depend on the other rows")
        lines.append(
            f"{STEPS - unequal} of {STEPS} passes give a row the same bits alone and among {NEIGHBOURS} others"
        )
    return lines


def _unequal_logits(runner: SlotRunner) -> int:
    """Return in how many passes the logits of a row are other bits among `NEIGHBOURS` others than alone."""

    def logits(groups: list[SlotGroup]) -> list[torch.Tensor]:
        rows = []
        for _ in range(STEPS):
            before = sum(group.next_chunk or group.rows for group in groups[:-1] if not group.finished)
            row = before + max(groups[-1].next_chunk, 1) - 1
            runner.advance(groups)
            rows.append(runner.logits[row].clone())
        for group in groups:
            group.release()
        return rows

    def started(number: int) -> SlotGroup:
        return runner.start([number, number + 1], ContinuationRequest(PROMPT, SamplingParams(number, 1, STEPS)))

    alone = logits([started(0)])
    crowd = logits([*(started(number) for number in range(1, NEIGHBOURS + 1)), started(0)])
    return sum(not torch.equal(*pair) for pair in zip(alone, crowd, strict=True))


@contextlib.asynccontextmanager
async def _crowd(engine: LocalEngine, seed: int) -> AsyncIterator[list[int]]:
    """Have `CROWD` users ask one mixed request after another, and yield the numbers of those that are answered."""
    answered: list[int] = []

    async def keep_asking(number: int) -> None:
        while True:
            await engine.continuation(equality.random_request(number, CROWDS_LONGEST), owner=number)
            answered.append(number)
            number += 1

    users = [asyncio.create_task(keep_asking(1000 * seed + 100 * user)) for user in range(CROWD)]
    yield answered
    for user in users:
        user.cancel()
    for outcome in await asyncio.gather(*users, return_exceptions=True):
        if isinstance(outcome, Exception):  # a cancellation is none
            raise outcome


async def stalls(machine: Machine) -> list[str]:
    """Measure the longest pause of a stream beside questions."""
    engine, prompt = await machine.engine(SMALL), machine.long_prompt()
    questions: list[Question[Any]] = [
        AttentionQuestion(prompt),
        LensQuestion(prompt, last=40),
        SurpriseQuestion(prompt),
        AblationQuestion(prompt, heads=((1, 1), (2, 2))),
        NextTokensQuestion(prompt),
        InductionQuestion(50),
        InsightsQuestion(prompt, tuple(f" {word} and so on" for word in "abcde")),
    ]
    request = machine.scale.stream.requests()[0]
    await engine.continuation(request)  # warms up
    lines = []
    for question in (None, *questions):
        answers: list[float] = []
        asking = asyncio.create_task(_ask(engine, question, answers)) if question else None
        gap, tokens = await _largest_gap(engine, request)
        name = type(question).__name__ if question else "without questions"
        line = f"{name}: largest gap {1000 * gap:.0f} ms in {tokens} tokens"
        if asking:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            times = f", first in {1000 * answers[0]:.0f} ms" if answers else ""
            line += f"; {len(answers)} answers{times}"
        lines.append(line)
    return lines


async def _ask(engine: LocalEngine, question: Question[Any], answers: list[float]) -> None:
    """Ask a question again and again until cancelled, and note the seconds of each answer."""
    while True:
        began = time.perf_counter()
        await engine.introspect(question, owner="asking")
        answers.append(time.perf_counter() - began)


async def _largest_gap(engine: LocalEngine, request: ContinuationRequest) -> tuple[float, int]:
    """Return the seconds between two updates with new tokens, at most, and the number of tokens."""
    largest, last, tokens = 0.0, 0.0, 0

    def note(now_tokens: int) -> None:
        nonlocal largest, last, tokens
        now = time.perf_counter()
        if now_tokens > tokens:
            largest = max(largest, now - last if tokens else 0.0)
            last, tokens = now, now_tokens

    ticket = await engine.submit(request, owner="stream")
    async for update in ticket.updates():
        if isinstance(update, Progress):
            note(sum(map(len, update.token_ids)))
    note((await ticket.result()).new_tokens)
    return largest, tokens


SECTIONS: Final[dict[str, Callable[[Machine], Awaitable[list[str]]]]] = {
    "environment": environment,
    "start": start,
    "equality": exactness,
    "independence": independence,
    "stalls": stalls,
    "speed": speed,
}


async def report(machine: Machine, names: Sequence[str]) -> bool:
    """Print each section when it is done, and return whether all is exact and no section failed."""
    times = {}
    for name in names:
        began = time.perf_counter()
        try:
            lines = await SECTIONS[name](machine)
        except Exception as error:  # noqa: BLE001 # the other sections may tell more
            machine.faults.append(f"{name} failed: {error!r}")
            lines = ["```", *traceback.format_exc().splitlines(), "```"]
        times[name] = time.perf_counter() - began
        marked = lines if any(line.startswith(("|", "```")) for line in lines) else [f"- {line}" for line in lines]
        print(f"\n## {name.capitalize()}", "", *marked, sep="\n", flush=True)
    await machine.close()
    seconds = ", ".join(f"{name} {each:.1f} s" for name, each in times.items())
    print("\n## Verdict", "", f"Time: {seconds}.", "", *(machine.faults or ["No fault."]), sep="\n", flush=True)
    return not machine.faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto is CUDA if there is any"
    )
    parser.add_argument("--only", metavar="SECTIONS", help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (3)")
    parser.add_argument("--requests", type=int, help="compared with Transformers, of each model")
    parser.add_argument("--quick", action="store_true", help="tiny models, and little of everything")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else [*SECTIONS]
    if unknown := set(names) - SECTIONS.keys():
        parser.error(f"no section {', '.join(sorted(unknown))}")
    scale = QUICK if options.quick else Scale()
    if options.requests:
        scale = replace(scale, requests=(options.requests, options.requests))
    logs.configure("WARNING", "json")
    cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(torch.device("cuda" if cuda else "cpu"), scale, options.rounds, Path(folder))
        return 0 if asyncio.run(report(machine, names)) else 1


if __name__ == "__main__":
    sys.exit(main())
