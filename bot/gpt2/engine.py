"""The front door to GPT-2: what the rest of the bot asks of it, wherever it computes.

`bot.gpt2.local.engine.LocalEngine` computes on this machine. Whoever uses an engine knows this protocol and no more.
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
"""Requests that may be accepted and not yet answered."""

MAX_WAIT_SECONDS: Final = 14 * 60.0
"""Longest wait that is accepted: an interaction can be answered for 15 minutes, and delivery takes its time."""


class Engine(Protocol):
    """Owns a model. `start` it once, `close` it once; everything else may be asked at any time, many times at once."""

    model_name: str
    """As the host gave it: a hub name, a folder, or the model that ships."""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        ...

    @property
    def example_prompt(self) -> str:
        """A prompt that suits the model."""
        ...

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered."""
        ...

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of late, all requests together; None before anything was measured."""
        ...

    @property
    def statistics(self) -> Statistics:
        """What it has done so far, and whether its worker goes on."""
        ...

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The same of each of those who compute, by name; the only one of this process has none."""
        ...

    async def start(self) -> None:
        """Make the model ready; returns when it is.

        Raises:
            OperatorError: It cannot be loaded. Whoever waits for it gets ModelNotLoadedError.
        """
        ...

    def stop(self) -> None:
        """Stop what is running within one token and refuse everything else from now on."""
        ...

    async def close(self) -> None:
        """`stop`, and release what is held."""
        ...

    async def model(self) -> ModelInfo:
        """What people may know of the model, once it is loaded."""
        ...

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> Ticket:
        """Accept a request; what becomes of it is asked of the ticket.

        While the model is still being loaded, a prompt that is too long is found only later: `Ticket.result` raises.

        Args:
            request: What to continue.
            owner: Whose share of the machine it takes: everyone gets the same while several wait.

        Raises:
            InvalidInputError: Prompt and continuation do not fit the context together.
            UnavailableError: The queue is full, or the wait would outlast what Discord allows.
        """
        ...

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """The samples of one request. Cancelling the call stops the computation within one token.

        Raises:
            InvalidInputError: Prompt and continuation do not fit the context together.
            UnavailableError: It was not accepted or could not be computed.
        """
        ...

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """What the model does with a text: plain arrays, computed in turn with the continuations.

        Raises:
            InvalidInputError: The text does not suit the question.
            UnavailableError: Too much waits already, or it could not be computed.
        """
        ...

    async def parameters(self, part: str = "") -> tuple[ParameterInfo, ...]:
        """The entries of the state dict whose names contain `part`, in its order.

        Raises:
            InvalidInputError: No name contains it.
        """
        ...

    async def complete_name(self, typed: str, most: int) -> tuple[str, ...]:
        """Up to `most` names of parameters that what was typed may become; none while the model is being loaded."""
        ...

    async def select(self, name: str, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """The slice of a parameter that a person asked for; see `ParameterSlice.parse`. Nothing is read yet.

        Raises:
            InvalidInputError: No such parameter, or a slice that cannot be used.
        """
        ...

    async def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """The values of a slice: float32, in its shape."""
        ...


class Ticket(Protocol):
    """A request that was accepted: watch it, wait for it, stop it."""

    @property
    def request(self) -> ContinuationRequest:
        """What was asked."""
        ...

    def updates(self) -> AsyncIterator[Update]:
        """How it is getting on, the latest state each time and never the same twice; ends when it is done.

        Nothing is missed by asking seldom: what lies between is left out, the latest state never is.
        """
        ...

    async def result(self) -> Continuation:
        """The samples; those of a request that was stopped are as far as they got, or empty.

        Raises:
            InvalidInputError: Prompt and continuation do not fit the context together.
            UnavailableError: It could not be computed.
        """
        ...

    def stop(self) -> None:
        """End within one token; the result has what is there by then."""
        ...

    def abandon(self) -> None:
        """Nobody waits any more: end within one token, and let no error be reported."""
        ...


async def finished(engine: Engine, request: ContinuationRequest, owner: Hashable) -> Continuation:
    """What `Engine.continuation` does, whichever engine it is: ask, wait, and let go whatever happens."""
    ticket = await engine.submit(request, owner=owner)
    try:
        return await ticket.result()
    finally:
        ticket.abandon()
