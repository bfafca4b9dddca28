"""Seeded sampling with temperature, top-k and top-p, equal to Transformers' own.

`GenerationMixin._sample` (transformers/generation/utils.py) draws with `torch.multinomial` from torch's global
generator, where concurrent requests would disturb each other. Here each request has its own generator.

`torch.multinomial` divides every probability by an exponentially distributed number and takes the largest quotient.
For GPT-2 that is 50,257 logarithms a row, although only the few tokens kept by top-k and top-p can win. The numbers
come from a Mersenne Twister that depends only on the seed. On the CPU, NumPy's twister supplies the same words, and
logarithms are computed only for the tokens kept. A self-test compares the result with torch's numbers.
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
    """The sampler of one request.

    As in `generate`, every row consumes its random numbers at every step, ended rows too: all later tokens depend on
    that.
    """

    def __init__(self, request: ContinuationRequest, vocabulary: int, device: torch.device) -> None:
        self._greedy = request.params.greedy
        self._noise = None if self._greedy else make_noise(request.seed, request.params.rows, vocabulary, device)
        self._warpers = [] if self._greedy else make_warpers(request.params)

    def next_tokens(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Sample one token for each active row.

        Args:
            logits: float32 [len(rows), vocabulary], of the last position.
            rows: Indices of these rows in the request, ascending.
        """
        if self._noise is None:
            return logits.argmax(dim=-1).tolist()
        self._noise.advance()
        return self._noise.choose(_warped(logits, self._warpers).softmax(dim=-1), rows)


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
    return _warped(logits, make_warpers(params)).softmax(dim=-1)


def _warped(logits: torch.Tensor, warpers: Sequence[LogitsProcessor]) -> torch.Tensor:
    for warper in warpers:
        # The interface passes the tokens so far, which these three processors ignore.
        logits = warper(_NO_TOKENS, logits)
    return logits


class Noise(Protocol):
    """The stream of exponentially distributed numbers that `torch.multinomial` would draw."""

    def advance(self) -> None:
        """Advance to the numbers of the next step."""
        ...

    def choose(self, probabilities: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return for each row the token with the largest quotient of probability and number.

        Args:
            probabilities: float32 [len(rows), vocabulary].
            rows: Indices of these rows in the step's numbers.
        """
        ...

    def quotients(self, probabilities: torch.Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
        """Return the quotients that `choose` compares, in the shape of `probabilities`; call it before `choose`."""
        ...


def make_noise(seed: int, rows: int, vocabulary: int, device: torch.device) -> Noise:
    """Return the numbers of `torch.manual_seed(seed)` for batches of [rows, vocabulary], the fastest if exact."""
    if device.type == "cpu" and twister_matches():
        return TwisterNoise(seed, rows, vocabulary)
    return TorchNoise(seed, rows, vocabulary, device)


class TorchNoise:
    """The numbers as `torch.multinomial` generates them, for the whole vocabulary."""

    def __init__(self, seed: int, rows: int, vocabulary: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._numbers = torch.empty(rows, vocabulary, device=device)

    def advance(self) -> None:
        """Draw a whole batch."""
        self._numbers.exponential_(1, generator=self._generator)

    def choose(self, probabilities: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """See `Noise.choose`."""
        return (probabilities / self._numbers[list(rows)]).argmax(dim=-1).tolist()

    def quotients(self, probabilities: torch.Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
        """See `Noise.quotients`."""
        found: NDArray[np.float32] = (probabilities / self._numbers[list(rows)]).cpu().numpy()
        return found


class TwisterNoise:
    """The same numbers from NumPy's Mersenne Twister, computed only for tokens with a probability above 0.

    torch's CPU generator joins two words of 32 bits to one of 64, as NumPy's does, and takes the lower 53 as a
    fraction u. The exponential number is −log1p(−u) as float32 (ATen/core/DistributionsHelper.h,
    TransformationHelper.h).
    """

    def __init__(self, seed: int, rows: int, vocabulary: int) -> None:
        # RandomState seeds the twister as torch does (init_genrand); Generator reads its words fastest.
        self._twister = np.random.Generator(np.random.RandomState(seed)._bit_generator)  # noqa: SLF001
        self._shape = (rows, vocabulary)
        self._words = _NO_WORDS

    def advance(self) -> None:
        """Draw the words of a whole batch."""
        self._words = self._twister.integers(0, 2**64, size=self._shape, dtype=np.uint64)

    def choose(self, probabilities: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """See `Noise.choose`."""
        chosen = []
        for row, given in zip(rows, probabilities.numpy(), strict=True):
            kept, quotients = self._compared(row, given)
            chosen.append(int(kept[quotients.argmax()]))
        self._words = _NO_WORDS  # megabytes, for each of many requests between their passes
        return chosen

    def quotients(self, probabilities: torch.Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
        """See `Noise.quotients`."""
        found = np.zeros(probabilities.shape, np.float32)
        for index, row in enumerate(rows):
            kept, quotients = self._compared(row, probabilities[index].numpy())
            found[index, kept] = quotients
        return found

    def _compared(self, row: int, given: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return the tokens with a probability above 0, and their quotients."""
        kept = np.flatnonzero(given != 0)  # ten times as fast as np.flatnonzero(given)
        return kept, given[kept] / _exponential(self._words[row, kept])


def _exponential(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Convert words of the twister to exponentially distributed numbers."""
    fraction = (words & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
    return (-np.log1p(-fraction)).astype(np.float32)


@functools.cache
def twister_matches() -> bool:
    """Return whether `TwisterNoise` equals torch's numbers with the installed versions."""
    rows, vocabulary = 2, 1000
    for seed in (0, 42, 2**32 - 1):
        theirs = torch.Generator().manual_seed(seed)
        ours = TwisterNoise(seed, rows, vocabulary)
        for _ in range(3):
            ours.advance()
            numbers = _exponential(ours._words)  # noqa: SLF001
            expected = torch.empty(rows, vocabulary).exponential_(1, generator=theirs)
            if not np.array_equal(numbers, expected.numpy()):
                log.warning("torch's random numbers differ from NumPy's; sampling is slower", torch=torch.__version__)
                return False
    return True
