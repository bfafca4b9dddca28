"""Comparison of samples with Transformers', token for token, one at a time and concurrently.

    python -m benchmarks.equality --model gpt2-mini --requests 200

draws so many requests with mixed settings and computes them with Transformers' `generate` and with this engine, first
one after another, then all at once. It prints how many are equal and exits with 1 unless all are.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from tqdm import tqdm

from bot.cli.bench_baselines import Setup, Transformers
from bot.config import Device
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import files
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.monitoring import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENINGS = ("ROMEO:\n", "Hello, I'm a language model,", "a", "  O", "日本語のテキスト", "🎭", "12,345.67", "naïve")
WORDS = (" the", " and", "\n\n", " was never", ", my lord", ";", " whisper'd", "\t", "<|endoftext|>", " café", " (sic)")
OWNERS = 16

Tokens = list[list[int]]


class Comparison(NamedTuple):
    """The requests whose samples are Transformers', and the others, in one way of asking."""

    way: str
    requests: int
    different: list[ContinuationRequest]

    def __str__(self) -> str:
        """Say how many are equal, and name some of the others."""
        equal = self.requests - len(self.different)
        lines = [f"{self.way}: {equal} of {self.requests} are Transformers', token for token"]
        return "\n".join([*lines, *(f"  different: {request}" for request in self.different[:5])])


def random_request(number: int, longest: int) -> ContinuationRequest:
    """Draw a common or unusual request, the same for the same number."""
    dice = random.Random(number)
    return ContinuationRequest(
        dice.choice(OPENINGS) + "".join(dice.choices(WORDS, k=dice.choice((0, 1, 5, 20, 100)))),
        SamplingParams(
            seed=dice.getrandbits(32),
            samples=dice.randint(1, 10),
            length=dice.choice((1, 2, 10, longest)),
            temperature=dice.choice((0.0, 0.01, 0.3, 0.7, 1.0, 1.0, 1.0, 1.3, 2.0)),
            top_k=dice.choice((0, 1, 5, 50, 50, 50, 1000)),
            top_p=dice.choice((0.0, 0.1, 0.5, 0.9, 1.0, 1.0, 1.0)),
        ),
    )


def by_transformers(requests: Sequence[ContinuationRequest], transformers: Transformers) -> list[Tokens]:
    """Compute each request with `torch.manual_seed` and `generate`."""

    def samples(request: ContinuationRequest) -> Tokens:
        end, rows = transformers.end, transformers.generate(request)
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    return [samples(request) for request in tqdm(requests, "Transformers", unit="request", disable=None)]


async def by_engine(
    requests: Sequence[ContinuationRequest], engine: LocalEngine, *, together: bool = False
) -> list[Tokens]:
    """Compute the requests with this engine, one after another or concurrently."""
    with tqdm(total=len(requests), desc="the engine", unit="request", disable=None) as bar:

        async def samples(request: ContinuationRequest, after: float = 0.0) -> Tokens:
            await asyncio.sleep(after)
            continuation = await engine.continuation(request, owner=request.seed % OWNERS)
            bar.update()
            return [list(sample.token_ids) for sample in continuation.samples]

        if not together:
            return [await samples(request) for request in requests]
        # Spread over a second, so that they join and leave at any token.
        return await asyncio.gather(*(samples(each, random.Random(each.seed).random()) for each in requests))


async def compare(
    requests: Sequence[ContinuationRequest], engine: LocalEngine, transformers: Transformers
) -> list[Comparison]:
    """Compare the engine's samples with Transformers', alone and in a crowd."""
    expected = by_transformers(requests, transformers)
    given = {"alone": await by_engine(requests, engine), "in a crowd": await by_engine(requests, engine, together=True)}
    return [
        Comparison(
            way,
            len(requests),
            [request for request, *pair in zip(requests, ours, expected, strict=True) if pair[0] != pair[1]],
        )
        for way, ours in given.items()
    ]


async def main() -> int:
    """Compare, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="gpt2-mini", help="a hub name, a folder, or the model that ships")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--longest", type=int, default=60, help="new tokens of the longest requests")
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="of both; auto is CUDA if any (cpu)")
    parser.add_argument("--precision", default="float32", help="of both (float32, the only one that gives equal words)")
    options: Any = parser.parse_args()
    logs.configure("WARNING", "json")
    cuda = Setup(options.model, options.device).cuda
    transformers = Transformers(files.locate(options.model), cuda=cuda, precision=options.precision)
    engine = LocalEngine(options.model, device=options.device, precision=options.precision)
    await engine.start()
    requests = [random_request(number, options.longest) for number in range(options.requests)]
    comparisons = await compare(requests, engine, transformers)
    await engine.close()
    print(*comparisons, sep="\n")
    return 1 if any(comparison.different for comparison in comparisons) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
