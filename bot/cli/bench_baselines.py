"""The engines that `bench` measures, and the process that runs one of them.

Each engine is a function that computes a workload: this bot's own, and Transformers' `generate` as the baseline. All
compute on the same device with the same number of threads and generate exactly as many tokens as requested.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from bot.cli.workloads import Workload
from bot.errors import OperatorError
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import files
from bot.gpt2.requests import ContinuationRequest
from bot.monitoring import logs

if TYPE_CHECKING:
    from bot.config import Device, Precision


@dataclass(frozen=True, slots=True)
class Setup:
    """The model to measure, and how to compute with it.

    Attributes:
        model: A hub name, a folder, or the model that ships.
        device: "auto" (CUDA if there is any), "cpu" or "cuda".
        precision: A floating-point type of PyTorch's, by its name.
        threads: Number of threads on the CPU.
    """

    model: str
    device: str = "auto"
    precision: str = "float32"
    threads: int = 1

    @property
    def cuda(self) -> bool:
        """Return whether a GPU computes."""
        return self.device != "cpu" and torch.cuda.is_available()

    @property
    def baseline_precision(self) -> str:
        """The precision of the other engines: on the CPU always float32, in which they are fastest."""
        return self.precision if self.cuda else "float32"


Compute = Callable[[Sequence[ContinuationRequest]], float | None]
"""Computes all requests as if they had arrived at once; returns the share of drafts accepted, None without any."""

Build = Callable[[Setup], Compute]


class Transformers:
    """Transformers' model and tokenizer.

    Missing values are initialized with seed 0, as this engine does it.
    """

    def __init__(self, folder: Path, *, cuda: bool, precision: str) -> None:
        torch.manual_seed(0)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        network = GPT2LMHeadModel.from_pretrained(folder, dtype=precision)
        self._network: Any = network.to("cuda" if cuda else "cpu")
        ends = network.config.eos_token_id
        self.end = ends[0] if isinstance(ends, list) else ends

    def generate(self, request: ContinuationRequest, **settings: Any) -> list[list[int]]:
        """Return the new tokens of each sample, of equal length: ended ones are filled up with end tokens.

        The tokens are on the host, so a GPU has done its work.

        Args:
            request: Greedy requests have one sample.
            settings: More of `generate`'s parameters.
        """
        encoded = self._tokenizer(request.prompt, return_tensors="pt").to(self._network.device)
        if request.params.greedy:
            settings |= {"do_sample": False}
        else:
            settings |= {
                "do_sample": True,
                "temperature": request.params.temperature,
                "top_k": request.params.top_k,
                "top_p": request.params.top_p,
                "num_return_sequences": request.params.samples,
            }
        torch.manual_seed(request.seed)
        sequences = self._network.generate(
            **encoded, max_new_tokens=request.params.length, pad_token_id=self.end, **settings
        )
        rows: list[list[int]] = sequences[:, encoded["input_ids"].shape[1] :].tolist()
        return rows


def transformers(setup: Setup) -> Compute:
    """Build the tutorial's way: one request after another, since `generate` takes one seed for all."""
    baseline = Transformers(files.locate(setup.model), cuda=setup.cuda, precision=setup.baseline_precision)

    def compute(requests: Sequence[ContinuationRequest]) -> None:
        for request in requests:
            baseline.generate(request, min_new_tokens=request.params.length)

    return compute


def bot(setup: Setup) -> Compute:
    """Build this bot's engine, which gets all requests at once."""
    loop = asyncio.new_event_loop()

    async def started() -> LocalEngine:
        device, precision = cast("Device", setup.device), cast("Precision", setup.precision)
        engine = LocalEngine(setup.model, device=device, precision=precision, threads=setup.threads)
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
    """Run the measured process: its arguments name the engine and its setup, as `EngineProcess` gives them.

    Each line of standard input is a question, each line of standard output its answer, both in JSON. Before any
    question it answers with the name of the GPU that computes, or null.
    """
    engine, model, device, precision, threads = sys.argv[1:]
    # A library that prints must not do it among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.configure("WARNING", "json")
    if int(threads):
        torch.set_num_threads(int(threads))
    setup = Setup(model, device, precision, torch.get_num_threads())
    try:
        compute = builders[engine](setup)
    except OperatorError as error:
        sys.exit(str(error))
    print(json.dumps(torch.cuda.get_device_name() if setup.cuda else None), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question == "memory":
            print(json.dumps([_peak_megabytes(), _peak_gpu_megabytes()]), file=answers, flush=True)
            continue
        began = time.perf_counter()
        accepted = compute(Workload(*question).requests())
        print(json.dumps([time.perf_counter() - began, accepted]), file=answers, flush=True)


def _peak_gpu_megabytes() -> float | None:
    """Return the most memory that PyTorch's allocator held on the GPU; None if it is not used there."""
    reserved = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return reserved / 2**20 or None


def _peak_megabytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource  # noqa: PLC0415 # Windows has neither

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    serve(BUILDERS)
