"""The likeliest next tokens, before and after the sampling settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.patches import Patch

from bot.figures.drawing import canvas
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import token_label, units
from bot.figures.drawing.wording import joined, listing, number, percent, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array

MAX_CANDIDATES: Final = 12  # rows that stay readable; later candidates count as the rest
LABELS: Final = 1.35  # inches for the tokens
VALUES: Final = 1.5  # inches for the percentages
FOOT: Final = 0.42
TOP: Final = 0.68
BEFORE, AFTER, CUT = "#80848e", "#56b4e9", "#ff7a2f"
TOLERANCE: Final = 1e-3  # to which probabilities must sum to 1
PROMPT_TOKENS: Final = 12  # of the prompt that the title may show
CROSS: Final = "✕"


@dataclass(frozen=True, slots=True)
class Draw:
    """Next-token probabilities, ready to draw.

    Attributes:
        labels: One for each candidate.
        before: [k + 1], the model's own probabilities, that of the rest last.
        after: [k + 1], as the settings leave them.
        settings: For the subtitle.
    """

    labels: list[str]
    before: Array
    after: Array
    settings: str

    @property
    def is_changed(self) -> bool:
        """Return whether the settings change anything."""
        return not np.allclose(self.before, self.after, atol=1e-6)

    @property
    def cut(self) -> list[int]:
        """The candidates that can no longer be drawn."""
        return [i for i in range(len(self.labels)) if self.after[i] == 0 < self.before[i]]


def next_tokens(
    *,
    prompt: Sequence[bytes],
    candidates: Sequence[bytes],
    before: Array,
    after: Array,
    rest_before: float,
    rest_after: float,
    temperature: float,
    top_k: int,
    top_p: float,
) -> Picture:
    """Draw the likeliest next tokens as bars, before and after the sampling settings, and the rest as one bar.

    Args:
        prompt: The prompt's tokens.
        candidates: The likeliest next tokens, the likeliest first; the first `MAX_CANDIDATES` are shown.
        before: [k], the model's own probabilities of the candidates.
        after: [k], their probabilities after the settings; 0 is what they cut.
        rest_before: The probability of all other tokens together, before.
        rest_after: The same after.
        temperature: The setting; 0 is greedy.
        top_k: The setting; 0 is off.
        top_p: The setting; 1 is off.

    Raises:
        ValueError: The arrays don't fit the candidates, or are no probabilities.
    """
    if not candidates or before.shape != (len(candidates),) or after.shape != before.shape:
        raise ValueError(f"{len(candidates)} candidates with probabilities {before.shape} and {after.shape}")
    sides = (_with_rest(before, rest_before), _with_rest(after, rest_after))
    labels = [token_label(piece) for piece in candidates[:MAX_CANDIDATES]]
    drawn = Draw(labels, *sides, f"temperature {number(temperature)}, top-k {top_k}, top-p {number(top_p)}")
    caption = _caption(drawn, temperature=temperature, top_k=top_k, top_p=top_p)
    return Picture(canvas.to_png(_figure(drawn, prompt)), _alt(drawn), caption, "next-token.png")


def _with_rest(probabilities: Array, rest: float) -> Array:
    """Return the probabilities of the candidates that are shown, followed by that of all other tokens."""
    shown = probabilities[:MAX_CANDIDATES].astype(np.float64)
    full = np.append(shown, float(probabilities[MAX_CANDIDATES:].sum()) + rest)
    if not (full >= -TOLERANCE).all() or abs(full.sum() - 1) > TOLERANCE:
        raise ValueError(f"these are no probabilities: they sum to {full.sum():.6f}")
    clipped: Array = np.clip(full, 0, 1)
    return clipped


def _figure(drawn: Draw, prompt: Sequence[bytes]) -> Figure:
    figure = canvas.clear_figure("What comes next?", drawn.settings)
    _show_prompt(figure, prompt)
    box = (LABELS, FOOT, canvas.WIDTH - LABELS - VALUES, canvas.HEIGHT - FOOT - TOP)
    axes = canvas.clear_axes(figure, box, "", "")
    rows = len(drawn.labels) + 1
    axes.set_ylim(rows - 0.42, -0.58)
    axes.set_xlim(0, max(drawn.before.max(), drawn.after.max()) * 1.04)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.axhline(rows - 1.5, color=canvas.LINE, linewidth=0.8)
    _bars(axes, drawn)
    for row, label in enumerate([*drawn.labels, "all others"]):
        look = {"color": canvas.MUTED if row == rows - 1 else canvas.INK}
        _beside(axes, row, canvas.truncate(figure, label, LABELS - 0.45), left=True, **look)
        _beside(axes, row, _values(drawn, row), left=False, **look)
        if row in drawn.cut:
            axes.plot(0, row + 0.2, marker="x", color=CUT, markersize=6, markeredgewidth=2, clip_on=False, zorder=4)
    _legend(axes, drawn)
    return figure


def _show_prompt(figure: Figure, prompt: Sequence[bytes]) -> None:
    """Write the end of the prompt to the right of the title."""
    room = canvas.WIDTH - 2.5
    labels = [unit.label for unit in units(prompt)]
    shown = labels[-PROMPT_TOKENS:]
    while len(shown) > 1 and canvas.text_width(figure, "…" + "".join(shown)) > room:
        shown = shown[1:]
    text = ("…" if len(shown) < len(labels) else "") + "".join(shown)
    axes = canvas.bare_axes(figure, (2.2, canvas.HEIGHT - 0.4, room, 0.3))
    canvas.draw_text(axes, room, 0.13, canvas.truncate(figure, text, room), ha="right", color=canvas.MUTED)


def _bars(axes: Axes, drawn: Draw) -> None:
    rows = np.arange(len(drawn.before))
    if not drawn.is_changed:
        axes.barh(rows, drawn.after, height=0.6, color=AFTER)
        return
    axes.barh(rows - 0.2, drawn.before, height=0.3, facecolor="none", edgecolor=BEFORE, hatch="////", linewidth=1)
    axes.barh(rows + 0.2, drawn.after, height=0.36, color=AFTER)


def _beside(axes: Axes, row: int, text: str, *, left: bool, **look: str) -> None:
    x = -0.02 if left else 1.02
    canvas.draw_text(axes, x, row, text, ha="right" if left else "left", transform=axes.get_yaxis_transform(), **look)


def _values(drawn: Draw, row: int) -> str:
    before, after = percent(drawn.before[row]), percent(drawn.after[row])
    if not drawn.is_changed:
        return before
    return f"{before} → {CROSS} cut" if row in drawn.cut else f"{before} → {after}"


def _legend(axes: Axes, drawn: Draw) -> None:
    """Explain the two kinds of bars below them."""
    handles = [
        Patch(facecolor="none", edgecolor=BEFORE, hatch="////", label="the model's own"),
        Patch(facecolor=AFTER, label="after the settings"),
    ]
    axes.legend(
        handles=handles if drawn.is_changed else [Patch(facecolor=AFTER, label="the settings change nothing")],
        loc="upper left",
        bbox_to_anchor=(-0.01, -0.005),
        ncols=2,
        frameon=False,
        labelcolor=canvas.INK,
        fontsize=canvas.TEXT_POINTS,
    )


def _alt(drawn: Draw) -> Text:
    likely = [
        say("{token} {share}", token=shorten(label, 20), share=percent(share))
        for label, share in sorted(zip(drawn.labels, drawn.after, strict=False), key=lambda pair: -pair[1])[:3]
        if share
    ]
    return say(
        "Next token: {tokens}; all others {rest}. {cut} of the {shown} tokens shown are cut by the settings.",
        tokens=listing(likely or [say("none of those shown")]),
        rest=percent(drawn.after[-1]),
        cut=len(drawn.cut),
        shown=len(drawn.labels),
    )


def _caption(drawn: Draw, *, temperature: float, top_k: int, top_p: float) -> tuple[Text, ...]:
    notes = [
        *([say("At temperature 0 the likeliest token is always taken.")] if temperature == 0 else []),
        *([say("Crossed out: excluded by the settings.")] if drawn.cut else []),
    ]
    return (
        say(
            "The {count} likeliest next tokens: the model's own probability, and the one at temperature {temperature},"
            " top-k {top_k}, top-p {top_p}.",
            count=len(drawn.labels),
            temperature=number(temperature),
            top_k=top_k,
            top_p=number(top_p),
        ),
        say(
            "All other tokens: {before} before the settings, {after} after.",
            before=percent(drawn.before[-1]),
            after=percent(drawn.after[-1]),
        ),
        *([joined(*notes)] if notes else []),
    )
