"""The interface between the scheduler and what computes its passes.

`bot.gpt2.local.eager` computes them on any device, `bot.gpt2.local.slots` on CUDA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.gpt2.requests import ContinuationRequest
    from bot.gpt2.throughput import Throughput


class Sequences(Protocol):
    """The samples of a request while they are computed.

    Attributes:
        tokens: New tokens of each sample so far.
    """

    tokens: list[list[int]]

    @property
    def done(self) -> bool:
        """Return whether every sample has ended or has its full length."""
        ...

    @property
    def rows(self) -> int:
        """Rows in a pass once the prompt is prefilled."""
        ...

    @property
    def tokens_left(self) -> int:
        """The most tokens that a sample still lacks."""
        ...

    @property
    def next_chunk(self) -> int:
        """Prompt positions in the next pass; 0 once the prompt is prefilled."""
        ...

    @property
    def prompt_left(self) -> int:
        """Prompt positions that are not computed yet."""
        ...

    @property
    def prefilling(self) -> bool:
        """Return whether the prompt is not fully computed yet."""
        ...

    def release(self) -> None:
        """Free the memory of its keys and values; the tokens stay."""
        ...


class Pass(NamedTuple):
    """What a pass did.

    Attributes:
        rows: How many it computed.
        drafting: Seconds that drafting would have taken on an idle machine with all threads.
        compared: How many drafts were compared with a token.
        equal: How many of these were right.
    """

    rows: int
    drafting: float = 0.0
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
