"""What an engine says when it does not take or cannot finish a request; the same words, wherever it computes."""

from __future__ import annotations

from typing import Final

from bot.errors import UnavailableError
from bot.text import say

SHUTTING_DOWN: Final = say("I'm shutting down. Ask again in a minute.")


def too_many(count: int) -> UnavailableError:
    """Too many wait already."""
    return UnavailableError(say("{count} requests are waiting already. Try again in a few minutes.", count=count))


def too_long(seconds: float) -> UnavailableError:
    """The wait would outlast what Discord allows."""
    return UnavailableError(
        say(
            "I'm so busy that this would take about {minutes} minutes, longer than Discord lets me answer. "
            "Try again later.",
            minutes=round(seconds / 60),
        )
    )


def failed(error: BaseException | None = None) -> UnavailableError:
    """A computation ended without a result; the log has had the details."""
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return UnavailableError(say("This was too much for my memory. Try fewer samples or a shorter prompt."))
    return UnavailableError(say("Something went wrong while I computed this. Try again."))


def out_of_reach() -> UnavailableError:
    """The machines that compute have been away for a while."""
    return UnavailableError(say("I can't reach the machines that compute for me. Try again in a few minutes."))


def no_answer() -> UnavailableError:
    """The machines that compute did not answer before the interaction ends."""
    return UnavailableError(
        say("The machines that compute for me did not answer in time, so I have to give this up. Ask again.")
    )
