"""Refusals of requests, worded the same in every engine."""

from __future__ import annotations

from typing import Final

from bot.errors import UnavailableError
from bot.text import say

SHUTTING_DOWN: Final = say("I'm shutting down. Ask again in a minute.")


def queue_full(count: int) -> UnavailableError:
    """Refuse because the queue is full."""
    return UnavailableError(say("{count} requests are waiting already. Try again in a few minutes.", count=count))


def wait_too_long(seconds: float) -> UnavailableError:
    """Refuse because the wait would outlast the interaction."""
    return UnavailableError(
        say(
            "I'm so busy that this would take about {minutes} minutes, longer than Discord lets me answer. "
            "Try again later.",
            minutes=round(seconds / 60),
        )
    )


def failed(error: BaseException | None = None) -> UnavailableError:
    """Refuse because the computation failed; the details are in the log."""
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return UnavailableError(say("That needed more memory than I have. Try fewer samples or a shorter prompt."))
    if isinstance(error, FloatingPointError):
        return UnavailableError(
            say("On this text the model's numbers grow beyond all limits, so it has no next word. Try another text.")
        )
    return UnavailableError(say("Something went wrong while I computed this. Try again."))


def cluster_unreachable() -> UnavailableError:
    """Refuse because the cluster has been unreachable for a while."""
    return UnavailableError(say("I can't reach the machines that compute for me. Try again in a few minutes."))


def cluster_timed_out() -> UnavailableError:
    """Refuse because the cluster did not answer before the interaction ends."""
    return UnavailableError(say("The machines that compute for me did not answer in time. Ask again."))
