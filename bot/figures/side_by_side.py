"""Two readings side by side: paired bars of next-token probabilities, and texts coloured by surprise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.patches import Patch

from bot.figures.drawing import canvas, colormaps, token_layout
from bot.figures.drawing.wording import percent, plain
from bot.figures.surprise import FRAME, MAX_BITS, Surprises

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.token_layout import TokenLayout

COLOURS: Final = (canvas.CATEGORIES[0], canvas.CATEGORIES[1])
HATCHES: Final = ("", "////")
LEFT: Final = 0.3
TOP: Final = 0.95  # inches above the bars, with room for their legend
ROW: Final = 0.27  # inches of a candidate
LONGEST: Final = 0.24  # share of the width for a token's label
SCALES: Final = (1.5, 1.2, 1.0)
BETWEEN: Final = 0.14  # inches between the texts
SCALE: Final = 0.36  # inches for the colour scale below them


@dataclass(frozen=True, slots=True)
class Bars:
    """Next tokens with two probabilities each.

    Attributes:
        labels: [k], of the candidates.
        probabilities: [2, k], NaN for none.
        names: Of the two, for the legend.
        joint: Between the two numbers.
    """

    labels: list[str]
    probabilities: Array
    names: tuple[str, str]
    joint: str = " / "

    @property
    def numbers(self) -> list[str]:
        """The two percentages of each candidate."""
        return [self.joint.join(map(_share, pair.tolist())) for pair in self.probabilities.T]

    def draw(self, figure: Figure, width: float) -> float:
        """Draw the bars in so many inches and return their lower edge, in inches from the top."""
        names = min(_widest(figure, self.labels), LONGEST * width) + 0.12
        values = _widest(figure, self.numbers) + 0.12
        height = ROW * len(self.labels)
        box = (LEFT + names, canvas.HEIGHT - TOP - height, width - names - values, height)
        axes = canvas.clear_axes(figure, box, "", "")
        axes.set_xlim(0, max(float(np.nanmax(self.probabilities)) * 1.05, 1e-12))
        axes.set_ylim(len(self.labels) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        looks: list[dict[str, Any]] = [
            {"facecolor": colour, "hatch": hatch, "edgecolor": canvas.BACKGROUND, "linewidth": 0}
            for colour, hatch in zip(COLOURS, HATCHES, strict=True)
        ]
        for index, look in enumerate(looks):
            rows = np.arange(len(self.labels)) + (index - 0.5) * 0.38
            axes.barh(rows, np.nan_to_num(self.probabilities[index]), height=0.34, **look)
        beside = axes.get_yaxis_transform()
        for row, (label, numbers) in enumerate(zip(self.labels, self.numbers, strict=True)):
            shown = canvas.truncate(figure, label, names - 0.1)
            canvas.draw_text(axes, -0.06 / box[2], row, shown, ha="right", transform=beside)
            canvas.draw_text(axes, 1 + 0.08 / box[2], row, numbers, transform=beside)
        named = [Patch(label=name, **look) for name, look in zip(self.names, looks, strict=True)]
        canvas.legend_above(axes, named, left=-0.04 / box[2], pad=0.15)
        return TOP + height


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text coloured by surprise, with a mark left of it.

    Attributes:
        text: The tokens.
        mark: Its name.
        colour: Of the mark.
        framed: Returns the first tokens of the units to frame among those that are shown.
    """

    text: Surprises
    mark: str
    colour: str
    framed: Callable[[range], Collection[int]] = lambda _: ()

    def draw(self, figure: Figure, top: float, mark: float, room: tuple[float, float]) -> TokenLayout:
        """Draw the text, with an ellipsis where its beginning does not fit.

        Args:
            figure: Where to.
            top: Inches from the top.
            mark: Inches for the mark.
            room: Width and height in inches for the tokens.
        """
        shown = token_layout.lay_out(figure, self.text.pieces, room, scales=SCALES)
        if shown.hidden:  # running lines show more of it
            shown = token_layout.lay_out(figure, self.text.pieces, room, scales=SCALES, breaks=False)
        axes = token_layout.axes_for(figure, shown, (LEFT + mark, top), room)
        token_layout.draw(axes, shown, self.text.faces(shown), edges=self._edges(shown))
        side = canvas.bare_axes(figure, (LEFT, canvas.HEIGHT - top - 0.4, mark, 0.4))
        canvas.draw_text(side, 0, 0.1, self.mark, color=self.colour, weight="bold")
        if shown.hidden:
            canvas.draw_text(side, 0, 0.28, "…", weight="bold", size=canvas.TITLE_POINTS)
        return shown

    def _edges(self, shown: TokenLayout) -> list[str | None]:
        framed = self.framed(shown.tokens)
        return [
            canvas.LINE
            if np.isnan(self.text.of_unit(block.unit))
            else FRAME
            if block.unit.tokens.start in framed
            else None
            for block in shown.blocks
        ]


def draw_texts(
    figure: Figure, texts: Sequence[MarkedText], top: float, width: float, foot: float = 0.0
) -> tuple[list[TokenLayout], float]:
    """Draw texts below each other, and the colour scale below them.

    Args:
        figure: Where to.
        texts: The texts; they share the height that is left.
        top: Inches from the top of the figure.
        width: Inches for marks and tokens.
        foot: Inches to keep free below the scale.

    Returns:
        The layouts, and the lower edge of the scale in inches from the top.
    """
    mark = _widest(figure, [each.mark for each in texts], "bold") + 0.14
    each = (canvas.HEIGHT - top - SCALE - foot) / len(texts) - BETWEEN
    layouts = []
    for text in texts:
        layouts.append(text.draw(figure, top, mark, (width - mark, each)))
        top += layouts[-1].inches() + BETWEEN
    bar = (LEFT + mark, canvas.HEIGHT - top - 0.1, 1.5, 0.1)
    colormaps.colorbar(figure, bar, colormaps.SURPRISE, (0, MAX_BITS), "", ticks=(0, 8, 16))
    key = canvas.bare_axes(figure, (bar[0] + bar[2] + 0.15, bar[1] - 0.1, 2, 0.25))
    canvas.draw_text(key, 0, 0.12, "bits of surprise", color=canvas.MUTED)
    return layouts, top + SCALE


def _share(share: float) -> str:
    return "–" if np.isnan(share) else percent(share)


def mean_bits(text: Surprises) -> str:
    """Return the mean of a text's bits, or a dash where nothing is predicted."""
    return plain(float(text.known.mean())) if text.known.size else "–"


def _widest(figure: Figure, texts: Sequence[str], weight: str = "normal") -> float:
    return max(canvas.text_width(figure, text, weight) for text in texts)
