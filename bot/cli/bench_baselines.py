"""The engines that `bench` measures, and the process that runs one of them.

Each engine is a function that computes a workload: this bot's own, and Transformers' `generate` as the baseline. All
compute in float32 with the same number of threads and generate exactly as many tokens as requested.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from bot.cli.bench import Workload
from bot.errors import OperatorError
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import files
from bot.gpt2.requests import ContinuationRequest
from bot.monitoring import logs

if TYPE_CHECKING:
    from bot.config import Precision

Compute = Callable[[Sequence[ContinuationRequest]], float | None]
"""Computes all requests as if they had arrived at once; returns the share of drafts accepted, None without any."""

Build = Callable[[str, int, "Precision"], Compute]
"""Builds a `Compute` from the model's name, the number of threads and the precision, which only the bot uses."""


def transformers(model: str, _: int, __: Precision) -> Compute:
    """Build the tutorial's way: one request after another, since `generate` takes one seed for all."""
    folder = files.locate(model)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), GPT2LMHeadModel.from_pretrained(folder, dtype="float32")

    def compute(requests: Sequence[ContinuationRequest]) -> None:
        for request in requests:
            torch.manual_seed(request.seed)
            network.generate(  # type: ignore[misc] # its own annotation of self confuses mypy
                **tokenizer(request.prompt, return_tensors="pt"),
                do_sample=True,
                temperature=request.params.temperature,
                top_k=request.params.top_k,
                top_p=request.params.top_p,
                max_new_tokens=request.params.length,
                min_new_tokens=request.params.length,
                num_return_sequences=request.params.samples,
                pad_token_id=tokenizer.eos_token_id,
            )

    return compute


def bot(model: str, threads: int, precision: Precision) -> Compute:
    """Build this bot's engine, which gets all requests at once."""
    loop = asyncio.new_event_loop()

    async def started() -> LocalEngine:
        engine = LocalEngine(model, precision=precision, threads=threads)
        await engine.start()
        return engine

    engine = loop.run_until_complete(started())

    async def all_of(requests: Sequence[ContinuationRequest]) -> float | None:
        before = engine.statistics
        await asyncio.gather(*(engine.continuation(request, owner=number) for number, request in enumerate(requests)))
        drafted = engine.statistics.drafted - before.drafted
        return (engine.statistics.accepted - before.accepted) / drafted if drafted else None

    return lambda requests: loop.run_until_complete(all_of(requests))


BUILDERS: Final[dict[str, Build]] = {"transformers": transformers, "bot": bot}


def serve(builders: Mapping[str, Build]) -> None:
    """Run the measured process: its arguments name engine, model, threads and precision, as `EngineProcess` gives them.

    Each line of standard input is a question, each line of standard output its answer, both in JSON.
    """
    engine, model, threads, precision = sys.argv[1:]
    logs.configure("WARNING", "json")  # on standard error, away from the answers
    if int(threads):
        torch.set_num_threads(int(threads))
    try:
        compute = builders[engine](model, torch.get_num_threads(), "float16" if precision == "float16" else "float32")
    except OperatorError as error:
        sys.exit(str(error))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question == "memory":
            print(json.dumps(_peak_megabytes()), flush=True)
            continue
        began = time.perf_counter()
        accepted = compute(Workload(*question).requests())
        print(json.dumps([time.perf_counter() - began, accepted]), flush=True)


def _peak_megabytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource  # noqa: PLC0415 # Windows has neither

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    serve(BUILDERS)
