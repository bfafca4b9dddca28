"""Short ways to make what the tests draw."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image

from bot.figures.drawing import canvas
from bot.figures.drawing.heatmap import Heatmap
from bot.figures.drawing.picture import Slice
from bot.figures.drawing.scale import diverging

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

    from bot.figures import Picture, Style
    from bot.figures.drawing.scale import Scale

NAME = "transformer.h.0.mlp.c_fc.weight"
SIZE = (1649, 1050)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)


def heatmap(
    values: NDArray[Any],
    *,
    name: str = NAME,
    row: int = 0,
    column: int = 0,
    style: Style = "clear",
    fit: Callable[[NDArray[Any]], Scale] = diverging,
) -> Heatmap:
    rows, columns = range(row, row + values.shape[0]), range(column, column + values.shape[1])
    return Heatmap.of(values, Slice(name, rows, columns, (768, 3072), "float32", style), fit)


def opened(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.file))


def caption(picture: Picture) -> str:
    return " ".join(map(str, picture.caption))


def texts(figure: Figure) -> list[str]:
    """Return the texts on a figure."""
    return [label.get_text() for label in labels(figure)]


def labels(figure: Figure) -> list[Text]:
    """Return the labels of a figure that are not empty."""
    return [label for label in figure.findobj(Text) if isinstance(label, Text) and label.get_text()]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2)."""
    darker, lighter = sorted(_luminance(colour) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def drawn(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], Picture]) -> tuple[Picture, Figure]:
    """Draw a picture and return it with its figure."""
    figures: list[Figure] = []
    to_png = canvas.to_png

    def keep(figure: Figure, *height: float) -> bytes:
        figures.append(figure)
        return to_png(figure, *height)

    monkeypatch.setattr(canvas, "to_png", keep)
    picture = draw()
    monkeypatch.undo()
    (figure,) = figures
    return picture, figure


def shown_labels(figure: Figure) -> list[tuple[Text, Bbox, str]]:
    """Return the readable labels of a figure, their boxes in pixels and the median colour behind them.

    The figure has been drawn: what its canvas holds is not drawn again.

    Ticks beyond the end of an axis have labels that are not drawn: those change no pixel.
    """
    visible = [label for label in labels(figure) if label.get_visible() and label.get_text().strip()]
    boxes = [label.get_window_extent() for label in visible]
    whole = pixels(figure)
    for label in visible:
        label.set_visible(False)
    bare = to_pixels(figure)
    for label in visible:
        label.set_visible(True)
    found = []
    for label, box in zip(visible, boxes, strict=True):
        place = pixels_of(box)
        if (whole[place] != bare[place]).any():
            found.append((label, box, to_hex(np.median(bare[place].reshape(-1, 3), axis=0) / 255)))
    return found


def pixels_of(box: Bbox) -> tuple[slice, slice]:
    """Return the rows and columns of the picture that a box covers."""
    height = round(canvas.HEIGHT * canvas.DPI)
    left, right = max(0, int(box.x0)), max(0, int(box.x1) + 1)
    return slice(max(0, height - int(box.y1) - 1), max(0, height - int(box.y0))), slice(left, right)


def to_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return the figure as [height, width, 3]."""
    figure.canvas.draw()
    return pixels(figure)


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """What the figure's canvas holds, as [height, width, 3]."""
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def causal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Make causal attention [..., T, T] whose rows sum to 1."""
    weights = np.random.default_rng(seed).gamma(0.5, size=(*shape, shape[-1])) * np.tri(shape[-1]) + 1e-9
    weights *= np.tri(shape[-1])
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def words(text: str) -> list[bytes]:
    """Split a text into tokens, one a word."""
    return [piece.encode() for piece in re.findall(r"\s?\S+|\s", text)]
