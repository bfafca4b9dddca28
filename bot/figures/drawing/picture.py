"""The picture that every figure function returns, and the slice of a parameter that it shows."""

from __future__ import annotations

import io
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bot.figures.drawing.wording import shorten

if TYPE_CHECKING:
    from bot.text import Text

Style = Literal["clear", "article"]
"""`clear` is this bot's own look; `article` is the tutorial's: white, gray, full range."""

Array = NDArray[np.floating]

ALT_NAME_CHARACTERS = 48  # leaves the numbers their room in the 256 characters of a gallery's description
FILENAME_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture.

    Attributes:
        file: An opaque PNG, or a GIF if it moves.
        alt: A description of the picture in numbers; at most 256 characters in English.
        caption: Two to four short lines, the most important first; docs/pictures.md has the rest.
        filename: A name for the attachment, of letters, digits, dots, hyphens and underscores.
        shown: The tokens of the text that it shows, where those are a window that can be moved.
    """

    file: bytes
    alt: Text
    caption: tuple[Text, ...]
    filename: str
    shown: range | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return Image.open(io.BytesIO(self.file)).size  # reads the header alone


Drawing = Generator[None, None, Picture]
"""A picture that is drawn in steps, and returned by the last."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A rectangle cut from a two-dimensional parameter.

    Attributes:
        name: The parameter's name in the state dict.
        rows: The code's indices of the rows that are shown.
        columns: The code's indices of the columns that are shown.
        shape: The whole parameter's shape.
        dtype: The type in which it is stored.
        style: The look that was asked for.
    """

    name: str
    rows: range
    columns: range
    shape: tuple[int, int]
    dtype: str
    style: Style

    @property
    def bracket(self) -> str:
        """The slice as the code writes it: ``[0:300, 0:300]``."""
        return f"[{span(self.rows)}, {span(self.columns)}]"

    @property
    def alt_name(self) -> str:
        """Name and slice, short enough for an alt text."""
        return shorten(self.name, ALT_NAME_CHARACTERS) + self.bracket

    @property
    def filename(self) -> str:
        """A file name that differs between slices."""
        return filename(self.name, self.rows, self.columns, style=self.style)

    def take(self, values: Array) -> Array:
        """Check that the values fit the slice, and return them as float32 or wider.

        Raises:
            ValueError: `values` is empty or is not [rows, columns].
        """
        return checked(values, self.rows, self.columns)


def checked(values: Array, *indices: range) -> Array:
    """Check that there is one value for each index along each axis, and return them as float32 or wider.

    Raises:
        ValueError: The array is empty or of another shape, or a range has a step.
    """
    expected = tuple(len(each) for each in indices)
    if values.shape != expected or values.size == 0 or any(each.step != 1 for each in indices):
        raise ValueError(f"an array of shape {values.shape} cannot be drawn at {indices}")
    return values.astype(np.promote_types(values.dtype, np.float32), copy=False)


def span(indices: range) -> str:
    """Return a range as a Python slice: ``0:300``."""
    return f"{indices.start}:{indices.stop}"


def filename(name: str, *indices: range, style: Style) -> str:
    """Return a file name of plain characters from a parameter's name and the ranges shown of it."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:FILENAME_CHARACTERS] or "parameter"
    ranges = "".join(f"-{each.start}-{each.stop}" for each in indices)
    return f"{plain}{ranges}-{style}.png"
