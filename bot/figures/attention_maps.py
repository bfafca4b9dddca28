"""What attention maps have in common: checks, the first-token sink, and the kinds of head that are known."""

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
"""Whether the attention on the first token is shown, or taken out and each row rescaled to 1 without it."""

MOST_HEAD_TOKENS: Final = 40  # that the picture of one head can label
NOTABLE: Final = 0.4  # the least score with which a head is named
A_LOT: Final = 0.2  # of the attention, to be explained
NAMED: Final = 3  # heads of a kind at most


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of head, told by where its attention goes.

    Attributes:
        key: Its name in the scores.
        letter: What marks its heads on a picture.
        title: Its name on a picture.
        most: How many heads of it are named.
    """

    key: str
    letter: str
    title: str
    most: int = NAMED

    def does(self, share: str) -> Text:
        """Says how much of its attention a head spends so."""
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
    """A head and why it is named; layer and head count from 0."""

    kind: Kind
    layer: int
    head: int
    score: float

    @property
    def is_notable(self) -> bool:
        """Whether it does so enough to be marked."""
        return self.score >= NOTABLE

    def sentence(self) -> Text:
        """Names the head and says what it does."""
        does = self.kind.does(f"{self.score:.0%}")
        return say("layer {layer}, head {head} with {does}", layer=self.layer + 1, head=self.head + 1, does=does)


def strongest_heads(scores: Mapping[str, Array], shape: tuple[int, int]) -> list[Notable]:
    """The strongest heads of each kind, in the order of `KINDS`, the strongest first; none of a kind not measured.

    Of each kind there is at least one, and more where they reach `NOTABLE`.

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
    """The weights as float32, having checked that their last two axes are the tokens.

    Raises:
        ValueError: They are not, or there is nothing.
    """
    if weights.ndim != axes or weights.shape[-2:] != (tokens, tokens) or weights.size == 0:
        raise ValueError(f"attention of shape {weights.shape} for {tokens} tokens")
    return weights.astype(np.float32, copy=False)


def without_future(weights: Array) -> Array:
    """The weights [..., T, T] with NaN for what a token cannot see."""
    seen = np.tri(weights.shape[-1], dtype=bool)
    return np.where(seen & np.isfinite(weights), weights, np.nan)


def without_sink(weights: Array) -> Array:
    """The weights [..., T, T] without the first token: [..., T - 1, T - 1], each row rescaled to sum to 1.

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
    """[...]: what share of the attention of all tokens but the first goes to the first, NaN for one token."""
    if weights.shape[-1] == 1:
        return np.full(weights.shape[:-2], np.nan, np.float32)
    shares: Array = weights[..., 1:, 0].mean(axis=-1)
    return shares


def sink_sentences(sink: Sink, share: float) -> tuple[Text, ...]:
    """Says what became of the first token, and that its part is normal."""
    if np.isnan(share):
        return (say("A single token can attend only to itself."),)
    sentences = [say("On average {share} of the attention goes to the first token.", share=percent(share))]
    if share >= A_LOT:
        sentences.append(say("That is normal: heads look there when they find nothing else to look at."))
    if sink == "removed":
        sentences.append(
            say(
                "Here the first token is taken out and each row is rescaled to 100%. The second token then has only"
                " itself (gray): that is so by construction."
            )
        )
    return tuple(sentences)


def direction_note(pieces: Sequence[bytes]) -> tuple[Text, ...]:
    """Says in which order tokens stand, where their script runs the other way."""
    if not runs_leftwards(b"".join(pieces).decode(errors="replace")):
        return ()
    return (say("Tokens stand from left to right in the order in which the model reads them."),)


def caution() -> Text:
    """What people over-read."""
    return say("Attention says where a head looks, not why the model answers as it does.")


def in_code(layer: int, head: int) -> Text:
    """How the code counts a head; `layer` and `head` count from 0."""
    return say(
        "Layer {layer}, head {head} is h.{layer_index} and head index {head_index} in the code.",
        layer=layer + 1,
        head=head + 1,
        layer_index=layer,
        head_index=head,
    )


def brightness() -> Text:
    """The scale of attention."""
    return say("Brightness is the square root of the share, from 0 to 100%: faint attention shows, nothing is cut.")
