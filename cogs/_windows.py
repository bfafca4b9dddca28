"""Windows onto a parameter, and the same parameter of the neighbouring layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bot.gpt2.model_info import MAX_SLICE_VALUES, ParameterSlice

if TYPE_CHECKING:
    from re import Match

_LAYER: Final = re.compile(r"(?<=\bh\.)\d+(?=\.)")
_PREFIX: Final = "transformer."
_SUFFIX: Final = ".weight"


def moved(window: range, step: int, size: int) -> range | None:
    """Return the window moved by its own length within `size` entries, or None at the end."""
    start = min(max(window.start + step * len(window), 0), size - len(window))
    return range(start, start + len(window)) if start != window.start else None


def widest(window: ParameterSlice) -> ParameterSlice:
    """Return the whole parameter, or where it has too many values for a picture as many whole rows as fit.

    Those rows begin with the window's, as far as there are enough after them.
    """
    rows, columns = window.info.shape[0], range(0 if window.flat else window.info.shape[1])
    most = min(rows, MAX_SLICE_VALUES // max(len(columns), 1))
    start = min(window.rows.start, rows - most)
    return ParameterSlice(window.info, range(start, start + most), columns)


def neighbour(name: str, step: int, layers: int) -> str | None:
    """Return the short name of the same parameter `step` layers on, or None without such a layer."""

    def change(match: Match[str]) -> str:
        return str(int(match[0]) + step)

    layer = _LAYER.search(name)
    if layer is None or not 0 <= int(layer[0]) + step < layers:
        return None
    return short_name(_LAYER.sub(change, name))


def short_name(name: str) -> str:
    """Return a parameter's name without the parts that can be left out, so that it fits into a button."""
    return name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
