"""The seeded draw: temperature, top-k, top-p and the choice of the next tokens, equal to Transformers' own.

`GenerationMixin._sample` (transformers/generation/utils.py) draws with `torch.multinomial` from torch's global
generator. Two requests at once would disturb each other there, so each has a generator of its own here.

`torch.multinomial` divides every probability by an exponentially distributed number and takes the largest quotient.
For GPT-2 that is 50,257 logarithms a row, though only the few tokens that top-k and top-p kept can win. The numbers
come from a Mersenne twister that depends on nothing but the seed, so on the CPU NumPy's twister supplies the same
words and the logarithms are taken where they matter. A self-test holds this to torch's own numbers.
"""

from __future__ import annotations

import functools
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
_NO_WORDS: Final[NDArray[np.uint64]] = np.empty((0, 0), dtype=np.uint64)

log = structlog.get_logger(__name__)


class Sampler:
    """Draws the next tokens of one request.

    Exactly as in `generate`, every row uses up its random numbers at every step, ended rows too: all later tokens
    depend on that.
    """

    def __init__(self, request: ContinuationRequest, vocabulary: int, device: torch.device) -> None:
        self._greedy = request.params.greedy
        self._noise = None if self._greedy else make_noise(request.seed, request.params.rows, vocabulary, device)
        self._warpers = [] if self._greedy else make_warpers(request.params)

    def next_tokens(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """One token for each row that goes on.

        Args:
            logits: float32 [len(rows), vocabulary], of the last position.
            rows: Which of the request's rows these are, ascending.
        """
        if self._noise is None:
            return logits.argmax(dim=-1).tolist()
        self._noise.advance()
        return self._noise.choose(_warped(logits, self._warpers).softmax(dim=-1), rows)


def make_warpers(params: SamplingParams) -> list[LogitsProcessor]:
    """Transformers' processors, in the order of GenerationMixin._get_logits_processor and under its conditions."""
    warpers: list[LogitsProcessor] = []
    if params.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(float(params.top_p)))
    return warpers


def drawn_from(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The probabilities from which a `Sampler` with these params draws: float32, of the shape of `logits`."""
    if params.greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    return _warped(logits, make_warpers(params)).softmax(dim=-1)


def _warped(logits: torch.Tensor, warpers: Sequence[LogitsProcessor]) -> torch.Tensor:
    for warper in warpers:
        # Processors get the tokens so far, for others of their kind; these three never look at them.
        logits = warper(_NO_TOKENS, logits)
    return logits


class Noise(Protocol):
    """The exponentially distributed numbers that `torch.multinomial` would draw, one step after another."""

    def advance(self) -> None:
        """Go on to the numbers of the next step."""
        ...

    def choose(self, probabilities: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """For each row the token with the largest quotient of probability and number.

        Args:
            probabilities: float32 [len(rows), vocabulary].
            rows: Which rows of the step's numbers to take.
        """
        ...


def make_noise(seed: int, rows: int, vocabulary: int, device: torch.device) -> Noise:
    """The numbers of `torch.manual_seed(seed)` for batches of [rows, vocabulary], the fastest way that is exact."""
    if device.type == "cpu" and twister_matches():
        return TwisterNoise(seed, rows, vocabulary)
    return TorchNoise(seed, rows, vocabulary, device)


class TorchNoise:
    """The numbers as `torch.multinomial` makes them, all of them."""

    def __init__(self, seed: int, rows: int, vocabulary: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._numbers = torch.empty(rows, vocabulary, device=device)

    def advance(self) -> None:
        """Draw the whole batch."""
        self._numbers.exponential_(1, generator=self._generator)

    def choose(self, probabilities: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """See `Noise.choose`."""
        return (probabilities / self._numbers[list(rows)]).argmax(dim=-1).tolist()


class TwisterNoise:
    """The same numbers from NumPy's Mersenne twister, computed for tokens with a probability above 0 only.

    torch's CPU generator joins two words of 32 bits to one of 64, as NumPy's does, and takes the lower 53 as a fraction
    u; the exponential number is −log1p(−u) as float32 (ATen/core/DistributionsHelper.h, TransformationHelper.h).
    """

    def __init__(self, seed: int, rows: int, vocabulary: int) -> None:
        # RandomState seeds the twister as torch does (init_genrand); Generator reads words from it fastest.
        self._twister = np.random.Generator(np.random.RandomState(seed)._bit_generator)  # noqa: SLF001
        self._shape = (rows, vocabulary)
        self._words = _NO_WORDS

    def advance(self) -> None:
        """Draw the words of the whole batch."""
        self._words = self._twister.integers(0, 2**64, size=self._shape, dtype=np.uint64)

    def choose(self, probabilities: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """See `Noise.choose`."""
        chosen = []
        for row, given in zip(rows, probabilities.numpy(), strict=True):
            kept = np.flatnonzero(given != 0)  # ten times as fast as to ask floating-point numbers themselves
            quotients = given[kept] / _exponential(self._words[row, kept])
            chosen.append(int(kept[quotients.argmax()]))
        self._words = _NO_WORDS  # megabytes; many requests wait for their turn between two draws
        return chosen


def _exponential(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Words of the twister → as many exponentially distributed numbers."""
    fraction = (words & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
    return (-np.log1p(-fraction)).astype(np.float32)


@functools.cache
def twister_matches() -> bool:
    """Whether `TwisterNoise` gives torch's own numbers with the versions at hand."""
    rows, vocabulary = 2, 1000
    for seed in (0, 42, 2**32 - 1):
        theirs = torch.Generator().manual_seed(seed)
        ours = TwisterNoise(seed, rows, vocabulary)
        for _ in range(3):
            ours.advance()
            numbers = _exponential(ours._words)  # noqa: SLF001
            expected = torch.empty(rows, vocabulary).exponential_(1, generator=theirs)
            if not np.array_equal(numbers, expected.numpy()):
                log.warning("torch's random numbers are not as expected; drawing is slower", torch=torch.__version__)
                return False
    return True
