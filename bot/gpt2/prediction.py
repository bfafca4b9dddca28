"""The question about what one model makes of a text, for a comparison of models; see `bot.gpt2.questions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.gpt2.questions import MAX_CANDIDATES, Question
from bot.gpt2.validation import check_range, checked_text
from bot.text import say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.questions import Surprise, Tokens


@dataclass(frozen=True, slots=True)
class PredictionQuestion(Question["Prediction"]):
    """The surprise of a text's tokens, and the next token after it.

    Attributes:
        prompt: At most the model's context.
        among: Tokens of any model, as bytes, whose probabilities are asked for, too.
        count: Number of next tokens, 1 to 50.
    """

    prompt: str
    among: tuple[bytes, ...] = ()
    count: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", checked_text(self.prompt, say("The prompt")))
        check_range("count", self.count, 1, MAX_CANDIDATES)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What one model makes of a text.

    Attributes:
        text: Tokens and surprise.
        candidates: The most likely next tokens, in descending order.
        probabilities: [candidates].
        among: [tokens asked for], their probabilities; NaN where the model has no such token.
    """

    text: Surprise
    candidates: Tokens
    probabilities: NDArray[np.float32]
    among: NDArray[np.float32]


def shared_candidates(predictions: tuple[Prediction, Prediction], count: int) -> tuple[bytes, ...]:
    """Return the next tokens that two models together find likeliest, by the larger of their two probabilities.

    The likeliest one of each is among them, also where its model is much less certain than the other.
    """
    likelihood: dict[bytes, float] = {}
    for prediction in predictions:
        for piece, share in zip(prediction.candidates.pieces, prediction.probabilities, strict=True):
            likelihood[piece] = max(likelihood.get(piece, 0.0), float(share))
    order = sorted(likelihood, key=lambda piece: -likelihood[piece])
    first = {prediction.candidates.pieces[0] for prediction in predictions}
    chosen = {*first, *[piece for piece in order if piece not in first][: max(count - len(first), 0)]}
    return tuple(piece for piece in order if piece in chosen)
