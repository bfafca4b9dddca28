"""What can be asked of GPT-2 and what comes back: frozen, validated where it is built, free of torch and Discord."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bot.gpt2.validation import check_range, checked_text
from bot.text import say

MIN_SAMPLES: Final = 1
MAX_SAMPLES: Final = 10
MIN_LENGTH: Final = 1
MAX_LENGTH: Final = 200
MAX_SEED: Final = 2**32 - 1
MIN_TEMPERATURE: Final = 0.0
MAX_TEMPERATURE: Final = 2.0
COLDEST: Final = 1e-30  # logits divided by less could overflow float32: the limit is the likeliest token
MAX_TOP_K: Final = 1000
TUTORIAL_PROMPT: Final = "Hello, I'm a language model,"
"""The prompt of "Understanding GPT-2", the tutorial that this bot began as."""
TUTORIAL_SEED: Final = 42
Veil = Literal["none", "blurred", "hidden"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The settings that, with a prompt and a model, determine every token.

    Attributes:
        seed: Of the request's own `torch.Generator`, 0 to 4294967295; None until one is drawn.
        samples: Number of continuations, 1 to 10.
        length: Number of new tokens each may have, 1 to 200.
        temperature: Divides the logits, 0 to 2; 0 (below 1e-30) takes the likeliest token each time (greedy).
        top_k: Keeps the k likeliest tokens, 0 to 1000; 0 keeps all.
        top_p: Keeps the smallest set of tokens whose probabilities reach this sum, 0 to 1; 1 keeps all.

    Raises:
        InvalidInputError: A value is out of its range.
    """

    seed: int | None = None
    samples: int = 5
    length: int = 40
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.seed is not None:
            check_range(say("seed"), self.seed, 0, MAX_SEED)
        check_range(say("samples"), self.samples, MIN_SAMPLES, MAX_SAMPLES)
        check_range(say("length"), self.length, MIN_LENGTH, MAX_LENGTH)
        check_range(say("temperature"), self.temperature, MIN_TEMPERATURE, MAX_TEMPERATURE)
        check_range(say("top_k"), self.top_k, 0, MAX_TOP_K)
        check_range(say("top_p"), self.top_p, 0, 1)
        # Discord sends a whole number as an integer, and buttons remember the kind of number.
        object.__setattr__(self, "temperature", float(self.temperature))
        object.__setattr__(self, "top_p", float(self.top_p))

    @property
    def greedy(self) -> bool:
        """Return whether nothing is drawn: each token is the likeliest."""
        return self.temperature < COLDEST

    @property
    def rows(self) -> int:
        """Number of sequences that the model computes: greedy samples are all the same, so one stands for all."""
        return 1 if self.greedy else self.samples


@dataclass(frozen=True, slots=True)
class ContinuationRequest:
    """Continue a prompt with several samples, all drawn from one seed.

    Attributes:
        prompt: Any text with at least one visible character; halves of surrogate pairs become U+FFFD, since no
            encoding of text has them.
        params: The settings, with a seed.

    Raises:
        InvalidInputError: The prompt cannot be used.
        ValueError: There is no seed.
    """

    prompt: str
    params: SamplingParams

    def __post_init__(self) -> None:
        if self.params.seed is None:
            raise ValueError("a request needs a seed")
        object.__setattr__(self, "prompt", checked_text(self.prompt, say("The prompt")))

    @property
    def seed(self) -> int:
        """The seed of `params`, which every request has."""
        seed = self.params.seed
        assert seed is not None  # noqa: S101 # held by __post_init__
        return seed


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation.

    Attributes:
        token_ids: The new tokens, an end-of-text token included where the model wrote one.
        text: Those tokens decoded without special tokens, as the text-generation pipeline does; the prompt is
            not part of it.
        ended: Whether the model ended the text before the length was reached.
        veil: The moderation of an offensive sample: "blurred" is hidden until clicked, "hidden" has lost its text.
    """

    token_ids: tuple[int, ...]
    text: str
    ended: bool
    veil: Veil = "none"


@dataclass(frozen=True, slots=True)
class Continuation:
    """The answer to a `ContinuationRequest`.

    Attributes:
        request: What was asked.
        prompt_tokens: How many tokens the prompt has.
        samples: `request.params.rows` samples, in the order of the pipeline's.
        seconds: From the start of the computation to its end, waiting in the queue not counted.
        stopped: Whether it was stopped before the samples were whole.
    """

    request: ContinuationRequest
    prompt_tokens: int
    samples: tuple[Sample, ...]
    seconds: float
    stopped: bool = False

    @property
    def new_tokens(self) -> int:
        """Tokens computed over all samples."""
        return sum(len(sample.token_ids) for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Loading:
    """A request waits for the model, which is still being loaded."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A request waits.

    Attributes:
        position: 1 for the one that is taken next.
        seconds: How long until it is done, from the speed measured so far.
    """

    position: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A request is being computed.

    Attributes:
        token_ids: The new tokens of each sample so far; none while the prompt is being read.
        texts: What they say, without a character that is not complete yet.
        seconds: How long until it is done, from the speed measured so far.
        blurred: Whether the texts are hidden until clicked, because the operator moderates offensive ones.
    """

    token_ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    seconds: float
    blurred: bool = False


Update = Loading | Queued | Progress
