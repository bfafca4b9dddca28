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
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoTokenizer, GPT2LMHeadModel

from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import files
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.monitoring import logs

OPENINGS = ("ROMEO:\n", "Hello, I'm a language model,", "a", "  O", "日本語のテキスト", "🎭", "12,345.67", "naïve")
WORDS = (" the", " and", "\n\n", " was never", ", my lord", ";", " whisper'd", "\t", "<|endoftext|>", " café", " (sic)")

Tokens = list[list[int]]


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


def by_transformers(requests: list[ContinuationRequest], folder: Any) -> list[Tokens]:
    """Compute each request with `torch.manual_seed` and `generate`."""
    torch.manual_seed(0)  # initializes missing values as this engine does
    tokenizer, network = AutoTokenizer.from_pretrained(folder), GPT2LMHeadModel.from_pretrained(folder, dtype="float32")
    end = network.config.eos_token_id

    def samples(request: ContinuationRequest) -> Tokens:
        encoded = tokenizer(request.prompt, return_tensors="pt")
        settings: dict[str, Any] = {"do_sample": False}
        if not request.params.greedy:
            settings = {
                "do_sample": True,
                "temperature": request.params.temperature,
                "top_k": request.params.top_k,
                "top_p": request.params.top_p,
                "num_return_sequences": request.params.samples,
            }
        torch.manual_seed(request.seed)
        sequences = network.generate(  # type: ignore[misc] # its own annotation of self confuses mypy
            **encoded, max_new_tokens=request.params.length, pad_token_id=end, **settings
        )
        rows = sequences[:, encoded["input_ids"].shape[1] :].tolist()
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    return [samples(request) for request in tqdm(requests, "Transformers", unit="request")]


async def by_engine(requests: list[ContinuationRequest], model: str) -> tuple[list[Tokens], list[Tokens]]:
    """Compute the requests with this engine, one after another and concurrently."""
    engine = LocalEngine(model, device="cpu")
    await engine.start()

    async def samples(request: ContinuationRequest, bar: tqdm[Any], after: float = 0.0) -> Tokens:
        await asyncio.sleep(after)
        continuation = await engine.continuation(request, owner=request.seed % 16)
        bar.update()
        return [list(sample.token_ids) for sample in continuation.samples]

    with tqdm(total=len(requests), desc="the engine, alone", unit="request") as bar:
        alone = [await samples(request, bar) for request in requests]
    with tqdm(total=len(requests), desc="the engine, a crowd", unit="request") as bar:
        # Spread over a second, so that they join and leave at any token.
        crowd = await asyncio.gather(*(samples(each, bar, random.Random(each.seed).random()) for each in requests))
    await engine.close()
    return alone, list(crowd)


def main() -> int:
    """Compare, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="gpt2-mini", help="a hub name, a folder, or the model that ships")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--longest", type=int, default=60, help="new tokens of the longest requests")
    options = parser.parse_args()
    logs.configure("WARNING", "json")
    requests = [random_request(number, options.longest) for number in range(options.requests)]
    expected = by_transformers(requests, files.locate(options.model))
    alone, crowd = asyncio.run(by_engine(requests, options.model))
    different = 0
    for name, given in (("alone", alone), ("in a crowd", crowd)):
        wrong = [number for number, (ours, theirs) in enumerate(zip(given, expected, strict=True)) if ours != theirs]
        print(f"{name}: {len(requests) - len(wrong)} of {len(requests)} are Transformers', token for token")
        for number in wrong[:5]:
            print(f"  different: {requests[number]}")
        different += len(wrong)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
