from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bot.figures import positional_heatmap
from bot.figures.drawing.scale import stretched
from bot.figures.drawing.wording import number
from bot.figures.positional import _figure
from tests.figures.builders import caption, heatmap, noise, texts
from tests.figures.gpt2_partial import needs_gpt2_partial, parameter

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from bot.figures import Picture, Style


NAME = "transformer.wpe.weight"


def draw(values: NDArray[Any], style: Style = "clear", position: int = 0, dimension: int = 0) -> Picture:
    rows = range(position, position + values.shape[0])
    columns = range(dimension, dimension + values.shape[1])
    return positional_heatmap(
        values, name=NAME, rows=rows, columns=columns, shape=(1024, 768), dtype="float32", style=style
    )


def test_the_article_is_the_tutorials() -> None:
    axes = _figure(heatmap(noise(50, 40), style="article")).axes[0]
    assert axes.get_title() == "Positional Embedding Matrix"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Embedding Dimension", "Position")


def test_the_clear_picture_names_what_it_shows() -> None:
    figure = _figure(heatmap(noise(50, 40), row=10, fit=stretched))
    assert "Positional embeddings: wpe[10:60, 0:40]" in texts(figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("embedding dimension", "position")


def test_the_strongest_dimensions_are_those_of_numpy() -> None:
    values = noise(50, 40)
    values[:, 7] *= 9
    values[:, 3] *= 7
    values[:, 30] *= 5
    assert "Largest mean magnitude: dimensions 107, 103, 130." in caption(draw(values, dimension=100))


def test_position_0_is_compared_with_the_others() -> None:
    values = noise(50, 40)
    first, rest = number(np.abs(values[0]).mean()), number(np.abs(values[1:]).mean())
    assert f"Mean magnitude: {first} at position 0, {rest} elsewhere." in caption(draw(values))
    assert "at position 0" not in caption(draw(values, position=1))


def test_places_are_positions_and_dimensions() -> None:
    values = noise(50, 40)
    position, dimension = np.unravel_index(values.argmin(), values.shape)
    assert f"(position {position + 5}, dimension {dimension + 6})" in caption(draw(values, position=5, dimension=6))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40)])
@pytest.mark.parametrize("value", [np.nan, 1])
def test_edges_are_drawn(shape: tuple[int, ...], value: float) -> None:
    picture = draw(np.full(shape, value, np.float32))
    assert len(str(picture.alt)) <= 256


@needs_gpt2_partial
def test_gpt2s_own_positions() -> None:
    values = parameter(NAME)
    article, clear = draw(values, "article"), draw(values)
    for picture in (article, clear):
        said = caption(picture)
        assert f"{number(-4.5381)} (position 0, dimension 674) to 4.065 (position 0, dimension 55)" in said
        assert len(str(picture.alt)) <= 256
        assert len(picture.file) < 600_000
    assert "nothing clipped" in caption(article)
    assert "mean of 2 × 1 weights" in caption(clear)


@needs_gpt2_partial
def test_waves_that_linear_colour_would_hide_are_visible() -> None:
    heat = heatmap(parameter(NAME), fit=stretched)
    shown = np.abs(heat.scale.norm(heat.downsampled.cells) - 0.5) * 2  # 0 is the background, 1 the end of the scale
    linear = np.abs(heat.downsampled.cells) / heat.scale.norm.vmax
    assert np.mean(shown > 0.2) > 1.5 * np.mean(linear > 0.2)
