"""The place of a request in the queue, or its progress, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from bot.gpt2.requests import Loading, Progress, Queued
from bot.text import Text, say

if TYPE_CHECKING:
    from bot.gpt2.requests import ContinuationRequest, Update

_LONGEST_SECONDS: Final = 90


def standing(request: ContinuationRequest, update: Update) -> Text:
    """Return the progress of a request in words."""
    match update:
        case Loading():
            return say("Waiting for the model, which is being loaded")
        case Queued():
            return say("Number {position} in the queue · {time} to go", position=update.position, time=_time(update))
        case Progress():
            return say(
                "{done} of {all} tokens · {time} to go",
                done=sum(map(len, update.token_ids)),
                all=request.params.rows * request.params.length,
                time=_time(update),
            )


def _time(update: Queued | Progress) -> Text:
    seconds = max(math.ceil(update.seconds), 1)
    if seconds <= _LONGEST_SECONDS:
        return say("about {seconds} s", seconds=seconds)
    return say("about {minutes} min", minutes=math.ceil(seconds / 60))
