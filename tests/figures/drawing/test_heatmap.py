from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bot.figures.drawing import canvas
from bot.figures.drawing.heatmap import draw_article, draw_clear
from tests.figures.builders import heatmap, labels, noise, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def clear(values: NDArray[Any], **where: int) -> Figure:
    return draw_clear(heatmap(values, **where), "title", "subtitle", "column", "row")


def article(values: NDArray[Any], **where: int) -> Figure:
    return draw_article(heatmap(values, style="article", **where), "title", "Column", "Row")


def visible_ticks(axis: Axis) -> list[float]:
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_majorticklocs() if low <= tick <= high]


def test_the_array_is_drawn_as_it_is_at_the_codes_indices() -> None:
    values = noise(30, 40)
    axes = clear(values, row=100, column=700).axes[0]
    (image,) = axes.images
    assert (image.get_array() == values).all()
    assert image.get_extent() == [699.5, 739.5, 129.5, 99.5]
    assert image.get_interpolation() == "nearest"
    assert all(tick >= 700 and tick == int(tick) for tick in visible_ticks(axes.xaxis))
    assert all(tick >= 100 and tick == int(tick) for tick in visible_ticks(axes.yaxis))


def test_the_article_shows_all_in_gray_without_clipping() -> None:
    values = noise(30, 40)
    axes, bar = article(values).axes
    (image,) = axes.images
    assert (image.get_array() == values).all()
    assert image.get_cmap().name == "gray"
    assert image.get_clim() == (values.min(), values.max())
    assert axes.get_aspect() == 1
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("title", "Column", "Row")
    assert bar.get_label() == "<colorbar>"


def test_a_partly_filled_last_block_does_not_stretch_the_axes() -> None:
    axes = clear(noise(1501, 5)).axes[0]
    assert axes.images[0].get_array().shape == (501, 5)
    assert axes.images[0].get_extent()[2] == 1502.5
    assert axes.get_ylim() == (1500.5, -0.5)


@pytest.mark.parametrize("draw", [clear, article])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (12, 12), (13, 5), (700, 1200)])
def test_every_shape_stays_on_the_canvas(draw: Callable[..., Any], shape: tuple[int, ...]) -> None:
    figure = draw(noise(*shape), row=3, column=5)
    figure.canvas.draw()
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= canvas.WIDTH
    assert box.y1 <= canvas.HEIGHT


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (12, 12), (5, 7)])
def test_the_values_of_a_few_weights_are_printed_inside_their_cells(shape: tuple[int, ...]) -> None:
    figure = clear(noise(*shape), row=50, column=700)
    axes = figure.axes[0]
    assert len(axes.texts) == shape[0] * shape[1]
    assert visible_ticks(axes.xaxis) == list(range(700, 700 + shape[1]))
    cell = axes.get_window_extent().width / shape[1]
    assert all(label.get_window_extent().width < cell for label in axes.texts)


def test_the_unit_of_printed_values_is_named_when_it_is_not_one() -> None:
    assert "units of 0.01" in clear(noise(12, 12)).axes[0].get_xlabel()
    assert "units" not in clear(noise(2, 2)).axes[0].get_xlabel()


def test_many_values_are_not_printed() -> None:
    assert not clear(noise(13, 2)).axes[0].texts


def test_cells_of_few_rows_or_columns_do_not_fill_the_canvas() -> None:
    figure = clear(noise(1, 1))
    box = figure.axes[0].get_position()
    assert box.width * canvas.WIDTH == pytest.approx(box.height * canvas.HEIGHT)


def test_the_colour_bar_points_beyond_its_ends_only_when_something_is_cut() -> None:
    cut, whole = clear(noise(100, 100)), clear(noise(5, 5))
    assert len(cut.axes[1].patches) > len(whole.axes[1].patches)


@pytest.mark.parametrize("draw", [clear, article])
def test_nothing_is_written_smaller_than_ten_points(draw: Callable[..., Any]) -> None:
    figure = draw(noise(30, 30))
    assert min(label.get_fontsize() for label in labels(figure)) >= canvas.TEXT_POINTS
    assert "title" in texts(figure)


@pytest.mark.parametrize("draw", [clear, article])
@pytest.mark.parametrize("value", [0, np.inf, -3e38])
def test_constants_and_missing_values_are_drawn(draw: Callable[..., Any], value: float) -> None:
    draw(np.full((6, 7), value, np.float32)).canvas.draw()


def test_missing_values_are_masked() -> None:
    values = noise(20, 20)
    values[3, 4], values[5, 6] = np.nan, np.inf
    mask = clear(values).axes[0].images[0].get_array().mask
    assert mask.sum() == 2
    assert mask[3, 4]
    assert mask[5, 6]
