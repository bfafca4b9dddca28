"""What can be asked about what GPT-2 does with a text, and the plain numbers that come back.

Questions are frozen and refuse what cannot be asked where they are built; answers are frozen and hold numpy arrays.
Both can be pickled. Layers and heads that people choose count from 1; arrays are indexed from 0, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from bot.gpt2.requests import MAX_SAMPLES, MAX_SEED, SamplingParams
from bot.gpt2.validation import check_range, checked_text, well_formed
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bot.text import Text

Answer_co = TypeVar("Answer_co", covariant=True)

MAX_MAP_TOKENS: Final = 40
"""Tokens up to which the attention of all heads is given at once; of a longer text the last so many are read alone."""

MIN_INDUCTION_LENGTH: Final = 5
MAX_INDUCTION_LENGTH: Final = 50
MAX_CANDIDATES: Final = 50
MAX_LENS_TOKENS: Final = 40


class Question(Generic[Answer_co]):
    """Base of the frozen dataclasses that `Engine.introspect` answers; `bot.gpt2.local.introspection` knows how."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the model reads it.

    Attributes:
        ids: One number a token.
        pieces: The bytes that each stands for, joined the UTF-8 of the text: one may be half a character.
    """

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokensQuestion(Question[Tokens]):
    """How a text falls into tokens.

    Attributes:
        text: Any with something to see in it, of any number of tokens.
    """

    text: str

    def __post_init__(self) -> None:
        _check(self, "text", say("The text"))


@dataclass(frozen=True, slots=True)
class AttentionQuestion(Question["Attention"]):
    """What every head looks at while the model reads a prompt.

    Attributes:
        prompt: At least two tokens; of more than `MAX_MAP_TOKENS`, the last so many are read, without what precedes
            them.
    """

    prompt: str

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """The attention of all heads.

    Attributes:
        tokens: What was read.
        left_out: Tokens of the prompt before those, which the model was not given.
        weights: [layers, heads, tokens, tokens]: the share, 0 to 1, that a row's position takes from a column's.
        scores: How much each head does one thing, [layers, heads] each, NaN where the text gives no occasion; see
            `bot.gpt2.local.introspection.head_scores` for "previous", "first", "same" and "induction".
    """

    tokens: Tokens
    left_out: int
    weights: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class HeadQuestion(Question["HeadAttention"]):
    """What one head looks at while the model reads a prompt.

    Attributes:
        prompt: As in `AttentionQuestion`.
        layer: From 1.
        head: From 1.
    """

    prompt: str
    layer: int
    head: int

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))


@dataclass(frozen=True, slots=True, eq=False)
class HeadAttention:
    """The attention of one head.

    Attributes:
        tokens: What was read.
        left_out: As in `Attention`.
        weights: [tokens, tokens], as in `Attention`.
    """

    tokens: Tokens
    left_out: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NextTokensQuestion(Question["NextTokens"]):
    """What may come next, before and after the settings of sampling.

    Attributes:
        prompt: At most the model's context.
        params: The settings; temperature, top_k and top_p count.
        count: How many candidates to name, 1 to 50.
    """

    prompt: str
    params: SamplingParams = field(default_factory=SamplingParams)
    count: int = 10

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))
        check_range("count", self.count, 1, MAX_CANDIDATES)


@dataclass(frozen=True, slots=True, eq=False)
class NextTokens:
    """The likeliest next tokens.

    Attributes:
        tokens: What was read.
        candidates: The likeliest before the settings, in falling order.
        before: [candidates]: their probabilities as the model gives them.
        after: [candidates]: their probabilities as they are drawn from.
        rest_before: The probability of all other tokens together.
        rest_after: The same after the settings.
        kept: How many tokens of the vocabulary can still be drawn.
    """

    tokens: Tokens
    candidates: Tokens
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    rest_before: float
    rest_after: float
    kept: int


@dataclass(frozen=True, slots=True)
class SurpriseQuestion(Question["Surprise"]):
    """How little the model expected each token of a text.

    Attributes:
        text: At most the model's context; at least two tokens, or one after `given`.
        given: What stands before it and is not measured; may be empty.
    """

    text: str
    given: str = ""

    def __post_init__(self) -> None:
        _check(self, "text", say("The text"))
        object.__setattr__(self, "given", well_formed(self.given))


@dataclass(frozen=True, slots=True, eq=False)
class Surprise:
    """The surprise of each token of a text.

    Attributes:
        tokens: The text, without what was given before it.
        bits: [tokens]: −log2 of the probability that the model gave the token; NaN for a first one, before which
            there is nothing to expect it from. Their mean times ln 2 is Transformers' loss.
    """

    tokens: Tokens
    bits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LensQuestion(Question["Lens"]):
    """What each layer would say next if it were the last (nostalgebraist's logit lens, 2020).

    Attributes:
        prompt: At most the model's context.
        last: At how many of its last positions to look, 1 to 40.
    """

    prompt: str
    last: int = 10

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))
        check_range("last", self.last, 1, MAX_LENS_TOKENS)


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """What each layer would say next: the final norm and the output matrix put to its residual stream.

    Attributes:
        tokens: The whole prompt.
        positions: Which of its positions the arrays are about.
        tops: [layers + 1][positions]: the likeliest next token after the embeddings (row 0) and after each layer; the
            last row is the model's answer.
        probabilities: [layers + 1, positions]: how likely that row finds it.
        settled: [positions]: the first row from which on all have the model's answer on top.
    """

    tokens: Tokens
    positions: range
    tops: tuple[Tokens, ...]
    probabilities: NDArray[np.float32]
    settled: NDArray[np.int64]

    @property
    def shown(self) -> tuple[bytes, ...]:
        """The tokens at those positions."""
        return self.tokens.pieces[self.positions.start : self.positions.stop]


@dataclass(frozen=True, slots=True)
class ComparisonQuestion(Question["Comparison"]):
    """Two prompts side by side.

    Attributes:
        first: At most the model's context.
        second: The same.
        count: How many next tokens to name, 1 to 50.
    """

    first: str
    second: str
    count: int = 6

    def __post_init__(self) -> None:
        _check(self, "first", say("The first prompt"))
        _check(self, "second", say("The second prompt"))
        check_range("count", self.count, 1, MAX_CANDIDATES)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What the model makes of two prompts.

    Attributes:
        first: Tokens and surprise of the first.
        second: The same of the second.
        candidates: The next tokens that are likeliest after one or the other, by the larger of their probabilities.
        probabilities: [2, candidates].
        difference: [layers, heads, tokens, tokens]: attention in the second less that in the first; None where the
            prompts have not the same number of tokens, or less than 2 or more than `MAX_MAP_TOKENS`.
    """

    first: Surprise
    second: Surprise
    candidates: Tokens
    probabilities: NDArray[np.float32]
    difference: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class InductionQuestion(Question["Induction"]):
    """Which heads repeat what came after a token before: random tokens, twice over (Olsson et al., 2022).

    Attributes:
        length: Tokens before they are repeated, 5 to 50, all different.
        seed: Of a `torch.Generator` of the question's own; the tokens are the first of `torch.randperm(vocabulary)`.
    """

    length: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(say("length"), self.length, MIN_INDUCTION_LENGTH, MAX_INDUCTION_LENGTH)
        check_range(say("seed"), self.seed, 0, MAX_SEED)


@dataclass(frozen=True, slots=True, eq=False)
class Induction:
    """How much each head looks at the token after the earlier occurrence of the current one.

    Attributes:
        tokens: The random tokens twice over, 2 · length.
        scores: [layers, heads]: mean attention of the second half's tokens on that token.
        layer: Of the head with the highest score, from 1.
        head: The same, from 1.
        weights: [2 · length, 2 · length]: that head's attention; the stripe is its diagonal 1 − length.
    """

    tokens: Tokens
    scores: NDArray[np.float32]
    layer: int
    head: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InsightsQuestion(Question["Insights"]):
    """What the model makes of several continuations of one prompt.

    Attributes:
        prompt: What they continue.
        samples: One to ten continuations, each as text or, exactly, as token ids.
    """

    prompt: str
    samples: tuple[str | tuple[int, ...], ...]

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))
        check_range(say("samples"), len(self.samples), 1, MAX_SAMPLES)
        samples = tuple(well_formed(sample) if isinstance(sample, str) else tuple(sample) for sample in self.samples)
        object.__setattr__(self, "samples", samples)


@dataclass(frozen=True, slots=True, eq=False)
class Insights:
    """Surprise and likeness of several continuations.

    Attributes:
        prompt: The prompt's tokens.
        samples: Tokens and surprise of each, the first token's included.
        similarity: [samples, samples]: of the different tokens that two have, the share that both have (Jaccard), 0 to
            1; NaN where both are empty.
    """

    prompt: Tokens
    samples: tuple[Surprise, ...]
    similarity: NDArray[np.float32]


def _check(question: object, field: str, what: Text) -> None:
    object.__setattr__(question, field, checked_text(getattr(question, field), what))


@dataclass(frozen=True, slots=True)
class VisibleEnd(Question[str]):
    """Of a text that may be longer than the context: the end that the model sees if it is to write some tokens more.

    Where something is left out, it begins with a whole word. It is never longer than a prompt may be.

    Attributes:
        text: Any length.
        length: How many new tokens must have room behind it.
        behind: Texts each of which must have it, too. Read, a sample can be more tokens than it was written as.
    """

    text: str
    length: int
    behind: tuple[str, ...] = ()
