"""Questions about GPT-2's activations on a text, and their answers.

Questions are frozen and validate themselves; answers are frozen and hold numpy arrays. Both can be pickled. Layers and
heads that users choose count from 1; arrays are indexed from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from bot.gpt2.requests import MAX_SAMPLES, MAX_SEED, SamplingParams
from bot.gpt2.validation import MAX_PROMPT_CHARACTERS, check_range, checked_text, well_formed
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bot.text import Text

Answer_co = TypeVar("Answer_co", covariant=True)

MAX_MAP_TOKENS: Final = 40
"""Most tokens whose attention is computed; of a longer text, only the last so many are read."""

MIN_INDUCTION_LENGTH: Final = 5
MAX_INDUCTION_LENGTH: Final = 50
MAX_CANDIDATES: Final = 50
MAX_LENS_TOKENS: Final = 40
MAX_SILENCED_HEADS: Final = 10


class Question(Generic[Answer_co]):
    """Base class of the frozen dataclasses that `Engine.introspect` answers."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text in tokens.

    Attributes:
        ids: The token ids.
        pieces: The bytes of each token; one may be part of a character. Those of byte-level BPE, such as GPT-2's,
            are together the UTF-8 of the text.
    """

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokensQuestion(Question[Tokens]):
    """The tokenization of a text.

    Attributes:
        text: Any text with a visible character, of any number of tokens.
    """

    text: str

    def __post_init__(self) -> None:
        _check(self, "text", say("The text"))


@dataclass(frozen=True, slots=True)
class AttentionQuestion(Question["Attention"]):
    """The attention of all heads on a prompt.

    Attributes:
        prompt: At least two tokens; of more than `MAX_MAP_TOKENS`, only the last so many are read.
    """

    prompt: str

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """The attention of all heads.

    Attributes:
        tokens: The tokens that were read.
        left_out: Number of the prompt's tokens before those, which the model did not get.
        weights: [layers, heads, tokens, tokens]: attention of a row's position on a column's, 0 to 1.
        scores: Strength of each head's known behaviours, [layers, heads] each, NaN if the text has no occasion; see
            `bot.gpt2.local.scores.head_scores` for "previous", "first", "same" and "induction".
    """

    tokens: Tokens
    left_out: int
    weights: NDArray[np.float32]
    scores: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class HeadQuestion(Question["HeadAttention"]):
    """The attention of one head on a prompt.

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
        tokens: The tokens that were read.
        left_out: As in `Attention`.
        weights: [tokens, tokens], as in `Attention`.
    """

    tokens: Tokens
    left_out: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NextTokensQuestion(Question["NextTokens"]):
    """The next-token probabilities, before and after the sampling settings.

    Attributes:
        prompt: At most the model's context.
        params: The settings; temperature, top_k and top_p count.
        count: Number of candidates, 1 to 50.
        written: Tokens after the prompt, each as its bytes; read as they are, even where the tokenizer would split
            their text differently.
        chosen: One more token after these, by its id.
        draw: Whether one more token is drawn with the params, as one sample of one token would be.

    Raises:
        ValueError: A token is to be drawn without a seed.
    """

    prompt: str
    params: SamplingParams = field(default_factory=SamplingParams)
    count: int = 10
    written: tuple[bytes, ...] = ()
    chosen: int | None = None
    draw: bool = False

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))
        check_range("count", self.count, 1, MAX_CANDIDATES)
        if self.draw and self.params.seed is None:
            raise ValueError("a draw needs a seed")


@dataclass(frozen=True, slots=True, eq=False)
class NextTokens:
    """The most likely next tokens.

    Attributes:
        tokens: The tokens that were read.
        candidates: The most likely before the settings, in descending order.
        before: [candidates]: the model's probabilities.
        after: [candidates]: the probabilities that sampling draws from.
        rest_before: Total probability of all other tokens.
        rest_after: The same after the settings.
        kept: Number of tokens that can still be drawn.
        written: The tokens after the prompt, with the one that was chosen or drawn.
        share: The probability with which a token was drawn; None without a draw.
    """

    tokens: Tokens
    candidates: Tokens
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    rest_before: float
    rest_after: float
    kept: int
    written: Tokens = Tokens((), ())
    share: float | None = None


@dataclass(frozen=True, slots=True)
class SurpriseQuestion(Question["Surprise"]):
    """The surprise of each token of a text.

    Attributes:
        text: At most the model's context; at least two tokens, or one after `given`.
        given: The text before it, which is not measured; may be empty.
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
        tokens: The text, without the text given before it.
        bits: [tokens]: −log2 of the token's predicted probability; NaN for a first token, which has none. Their mean
            times ln 2 is Transformers' loss.
    """

    tokens: Tokens
    bits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LensQuestion(Question["Lens"]):
    """The next token that each layer would predict if it were the last (nostalgebraist's logit lens, 2020).

    Attributes:
        prompt: At most the model's context.
        last: Number of positions, 1 to 40: the last, or the last before `until`.
        until: The position before which they end; None for the end of the prompt.
    """

    prompt: str
    last: int = 10
    until: int | None = None

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))
        check_range("last", self.last, 1, MAX_LENS_TOKENS)
        if self.until is not None:
            check_range("until", self.until, 1, MAX_PROMPT_CHARACTERS)


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """The predictions of each layer: final norm and output matrix applied to its residual stream.

    Attributes:
        tokens: The whole prompt.
        positions: The positions that the arrays cover.
        tops: [layers + 1][positions]: the most likely next token after the embeddings (row 0) and each layer; the last
            row is the model's prediction.
        probabilities: [layers + 1, positions]: its probability in that row.
        settled: [positions]: the first row from which on all predict as the last.
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
        count: Number of next tokens, 1 to 50.
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
    """The comparison of two prompts.

    Attributes:
        first: Tokens and surprise of the first.
        second: The same of the second.
        candidates: The most likely next tokens after either, by the larger of their two probabilities.
        probabilities: [2, candidates].
        difference: [layers, heads, tokens, tokens]: attention in the second minus that in the first; None unless both
            have the same number of tokens, from 2 to `MAX_MAP_TOKENS`.
    """

    first: Surprise
    second: Surprise
    candidates: Tokens
    probabilities: NDArray[np.float32]
    difference: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class AblationQuestion(Question["Ablation"]):
    """What changes without some heads (zero ablation of their outputs).

    Attributes:
        prompt: At most the model's context.
        heads: Layer and head of each, from 1; one to `MAX_SILENCED_HEADS`.
        count: Number of next tokens, 1 to 50.
    """

    prompt: str
    heads: tuple[tuple[int, int], ...]
    count: int = 6

    def __post_init__(self) -> None:
        _check(self, "prompt", say("The prompt"))
        object.__setattr__(self, "heads", tuple(sorted(set(self.heads))))
        check_range(say("The number of heads"), len(self.heads), 1, MAX_SILENCED_HEADS)
        check_range("count", self.count, 1, MAX_CANDIDATES)


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """The model with all its heads, and without some. Row 0 of the arrays is with them, row 1 without.

    Attributes:
        tokens: The prompt.
        candidates: The most likely next tokens of either, by the larger of their two probabilities.
        probabilities: [2, candidates].
        bits: [2, tokens]: the surprise of each token, NaN for the first.
    """

    tokens: Tokens
    candidates: Tokens
    probabilities: NDArray[np.float32]
    bits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InductionQuestion(Question["Induction"]):
    """The search for induction heads with random tokens, repeated once (Olsson et al., 2022).

    Attributes:
        length: Number of different tokens before the repetition, 5 to 50.
        seed: Of the question's own `torch.Generator`; the tokens are the first of `torch.randperm(vocabulary)`.
    """

    length: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(say("length"), self.length, MIN_INDUCTION_LENGTH, MAX_INDUCTION_LENGTH)
        check_range(say("seed"), self.seed, 0, MAX_SEED)


@dataclass(frozen=True, slots=True, eq=False)
class Induction:
    """The attention of each head on the token after the earlier occurrence of the current one.

    Attributes:
        tokens: The random tokens and their repetition, 2 · length.
        scores: [layers, heads]: mean attention of the second half's tokens on that token.
        layer: Layer of the head with the highest score, from 1.
        head: That head, from 1.
        weights: [2 · length, 2 · length]: its attention; the stripe is the diagonal 1 − length.
    """

    tokens: Tokens
    scores: NDArray[np.float32]
    layer: int
    head: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InsightsQuestion(Question["Insights"]):
    """Surprise and similarity of several continuations of one prompt.

    Attributes:
        prompt: The common prompt.
        samples: One to ten continuations, each as text or as exact token ids.
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
    """Surprise and similarity of several continuations.

    Attributes:
        prompt: The prompt's tokens.
        samples: Tokens and surprise of each, from its first token on.
        similarity: [samples, samples]: Jaccard similarity of the token sets, 0 to 1; NaN if both are empty.
    """

    prompt: Tokens
    samples: tuple[Surprise, ...]
    similarity: NDArray[np.float32]


def _check(question: object, field: str, what: Text) -> None:
    object.__setattr__(question, field, checked_text(getattr(question, field), what))


@dataclass(frozen=True, slots=True)
class VisibleEnd(Question[str]):
    """The end of a text that leaves room in the context for new tokens.

    A shortened text begins with a whole word. The result is never longer than a prompt may be.

    Attributes:
        text: A text of any length.
        length: Number of new tokens that must fit after it.
        behind: Texts each of which must fit after it, too. A sample's text may take more tokens than it was written in.
    """

    text: str
    length: int
    behind: tuple[str, ...] = ()
