"""The geometry of the positional embeddings: their cosine similarity and their principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from mpl_toolkits.mplot3d import Axes3D, proj3d

from bot.figures.drawing import canvas, colormaps
from bot.figures.drawing.heatmap import Heatmap, draw_clear
from bot.figures.drawing.picture import ALT_NAME_CHARACTERS, Array, Picture, Slice, checked, filename, span
from bot.figures.drawing.scale import cosine
from bot.figures.drawing.summary import finite_only
from bot.figures.drawing.wording import by, joined, number, percent, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPONENTS: Final = 3
NAMED: Final = 6  # positions labelled on the curve at most; fewer in three dimensions, where labels overlap
NAMED_IN_SPACE: Final = 4
# Colour-blind safe like cividis, but from a blue that stands out against the dark background.
ALONG: Final[Colormap] = LinearSegmentedColormap.from_list("along", ("#3d6fc4", "#8f9099", "#fde737"))
FLAT: Final = (0.85, 0.62, 2.65, 3.2)  # left, bottom, width, height in inches
SPACE: Final = (3.4, 0.25, 3.1, 3.6)
LABEL: Final = (0.36, 0.17)  # inches of a position's number, with padding
VIEW: Final = (18, -62)  # elevation and azimuth in degrees


@dataclass(frozen=True, slots=True)
class Curve:
    """The positions, projected onto their principal components.

    Attributes:
        points: [P, 3]; components that don't exist are zero.
        shares: [3], of the variance.
        positions: As the code counts them.
    """

    points: Array
    shares: Array
    positions: range

    @classmethod
    def of(cls, values: Array, positions: range) -> Curve:
        """Compute principal components from the smaller Gram matrix; each one's largest value is made positive."""
        centred = values - values.mean(axis=0)
        wide = centred.shape[0] < centred.shape[1]
        variances, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
        variances, vectors = np.clip(variances[::-1][:COMPONENTS], 0, None), vectors[:, ::-1][:, :COMPONENTS]
        count = len(variances)
        points, shares = np.zeros((len(values), COMPONENTS)), np.zeros(COMPONENTS)
        points[:, :count] = vectors * np.sqrt(variances) if wide else centred @ vectors
        if (total := float((centred**2).sum())) > 0:
            shares[:count] = variances / total
        largest = points[np.abs(points).argmax(axis=0), np.arange(COMPONENTS)]
        return cls(points * np.where(largest < 0, -1, 1), shares, positions)


def positional_similarity(values: Array, *, name: str, positions: range, dtype: str) -> Picture:
    """Draw the cosine similarity of the positional embeddings of each pair of positions.

    Args:
        values: [positions, dimensions], rows of `wpe`.
        name: The parameter's name in the state dict.
        positions: The positions that are shown, as the code counts them.
        dtype: The type in which the parameter is stored.

    Raises:
        ValueError: `values` is empty or does not fit `positions`.
    """
    rows = finite_only(checked(values, positions, range(values.shape[-1])).astype(np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.where(lengths > 0, rows / lengths, np.nan)
    similar = np.clip(units @ units.T, -1, 1)
    square = (len(positions), len(positions))
    heatmap = Heatmap.of(similar, Slice(name, positions, positions, square, dtype, "clear"), cosine)
    title = f"Positional embeddings: cosine similarity of wpe[{span(positions)}]"
    figure = draw_clear(heatmap, title, str(_neighbours(similar)), "position", "position")
    caption = _similarity_caption(heatmap, similar, name, dtype)
    picture_name = filename(f"{name}-similarity", positions, style="clear")
    return Picture(canvas.to_png(figure), _similarity_alt(similar, name, positions), caption, picture_name)


def positional_helix(values: Array, *, name: str, positions: range, dtype: str) -> Picture:
    """Draw the curve of the positional embeddings in their first two and three principal components.

    Args:
        values: [positions, dimensions], rows of `wpe`, all of them finite.
        name: The parameter's name in the state dict.
        positions: The positions that are shown, as the code counts them.
        dtype: The type in which the parameter is stored.

    Raises:
        ValueError: `values` is empty, does not fit `positions` or has values that are not finite.
    """
    rows = checked(values, positions, range(values.shape[-1])).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("principal components of values that are not finite")
    curve = Curve.of(rows, positions)
    picture_name = filename(f"{name}-helix", positions, style="clear")
    alt = say(
        "Positional embeddings {name}[{positions}] in their principal components, a curve: two hold {two} of the"
        " variance, three {three}.",
        name=shorten(name, ALT_NAME_CHARACTERS),
        positions=span(positions),
        two=percent(float(curve.shares[:2].sum())),
        three=percent(float(curve.shares.sum())),
    )
    return Picture(canvas.to_png(_helix(curve)), alt, _helix_caption(curve, name, dtype), picture_name)


def _helix(curve: Curve) -> Figure:
    shares = ", ".join(percent(float(share)) for share in curve.shares)
    title = f"The curve of the positions: wpe[{span(curve.positions)}]"
    figure = canvas.clear_figure(title, f"principal components 1, 2, 3 hold {shares} of the variance")
    colours = ALONG(Normalize(0, max(1, len(curve.positions) - 1))(np.arange(len(curve.positions))))
    _draw_flat(canvas.clear_axes(figure, FLAT, "component 1", "component 2"), curve, colours)
    _draw_space(figure, curve, colours)
    reach = (float(curve.positions.start), float(max(curve.positions.start + 1, curve.positions.stop - 1)))
    colormaps.colorbar(figure, (6.72, 0.9, 0.12, 2.4), ALONG, reach, "position", ticks=reach)
    return figure


def _draw_flat(axes: Axes, curve: Curve, colours: Array) -> None:
    x, y = curve.points[:, 0], curve.points[:, 1]
    axes.plot(x, y, color=canvas.LINE, linewidth=0.6, zorder=1)
    axes.scatter(x, y, c=colours, s=9, linewidths=0, zorder=2)
    axes.margins(x=0.24, y=0.16)  # a number stands to the right of its point
    axes.locator_params(nbins=4)
    axes.autoscale_view()
    for at in _apart(axes, x, y, _named(len(curve.positions), NAMED)):
        axes.annotate(
            str(curve.positions[at]),
            (x[at], y[at]),
            xytext=(5, 5),
            textcoords="offset points",
            color=canvas.INK,
            size=canvas.TEXT_POINTS,
            bbox={"facecolor": canvas.BACKGROUND, "edgecolor": "none", "pad": 0.4, "alpha": 0.7},
        )


def _draw_space(figure: Figure, curve: Curve, colours: Array) -> None:
    left, bottom, width, height = SPACE
    axes = Axes3D(figure, (left / canvas.WIDTH, bottom / canvas.HEIGHT, width / canvas.WIDTH, height / canvas.HEIGHT))
    figure.add_axes(axes)
    axes.set_facecolor((0, 0, 0, 0))
    axes.view_init(*VIEW)
    x, y, z = curve.points.T
    axes.plot(x, y, z, color=canvas.LINE, linewidth=0.6)
    axes.scatter(x, y, z, c=colours, s=9, linewidths=0, depthshade=False)
    for axis, label in ((axes.xaxis, "1"), (axes.yaxis, "2"), (axes.zaxis, "3")):
        axis.set_pane_color((0.16, 0.17, 0.19, 1))
        axis.line.set_color(canvas.LINE)
        axis.set_ticklabels([])
        axis.set_label_text(label, color=canvas.INK)
        axis.labelpad = -11
    axes.grid(visible=False)
    flat_x, flat_y, _ = proj3d.proj_transform(x, y, z, axes.get_proj())
    for at in _apart(axes, flat_x, flat_y, _named(len(curve.positions), NAMED_IN_SPACE)):
        place = (flat_x[at], flat_y[at], str(curve.positions[at]))
        axes.text2D(*place, transform=axes.transData, color=canvas.INK, size=canvas.TEXT_POINTS)


def _named(count: int, most: int) -> list[int]:
    """Return the first index, the last and some between."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})


def _apart(axes: Axes, x: Array, y: Array, named: list[int]) -> list[int]:
    """Return the positions whose labels do not collide; the first and the last take precedence."""
    places = axes.transData.transform(np.column_stack([x, y])) / canvas.DPI
    kept: list[int] = []
    for at in sorted(named, key=lambda at: at not in {named[0], named[-1]}):
        if not any((np.abs(places[at] - places[other]) < LABEL).all() for other in kept):
            kept.append(at)
    return kept


def _neighbours(similar: Array) -> Text:
    """Return the mean similarity of neighbours and of distant positions, as a sentence."""
    half = len(similar) // 2
    if not half:
        return say("A single position.")
    return say(
        "Mean similarity: {beside} of neighbours, {far} of positions {apart} apart.",
        beside=_mean(np.diagonal(similar, 1)),
        apart=half,
        far=_mean(np.diagonal(similar, half)),
    )


def _mean(values: Array) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean())) if known.size else "–"


def _similarity_alt(similar: Array, name: str, positions: range) -> Text:
    return say(
        "Cosine similarity of the rows of {name}[{positions}]. {neighbours}",
        name=shorten(name, ALT_NAME_CHARACTERS),
        positions=span(positions),
        neighbours=_neighbours(similar),
    )


def _similarity_caption(heatmap: Heatmap, similar: Array, name: str, dtype: str) -> tuple[Text, ...]:
    block = by(*heatmap.downsampled.block)
    zeros = int(np.isnan(np.diagonal(similar)).sum())
    return (
        say(
            "{name}[{positions}], {dtype}: cosine similarity of each pair of positions.",
            name=name,
            positions=span(heatmap.part.rows),
            dtype=dtype,
        ),
        _neighbours(similar),
        joined(
            *heatmap.scale.sentences,
            *([] if heatmap.downsampled.is_whole else [say("Each cell is the mean of {block} pairs.", block=block)]),
            *([say("Positions without a direction, drawn in white: {count}.", count=zeros)] if zeros else []),
        ),
    )


def _helix_caption(curve: Curve, name: str, dtype: str) -> tuple[Text, ...]:
    return (
        say(
            "{name}[{positions}], {dtype}: each point is a position; left two principal components, right three.",
            name=name,
            positions=span(curve.positions),
            dtype=dtype,
        ),
        say(
            "Explained variance: {first}, {second}, {third}. Each axis has its own scale.",
            first=percent(float(curve.shares[0])),
            second=percent(float(curve.shares[1])),
            third=percent(float(curve.shares[2])),
        ),
    )
