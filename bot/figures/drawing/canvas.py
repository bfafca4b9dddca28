"""The canvas of all pictures: its size, colours, headline and PNG encoding."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FixedLocator, Locator, MaxNLocator
from PIL import Image

from bot.figures.drawing.fonts import family_for, legible
from bot.figures.drawing.wording import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.text import Text as Label
    from numpy.typing import NDArray

WIDTH, HEIGHT = 7.33, 4.67  # inches
LOWEST = 1.9  # inches of the lowest picture; one with less to show would be a strip
DPI = 225  # three pixels for each one of Discord's usual preview of 550 by 350, where a point is then a pixel
TITLE_POINTS, TEXT_POINTS = 13, 10

BACKGROUND, INK, MUTED, LINE = "#1e1f22", "#dbdee1", "#b5bac1", "#80848e"
# Okabe and Ito's colours, brightened where they would not stand out against the dark background.
CATEGORIES = ("#56b4e9", "#e69f00", "#00b887", "#f0e442", "#e48cc0", "#dbdee1", "#ff7a2f", "#4f9cff")

LEFT, RIGHT, BOTTOM, TOP = 0.98, 1.05, 0.56, 0.74  # inches around the plotting area
HEADLINE_LEFT = 0.3
FEW = 12  # indices up to which each has its tick, and each weight of a heatmap is printed in its cell
HEADROOM = 0.2  # inches for one line of labels above the plotting area
MAX_PNG_BYTES = 600_000
FAST_COMPRESSION, SMALL_COMPRESSION = 3, 6  # of zlib; the fast one takes two thirds of the time for 5% more bytes
BLACK, WHITE = "#000000", "#ffffff"
EQUAL_CONTRAST_LUMINANCE = 0.179  # the luminance on which black and white have one contrast, 4.58


def clear_figure(title: str, subtitle: str, dpi: int = DPI) -> Figure:
    """Make an empty dark canvas with its headline."""
    figure = _figure(BACKGROUND, dpi)
    _fit(figure.text(HEADLINE_LEFT / WIDTH, 1 - 0.14 / HEIGHT, title, color=INK, size=TITLE_POINTS, va="top"))
    _fit(figure.text(HEADLINE_LEFT / WIDTH, 1 - 0.40 / HEIGHT, subtitle, color=MUTED, size=TEXT_POINTS, va="top"))
    return figure


def article_figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Make matplotlib's white default figure with one pair of axes, their title and labels."""
    figure = _figure("white")
    figure.subplots_adjust(bottom=0.13)  # room for the label of the x axis on a canvas this low
    axes = figure.add_subplot()
    title = legible(shorten(title, 60))
    axes.set_title(title, size=TITLE_POINTS, parse_math=False, family=family_for(title))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def clear_axes(figure: Figure, box: tuple[float, float, float, float], x: str, y: str) -> Axes:
    """Add axes to the dark canvas at `box` = left, bottom, width, height in inches."""
    left, bottom, width, height = box
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT), facecolor=BACKGROUND)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, labelsize=TEXT_POINTS)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    return axes


def index_ticks(indices: range) -> Locator:
    """Return ticks at whole indices: at each of a few, else at about eight round ones."""
    return FixedLocator(list(indices)) if len(indices) <= FEW else MaxNLocator(8, integer=True)


def label_above(axes: Axes, label: str, columns: range) -> None:
    """Write `label` above the axes, centred on `columns`; it takes `HEADROOM`."""
    axes.annotate(
        label,
        ((columns.start + columns.stop - 1) / 2, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        color=INK,
        size=TEXT_POINTS,
        ha="center",
    )


def legend_above(axes: Axes, handles: Sequence[Artist], left: float, pad: float) -> None:
    """Put a legend of two columns and no frame above axes, from `left` in their width; `pad` is in font sizes."""
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(left, 1.0),
        borderaxespad=pad,
        borderpad=0,
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=TEXT_POINTS,
        columnspacing=1,
    )


def to_png(figure: Figure, height: float = HEIGHT) -> bytes:
    """Return the figure as an opaque PNG, with a palette where full colour would be too large to post.

    Args:
        figure: Made by this module.
        height: Inches from the top that have something to show; the rest is cut off.
    """
    image = Image.fromarray(to_rgba(figure, height)).convert("RGB")
    png = _saved(image, FAST_COMPRESSION)
    if MAX_PNG_BYTES < len(png) < 1.1 * MAX_PNG_BYTES:  # the small one saves less than a tenth
        png = _saved(image, SMALL_COMPRESSION)
    if len(png) <= MAX_PNG_BYTES:
        return png
    return _saved(image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE), FAST_COMPRESSION)


def to_pixels(figure: Figure, height: float = HEIGHT) -> NDArray[np.uint8]:
    """Draw the figure and return its upper `height` inches: [rows, columns, 3]."""
    return to_rgba(figure, height)[:, :, :3]


def to_rgba(figure: Figure, height: float = HEIGHT) -> NDArray[np.uint8]:
    """Draw the figure and return its upper `height` inches, all opaque: [rows, columns, 4]."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise TypeError("the figure was not made by this module")
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    rows = round(min(max(height, LOWEST), HEIGHT) * figure.dpi)
    return pixels[:rows]


def contrasting_colour(colour: NDArray[np.floating]) -> str:
    """Return black or white, whichever contrasts with `colour` (red, green, blue, … from 0 to 1) by 4.5 to 1."""
    return BLACK if luminance(colour) > EQUAL_CONTRAST_LUMINANCE else WHITE


def rgb(colour: str) -> tuple[float, float, float]:
    """Return red, green and blue from 0 to 1 of a colour written as ``#rrggbb``."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def luminance(colour: NDArray[np.floating]) -> float:
    """Return the relative luminance (WCAG 2) of `colour` (red, green, blue, … from 0 to 1)."""
    channels = np.asarray(colour[:3], np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004
    return float(linear @ (0.2126, 0.7152, 0.0722))


def bare_axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Add axes without a frame at `box` = left, bottom, width, height; their units are inches from the top left."""
    left, bottom, width, height = box
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return axes


def draw_text(axes: Axes, x: float, y: float, text: str, **look: Any) -> Label:
    """Write any text in fonts that have its characters; `look` is that of `Axes.text`."""
    families = family_for(text)
    style = {"color": INK, "size": TEXT_POINTS, "va": "center", **look}
    if len(families) > 1:
        style.pop("weight", None)  # only the base has a bold face; matplotlib would log each family without one
    return axes.text(x, y, text, family=families, parse_math=False, **style)


def text_width(figure: Figure, text: str, weight: str = "normal") -> float:
    """Return the width in inches of a text that `draw_text` writes with this weight."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise TypeError("the figure was not made by this module")
    families = family_for(text)
    font = FontProperties(family=families, size=TEXT_POINTS, weight=weight if len(families) == 1 else "normal")
    width, _, _ = canvas.get_renderer().get_text_width_height_descent(text, font, ismath=False)  # type: ignore[no-untyped-call]
    return float(width) / figure.dpi


def truncate(figure: Figure, text: str, inches: float, weight: str = "normal") -> str:
    """Return the text, cut with an ellipsis where it is wider than so many inches."""
    if (width := text_width(figure, text, weight)) <= inches:
        return text
    most = max(1, int(len(text) * inches / width) + 2)
    while most > 1 and text_width(figure, f"{text[:most]}…", weight) > inches:
        most -= 1
    return f"{text[:most]}…"


def _figure(colour: str, dpi: int = DPI) -> Figure:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=dpi, facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def _fit(label: Label) -> None:
    """Make the label one legible line, cut with an ellipsis where it would leave the canvas."""
    label.set_parse_math(False)
    text = legible(label.get_text())
    label.set_text(text)
    label.set_fontfamily(family_for(text))
    figure = label.get_figure()
    most = (WIDTH - 2 * HEADLINE_LEFT) * (figure.dpi if figure else DPI)
    while (width := label.get_window_extent().width) > most:
        text = text[: min(len(text) - 1, int(len(text) * most / width))]
        label.set_text(f"{text}…")


def _saved(image: Image.Image, compression: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=compression)
    return buffer.getvalue()
