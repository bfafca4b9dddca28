"""The question how a sample came about, token by token, and its answer; see `bot.gpt2.questions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bot.gpt2.questions import MAX_CANDIDATES, Question
from bot.gpt2.validation import check_range

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.questions import Tokens
    from bot.gpt2.requests import ContinuationRequest

MAX_WATCHED_TOKENS: Final = 40


@dataclass(frozen=True, slots=True)
class WritingQuestion(Question["Writing"]):
    """How one sample of a continuation came about, token by token.

    Attributes:
        request: The continuation; its tokens are those of `Engine.continuation`.
        sample: Which of its samples, from 1.
        most: Number of its first tokens, 1 to `MAX_WATCHED_TOKENS`.
        count: Number of candidates for each, 1 to 50.
    """

    request: ContinuationRequest
    sample: int = 1
    most: int = 24
    count: int = 6

    def __post_init__(self) -> None:
        check_range("sample", self.sample, 1, self.request.params.rows)
        check_range("most", self.most, 1, MAX_WATCHED_TOKENS)
        check_range("count", self.count, 1, MAX_CANDIDATES)


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """The first tokens of a sample, and what each was drawn from.

    Attributes:
        prompt: The prompt's tokens.
        chosen: The new tokens, an end of text included.
        candidates: For each the most likely tokens before the settings, in descending order; the last is the chosen
            one where it is not among them.
        before: [chosen, candidates]: the model's probabilities.
        after: [chosen, candidates]: the probabilities that were drawn from.
        draws: [chosen, candidates]: that probability divided by a random number of the seed. The token with the
            largest quotient in the vocabulary is taken, as in `torch.multinomial`. Greedy: `after`.
        kept: [chosen]: number of tokens that could be drawn.
        ended: Whether the text ends there, by an end of text or by its length.
    """

    prompt: Tokens
    chosen: Tokens
    candidates: tuple[Tokens, ...]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    draws: NDArray[np.float32]
    kept: NDArray[np.int64]
    ended: bool
