"""The asynchronous interface to GPT-2, which is all that the rest of the bot knows of it.

`bot.gpt2.local.engine.LocalEngine` computes on this machine, `bot.gpt2.cluster.engine.ClusterEngine` on a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.model_info import ModelInfo, ParameterInfo, ParameterSlice
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import Continuation, ContinuationRequest, Update
    from bot.gpt2.statistics import Statistics

Answer = TypeVar("Answer")

MAX_WAITING: Final = 200
"""Limit of requests that are accepted and not yet answered."""

MAX_WAIT_SECONDS: Final = 14 * 60.0
"""Longest accepted wait: an interaction can be answered for 15 minutes, and one is left for delivery."""


class Engine(Protocol):
    """A model and its workers. Call `start` and `close` once; call everything else at any time, concurrently too."""

    model_name: str
    """The operator's name for the model: a hub name, a folder, or that of the shipped model."""

    @property
    def ready(self) -> bool:
        """Return whether the model is loaded."""
        ...

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered."""
        ...

    @property
    def tokens_per_second(self) -> float | None:
        """Recent speed over all requests; None before the first measurement."""
        ...

    @property
    def statistics(self) -> Statistics:
        """The work done so far, and whether the workers make progress."""
        ...

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The statistics of each worker by name; a single worker in this process has the name ""."""
        ...

    async def start(self) -> None:
        """Load the model and return when it is ready.

        Raises:
            OperatorError: It cannot be loaded; callers that wait for it get ModelNotLoadedError, or DeviceError if a
                later start may succeed.
        """
        ...

    async def watch(self) -> None:
        """Wait until the engine is stopped, or until it can never compute again.

        Raises:
            DeviceError: Its GPU is lost. All calls that compute, and their tickets, raise that, too.
        """
        ...

    def stop(self) -> None:
        """Stop running requests within one token and refuse all others from now on."""
        ...

    async def close(self) -> None:
        """Stop, and release all resources."""
        ...

    async def model(self) -> ModelInfo:
        """Return the description of the model, once it is loaded."""
        ...

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> Ticket:
        """Accept a request and return its ticket.

        While the model is being loaded, a prompt that is too long is found only later: `Ticket.result` raises.

        Args:
            request: The prompt and how to continue it.
            owner: Whose share of the machine it takes; owners with waiting requests get equal shares.

        Raises:
            InvalidInputError: Prompt and continuation exceed the context.
            UnavailableError: The queue is full, or the wait would outlast what Discord allows.
        """
        ...

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """Compute the samples of one request. Cancelling the call stops the computation within one token.

        Raises:
            InvalidInputError: Prompt and continuation exceed the context.
            UnavailableError: It was refused or failed.
        """
        ...

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """Answer a question about the model's activations with arrays, interleaved with the continuations.

        Raises:
            InvalidInputError: The text does not suit the question.
            UnavailableError: Too many questions wait, or it failed.
        """
        ...

    async def parameters(self, part: str = "") -> tuple[ParameterInfo, ...]:
        """Return the entries of the state dict whose names contain `part`, in its order.

        Raises:
            InvalidInputError: No name contains it.
        """
        ...

    async def complete_name(self, typed: str, most: int) -> tuple[str, ...]:
        """Return up to `most` parameter names that complete the input; none while the model is being loaded."""
        ...

    async def select(self, name: str, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """Parse a slice of a parameter, see `ParameterSlice.parse`, without reading its values.

        Raises:
            InvalidInputError: No such parameter, or an invalid slice.
        """
        ...

    async def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """Return the values of a slice: float32, in its shape."""
        ...


class Ticket(Protocol):
    """An accepted request, to be followed, awaited or stopped."""

    @property
    def request(self) -> ContinuationRequest:
        """The accepted request."""
        ...

    def updates(self) -> AsyncIterator[Update]:
        """Yield the latest state each time it has changed, until the request is done.

        A slow consumer skips intermediate states but never the latest.
        """
        ...

    async def result(self) -> Continuation:
        """Return the samples; those of a stopped request are partial or empty.

        Raises:
            InvalidInputError: Prompt and continuation exceed the context.
            UnavailableError: It failed.
        """
        ...

    def stop(self) -> None:
        """Stop within one token; the result has the tokens so far."""
        ...

    def abandon(self) -> None:
        """Stop within one token and ignore the result and any error."""
        ...


async def run_to_completion(engine: Engine, request: ContinuationRequest, owner: Hashable) -> Continuation:
    """Implement `Engine.continuation`: submit, wait, and abandon the ticket on any exit."""
    ticket = await engine.submit(request, owner=owner)
    try:
        return await ticket.result()
    finally:
        ticket.abandon()
