"""The interface between the scheduler and what computes its passes.

`bot.gpt2.local.eager` computes them on any device, `bot.gpt2.local.slots` on CUDA.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bot.gpt2.requests import ContinuationRequest
    from bot.gpt2.throughput import Throughput


PREFILL_CHUNK: Final = 64
"""Prompt positions computed in one pass: enough to be efficient, few enough not to stall jobs that decode."""


class Sequences(ABC):
    """The samples of a request while they are computed.

    Attributes:
        request: The accepted request.
        tokens: New tokens of each sample so far.
        prefilled: Positions of the prompt in passes so far.
    """

    def __init__(self, prompt_tokens: int, request: ContinuationRequest) -> None:
        self.request = request
        self.tokens: list[list[int]] = [[] for _ in range(request.params.rows)]
        self.prefilled = 0
        self._prompt_tokens = prompt_tokens
        self._active = list(range(request.params.rows))  # samples that have not ended

    @property
    def done(self) -> bool:
        """Return whether every sample has ended or has its full length."""
        return not self._active

    @property
    @abstractmethod
    def rows(self) -> int:
        """Rows in a pass once the prompt is prefilled."""

    @property
    def tokens_left(self) -> int:
        """The most tokens that an active sample still lacks."""
        return max((self.request.params.length - len(self.tokens[sample]) for sample in self._active), default=0)

    @property
    def next_chunk(self) -> int:
        """Prompt positions in the next pass; 0 once the prompt is prefilled."""
        return min(PREFILL_CHUNK, self.prompt_left)

    @property
    def prompt_left(self) -> int:
        """Prompt positions that are in no pass yet."""
        return self._prompt_tokens - self.prefilled

    @property
    def prefilling(self) -> bool:
        """Return whether the prompt is not fully computed yet."""
        return self.prompt_left > 0

    @abstractmethod
    def release(self) -> None:
        """Free the memory of its keys and values; the tokens stay."""

    def _drop_ended(self, end_tokens: Collection[int]) -> None:
        self._active = [
            sample
            for sample in self._active
            if self.tokens[sample][-1] not in end_tokens and len(self.tokens[sample]) < self.request.params.length
        ]


class Pass(NamedTuple):
    """What a pass did.

    Attributes:
        rows: How many it computed.
        baseline_seconds: What it would have taken on an idle machine with all threads.
        compared: How many drafts were compared with a token.
        equal: How many of these were right.
    """

    rows: int
    baseline_seconds: float
    compared: int = 0
    equal: int = 0


class Runner(Protocol):
    """Computes the passes of requests that it has started.

    Attributes:
        cost: Its passes' durations on an idle machine.
    """

    cost: Throughput

    def start(self, prompt_ids: Sequence[int], request: ContinuationRequest) -> Sequences:
        """Return the sequences of a request; it must fit, unless it is the only one."""
        ...

    def fits(self, running: Sequence[Any], prompt_tokens: int, request: ContinuationRequest) -> bool:
        """Return whether there is memory for one more request beside those that run."""
        ...

    def advance(self, groups: Sequence[Any]) -> Pass:
        """Run a pass for all groups: a chunk of the prompt for some, a token for each sample of the others.

        Raises:
            FloatingPointError: The model computed numbers that are not finite.
            RuntimeError: PyTorch cannot compute it. After either error the pass can be repeated.
        """
        ...

    def repeat(self, group: Any) -> None:
        """Run a pass that failed for one group of several."""
        ...
