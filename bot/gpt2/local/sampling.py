"""Seeded sampling with temperature, top-k and top-p, equal to Transformers' own.

`GenerationMixin._sample` (transformers/generation/utils.py) draws with `torch.multinomial` from torch's global
generator, where concurrent requests would disturb each other. Here each request has its own generator.

`torch.multinomial` divides every probability by an exponentially distributed number and takes the largest quotient.
The numbers are made of the generator's words and depend on the seed alone, never on the logits, so a token can be
drawn twice, from a guess of the logits and from the logits. For GPT-2 they are 50,257 logarithms a row, although only
the few tokens kept by top-k and top-p can win: on the CPU the logarithms are computed only for those. A self-test
compares the result with torch's numbers.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import structlog
import torch
from transformers.generation.logits_process import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bot.gpt2.requests import ContinuationRequest, SamplingParams

_NO_TOKENS: Final = torch.LongTensor()
_COLUMNS: Final = 32  # a row's maxima are taken of so many logits each, to find a lower bound of the k-th largest

log = structlog.get_logger(__name__)


class Sampler:
    """The sampler of one request.

    As in `generate`, every sample consumes its random numbers at every step, ended samples too: all later tokens
    depend on that.
    """

    def __init__(self, request: ContinuationRequest, vocabulary: int, device: torch.device) -> None:
        self._params = request.params
        self._noise = (
            None if request.params.greedy else make_noise(request.seed, request.params.rows, vocabulary, device)
        )

    def next_tokens(self, logits: torch.Tensor, samples: Sequence[int], steps: Sequence[int]) -> list[int]:
        """Sample a token for each row; the same logits of a sample's step give the same token, however often.

        Args:
            logits: float32 [rows, vocabulary].
            samples: The sample of each row, from 0.
            steps: How many tokens precede each row's in its sample.
        """
        if self._noise is None:
            return [int(row.argmax()) for row in logits.cpu().numpy()]
        rows = logits.cpu().numpy()
        if self._params.temperature != 1.0:
            rows = rows / np.float32(self._params.temperature)  # as PyTorch, but without waking its threads
        return [self._draw(row, self._noise.at(*place)) for row, *place in zip(rows, samples, steps, strict=True)]

    def forget(self, sample: int, steps: int) -> None:
        """Drop the random numbers of a sample's first steps."""
        if self._noise:
            self._noise.forget(sample, steps)

    def _draw(self, logits: NDArray[np.float32], noise: Numbers) -> int:
        kept, probabilities = _kept(logits, self._params)
        quotients = probabilities / noise.of(kept)
        return int(kept[quotients.argmax()])


def _kept(logits: NDArray[np.float32], params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the tokens that top-k and top-p keep of a row, ascending, and their probabilities, all above 0."""
    tokens = _largest(logits, params.top_k) if params.top_k else np.arange(len(logits))
    if params.top_p < 1.0:
        tokens = _nucleus(logits, tokens, params.top_p)
    probabilities: NDArray[np.float32] = torch.from_numpy(logits[tokens]).softmax(dim=-1).numpy()
    above = np.flatnonzero(probabilities != 0)  # ten times as fast as np.flatnonzero(probabilities)
    return tokens[above], probabilities[above]


def _nucleus(logits: NDArray[np.float32], tokens: NDArray[np.int64], top_p: float) -> NDArray[np.int64]:
    """Return which of the tokens top-p keeps, ascending, as TopPLogitsWarper.

    It sorts the whole vocabulary, in PyTorch 3 ms a row. NumPy sorts the logits alone 30 times as fast, and the least
    one that is kept says which tokens are, unless it equals the one before: then their order decides.
    """
    among = logits[tokens]
    # Those that top-k drops are there, too, since a sum of float32 depends on where its terms are.
    ascending = np.full((1, len(logits)), -np.inf, np.float32)
    ascending[0, -len(among) :] = np.sort(among)
    below = torch.from_numpy(ascending).softmax(dim=-1).cumsum(dim=-1).numpy()[0]
    dropped = min(int(np.searchsorted(below, np.float32(1 - top_p), side="right")), len(below) - 1)
    least = ascending[0, dropped]
    if dropped and ascending[0, dropped - 1] == least:
        whole = torch.full((1, len(logits)), -math.inf)
        whole[0, torch.from_numpy(tokens)] = torch.from_numpy(among)
        return np.flatnonzero(TopPLogitsWarper(top_p)(_NO_TOKENS, whole)[0].numpy() > -np.inf)
    kept: NDArray[np.int64] = tokens[among >= least]
    return kept


def _largest(logits: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the indices of the k largest, ascending, and of all that equal the least of them, as TopKLogitsWarper."""
    columns = len(logits) // _COLUMNS
    if k > columns:
        return np.flatnonzero(logits >= np.partition(logits, -min(k, len(logits)))[-min(k, len(logits))])
    # k maxima of disjoint columns are k different logits, so the k-th largest is no less than the least of them.
    maxima = logits[: columns * _COLUMNS].reshape(_COLUMNS, columns).max(axis=0)
    candidates = np.flatnonzero(logits >= np.partition(maxima, -k)[-k])
    among = logits[candidates]
    largest: NDArray[np.int64] = candidates[among >= np.partition(among, -k)[-k]]
    return largest


def make_warpers(params: SamplingParams) -> list[LogitsProcessor]:
    """Return Transformers' processors, as GenerationMixin._get_logits_processor chooses and orders them."""
    warpers: list[LogitsProcessor] = []
    if params.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(float(params.top_p)))
    return warpers


def drawn_from(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Return the probabilities that a `Sampler` with these params draws from: float32, in the shape of `logits`."""
    if params.greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    for warper in make_warpers(params):
        # The interface passes the tokens so far, which these three processors ignore.
        logits = warper(_NO_TOKENS, logits)
    return logits.softmax(dim=-1)


class Numbers(Protocol):
    """The exponentially distributed numbers of one sample at one step."""

    def of(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the numbers of these tokens."""
        ...


class Noise:
    """The numbers that `torch.multinomial` would draw for batches of [samples, vocabulary], one batch a step.

    A step's numbers are drawn when they are first needed and kept until each sample has forgotten its own, since
    samples may be at different steps.
    """

    def __init__(self, seed: int, samples: int, vocabulary: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._shape = (samples, vocabulary)
        self._device = device
        self._steps = 0
        self._forgotten = [0] * samples
        self._kept: dict[tuple[int, int], Numbers] = {}  # by sample and step

    def at(self, sample: int, step: int) -> Numbers:
        """Return the numbers of a sample's step, which it must not have forgotten."""
        while self._steps <= step:
            for each, numbers in enumerate(self._draw()):
                if self._steps >= self._forgotten[each]:
                    self._kept[each, self._steps] = numbers
            self._steps += 1
        return self._kept[sample, step]

    def forget(self, sample: int, steps: int) -> None:
        """Drop the numbers of a sample's first steps."""
        for step in range(self._forgotten[sample], min(steps, self._steps)):
            del self._kept[sample, step]
        self._forgotten[sample] = steps

    def _draw(self) -> Sequence[Numbers]:
        """Draw the next step's numbers, as `torch.multinomial` generates them: for the whole vocabulary."""
        batch = torch.empty(self._shape, device=self._device).exponential_(1, generator=self._generator)
        return [_Given(row) for row in batch.cpu().numpy()]


class WordNoise(Noise):
    """The same numbers, of which only those asked for are computed.

    torch's CPU generator makes words of 64 bits and takes the lower 53 as a fraction u. The exponential number is
    −log1p(−u) as float32 (ATen/core/DistributionsHelper.h, TransformationHelper.h).
    """

    def _draw(self) -> Sequence[Numbers]:
        samples, vocabulary = self._shape
        return [
            _Words(torch.empty(vocabulary, dtype=torch.int64).random_(generator=self._generator).numpy())
            for _ in range(samples)  # each in memory of its own, since they are forgotten one by one
        ]


class _Given:
    """Numbers that are computed already."""

    def __init__(self, numbers: NDArray[np.float32]) -> None:
        self._numbers = numbers

    def of(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._numbers[tokens]


class _Words:
    """Numbers as the generator's words."""

    def __init__(self, words: NDArray[np.int64]) -> None:
        self._words = words

    def of(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        fraction = (self._words[tokens] & (2**53 - 1)).astype(np.float64) * 2.0**-53
        return (-np.log1p(-fraction)).astype(np.float32)


def make_noise(seed: int, samples: int, vocabulary: int, device: torch.device) -> Noise:
    """Return the numbers of `torch.manual_seed(seed)`, the fastest if exact."""
    kind = WordNoise if device.type == "cpu" and words_match() else Noise
    return kind(seed, samples, vocabulary, device)


@functools.cache
def words_match() -> bool:
    """Return whether `WordNoise` equals torch's numbers with the installed version."""
    samples, vocabulary, cpu = 2, 1000, torch.device("cpu")
    everything = np.arange(vocabulary)
    for seed in (0, 42, 2**32 - 1):
        theirs, ours = (kind(seed, samples, vocabulary, cpu) for kind in (Noise, WordNoise))
        for step in range(3):
            for sample in range(samples):
                first, second = (noise.at(sample, step).of(everything) for noise in (theirs, ours))
                if not np.array_equal(first, second):
                    log.warning("torch's random numbers are made in another way; sampling is slower")
                    return False
    return True
