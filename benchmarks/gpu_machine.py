"""What `benchmarks.gpu` measures with: the device, models of GPT-2's sizes with random weights, and the open engine."""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from bot.cli.bench_baselines import Transformers
from bot.cli.workloads import WORKLOADS, Workload
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bot.config import Device, Precision
    from bot.gpt2.requests import ContinuationRequest

SMALL: Final = "small"
LARGE: Final = "xl"
MIB: Final = 2**20

_XL: Final = {"n_layer": 48, "n_embd": 1600, "n_head": 25}  # those of GPT-2 small are the config's defaults
_TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_WORDS: Final = (" the", " and", " of", " to", " in", " that", " was", " for")  # each is one token
_STREAM: Final = Workload(1, 10, 200)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is computed.

    Attributes:
        sizes: The config of each model with random weights.
        requests: Compared with Transformers, of the random model and of the one that ships.
        longest: New tokens of the longest of those.
        alone: Requests that are computed alone and in a crowd, each of one sample.
        lonely_length: New tokens of those.
        workloads: Measured with the small model.
        one: Measured with the large one.
        prompt: Tokens of a long prompt.
        stream: The continuation beside which questions are asked.
        copied: Bytes that are copied to measure the memory.
    """

    sizes: dict[str, dict[str, int]] = field(default_factory=lambda: {SMALL: {}, LARGE: _XL})
    requests: tuple[int, int] = (200, 100)
    longest: int = 60
    alone: int = 4
    lonely_length: int = 100
    workloads: tuple[Workload, ...] = WORKLOADS
    one: Workload = WORKLOADS[0]
    prompt: int = 900
    stream: Workload = _STREAM
    copied: int = 2 * 10**9


QUICK: Final = Scale(
    sizes={
        SMALL: {"n_layer": 2, "n_embd": 64, "n_head": 4},
        LARGE: {"n_layer": 3, "n_embd": 80, "n_head": 5},
    },
    requests=(6, 2),
    longest=10,
    alone=1,
    lonely_length=20,
    workloads=(Workload(1, 1, 4), Workload(4, 2, 4)),
    one=Workload(1, 1, 4),
    prompt=100,
    stream=Workload(1, 2, 12),
    copied=2 * 10**7,
)


@dataclass
class Machine:
    """The device, the models, and the engine that is open.

    Attributes:
        device: Where everything computes.
        scale: How much is computed.
        rounds: Number of measurements.
        folder: The folder of the models.
        faults: What is not exact.
    """

    device: torch.device
    scale: Scale
    rounds: int
    folder: Path
    faults: list[str] = field(default_factory=list)
    _engine: LocalEngine | None = None
    _opened: tuple[str, str] = ("", "")

    @property
    def cuda(self) -> bool:
        """Return whether a GPU computes."""
        return self.device.type == "cuda"

    def model(self, name: str) -> Path:
        """Return a model's folder, which is written when it is first needed."""
        if name == files.SHIPPED:
            return files.locate(name)
        if not (self.folder / name).exists():
            precision = "float16" if name == LARGE else "float32"  # half as much to write
            write_model(self.folder / name, self.device, precision, **self.scale.sizes[name])
        return self.folder / name

    async def engine(self, name: str, precision: str = "float32") -> LocalEngine:
        """Return the engine of a model, the open one or a new one: at most one is open."""
        if self._engine is None or self._opened != (name, precision):
            await self.close()
            model = files.SHIPPED if name == files.SHIPPED else str(self.model(name))
            engine = LocalEngine(model, device=cast("Device", self.device.type), precision=cast("Precision", precision))
            self._engine = engine
            await engine.start()
            self._opened = (name, precision)
        return self._engine

    async def close(self) -> None:
        """Close the engine that is open, and free its memory."""
        if self._engine:
            await self._engine.close()
        self._engine, self._opened = None, ("", "")
        self.collect()

    def transformers(self, name: str, precision: str = "float32") -> Transformers:
        """Load a model with Transformers."""
        return Transformers(self.model(name), cuda=self.cuda, precision=precision)

    def synchronize(self) -> None:
        """Wait until the device has done its work."""
        if self.cuda:
            torch.cuda.synchronize()

    def collect(self) -> None:
        """Free the memory that nothing uses."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def reserved(self, *, peak: bool = False) -> float:
        """Return the GPU memory of PyTorch's allocator, at present or at most since the last start of an engine."""
        if not self.cuda:
            return 0.0
        return (torch.cuda.max_memory_reserved() if peak else torch.cuda.memory_reserved()) / MIB

    def long_prompt(self) -> str:
        """Return a text of `scale.prompt` tokens."""
        return "".join(random.Random(0).choices(_WORDS, k=self.scale.prompt))


def write_model(folder: Path, device: torch.device, precision: str, **sizes: Any) -> Path:
    """Write a model's folder, and return it.

    Its vocabulary is OpenAI's by default, of which the tokenizer knows only a part: other tokens have no text.

    Args:
        folder: To be created.
        device: Draws the weights, so that a GPU and a CPU draw different ones.
        precision: The type of the stored weights, by PyTorch's name.
        sizes: Of `GPT2Config`.
    """
    shipped = files.locate(files.SHIPPED)
    end: Any = GPT2Config.from_pretrained(shipped).eos_token_id
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    with device:
        network = GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end, **sizes))
    network.to(getattr(torch, precision)).save_pretrained(folder)
    for name in _TOKENIZER:
        shutil.copyfile(shipped / name, folder / name)
    return folder


async def timed(engine: LocalEngine, requests: Sequence[ContinuationRequest]) -> tuple[int, float]:
    """Return how many tokens the requests got, since samples may end early, and the seconds."""
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(engine.continuation(request, owner=number) for number, request in enumerate(requests))
    )
    return sum(answer.new_tokens for answer in answers), time.perf_counter() - began
