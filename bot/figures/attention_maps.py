"""Common parts of attention maps: checks, the first-token sink, and the known kinds of head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from bot.figures.drawing.fonts import runs_leftwards
from bot.figures.drawing.wording import percent
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot.figures.drawing.picture import Array

Sink = Literal["raw", "removed"]
"""The attention on the first token: shown, or removed with each row rescaled to sum to 1."""

MAX_HEAD_TOKENS: Final = 40  # that the picture of one head can label
NOTABLE: Final = 0.4  # the least score with which a head is named
NAMED: Final = 3  # heads of a kind at most


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of head, defined by the target of its attention.

    Attributes:
        key: Its name in the scores.
        letter: Marks its heads on a picture.
        title: Its name on a picture.
        most: Heads that are named at most.
    """

    key: str
    letter: str
    title: str
    most: int = NAMED

    def does(self, share: str) -> Text:
        """Describe the share of attention that a head spends this way."""
        match self.key:
            case "previous":
                return say("{share} of attention on the previous token", share=share)
            case "induction":
                return say(
                    "{share} of attention on the token after an earlier occurrence of the same one (induction)",
                    share=share,
                )
            case "same":
                return say("{share} of attention on the token itself", share=share)
            case _:
                return say("{share} of attention on the first token", share=share)


KINDS: Final = (
    Kind("previous", "P", "previous token"),
    Kind("induction", "I", "induction"),
    Kind("same", "S", "same token"),
    Kind("first", "F", "first token", most=1),
)


@dataclass(frozen=True, slots=True)
class Notable:
    """A head with its score; layer and head count from 0."""

    kind: Kind
    layer: int
    head: int
    score: float

    @property
    def is_notable(self) -> bool:
        """Return whether the score is high enough to be marked."""
        return self.score >= NOTABLE

    def sentence(self) -> Text:
        """Name the head and describe its attention."""
        does = self.kind.does(f"{self.score:.0%}")
        return say("layer {layer}, head {head} with {does}", layer=self.layer + 1, head=self.head + 1, does=does)


def strongest_heads(scores: Mapping[str, Array], shape: tuple[int, int]) -> list[Notable]:
    """Return the strongest heads of each kind, in the order of `KINDS`, the strongest first.

    Each kind that was measured has at least one, and more where they reach `NOTABLE`.

    Raises:
        ValueError: The scores are not [layers, heads].
    """
    found = []
    for kind in KINDS:
        if kind.key not in scores:
            continue
        each = np.asarray(scores[kind.key])
        if each.shape != shape:
            raise ValueError(f"scores {kind.key!r} of shape {each.shape} for heads {shape}")
        known = np.where(np.isfinite(each), each, -np.inf)
        order = np.argsort(-known, axis=None, kind="stable")[: kind.most]
        ranked = [Notable(kind, int(at // shape[1]), int(at % shape[1]), float(known.flat[at])) for at in order]
        found += [head for rank, head in enumerate(ranked) if head.is_notable or (rank == 0 and head.score > -np.inf)]
    return found


def checked_maps(weights: Array, axes: int, tokens: int) -> Array:
    """Check that the last two axes of the weights are the tokens, and return them as float32.

    Raises:
        ValueError: They are not, or the array is empty.
    """
    if weights.ndim != axes or weights.shape[-2:] != (tokens, tokens) or weights.size == 0:
        raise ValueError(f"attention of shape {weights.shape} for {tokens} tokens")
    return weights.astype(np.float32, copy=False)


def without_future(weights: Array) -> Array:
    """Return the weights [..., T, T] with NaN for the tokens that causal attention cannot see."""
    seen = np.tri(weights.shape[-1], dtype=bool)
    return np.where(seen & np.isfinite(weights), weights, np.nan)


def without_sink(weights: Array) -> Array:
    """Return the weights [..., T, T] without the first token: [..., T - 1, T - 1], rows rescaled to sum to 1.

    Raises:
        ValueError: There is only one token.
    """
    if weights.shape[-1] == 1:
        raise ValueError("without the first token nothing is left of one token")
    rest = weights[..., 1:, 1:]
    sums = np.nansum(rest, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        rescaled: Array = np.where(sums > 0, rest / sums, np.nan)
    return rescaled


def sink_shares(weights: Array) -> Array:
    """Return the mean attention on the first token, [...], over all tokens but itself; NaN for one token."""
    if weights.shape[-1] == 1:
        return np.full(weights.shape[:-2], np.nan, np.float32)
    shares: Array = weights[..., 1:, 0].mean(axis=-1)
    return shares


def sink_sentence(sink: Sink, share: float) -> Text:
    """State the first token's share of attention, and how it is shown."""
    if np.isnan(share):
        return say("A single token can attend only to itself.")
    if sink == "removed":
        return say(
            "The first token, which gets {share} of the attention on average, is removed and rows are rescaled to 100%;"
            " gray is 100% by construction.",
            share=percent(share),
        )
    return say("The first token gets {share} of the attention on average.", share=percent(share))


def direction_note(pieces: Sequence[bytes]) -> tuple[Text, ...]:
    """State the order of the tokens, where their script runs from right to left."""
    if not runs_leftwards(b"".join(pieces).decode(errors="replace")):
        return ()
    return (say("Tokens stand from left to right in reading order."),)


def left_out_note(left_out: int, tokens: int) -> tuple[Text, ...]:
    """State that the model was given only the last tokens of the prompt, where some are left out."""
    if not left_out:
        return ()
    return (
        say(
            "The model was given only the last {shown} of {count} tokens.",
            count=tokens + left_out,
            shown=tokens,
        ),
    )


def colour_scale() -> Text:
    """Describe the square-root scale of shares."""
    return say("Colour scale: 0–100%, square root.")
