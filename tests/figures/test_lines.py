from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bot.figures import positional_lines
from bot.figures.drawing.summary import summarize
from bot.figures.drawing.wording import number
from bot.figures.lines import Lines, _article_figure, _clear_figure
from tests.figures.builders import SIZE, caption, contrast, drawn, noise, opened, shown_labels
from tests.figures.gpt2_partial import needs_gpt2_partial, parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bot.figures import Picture, Style


NAME = "transformer.wpe.weight"


def draw(values: NDArray[Any], dims: Sequence[int], start: int = 0, style: Style = "clear") -> Picture:
    positions = range(start, start + len(values))
    return positional_lines(values, name=NAME, dims=dims, positions=positions, dtype="float32", style=style)


def lines_of(values: NDArray[Any], dims: tuple[int, ...] | None = None, start: int = 0) -> Lines:
    dims = tuple(range(values.shape[1])) if dims is None else dims
    return Lines(values, dims, range(start, start + len(values)), summarize(values))


def test_the_article_is_the_tutorials() -> None:
    values = noise(150, 3)
    axes = _article_figure(lines_of(values)).axes[0]
    assert axes.get_title() == "Positional Embeddings (dimensions 0, 1, 2)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Position", "Value")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Dimension 0", "Dimension 1", "Dimension 2"]
    assert all((line.get_ydata() == column).all() for line, column in zip(axes.lines, values.T, strict=True))


def test_every_line_differs_in_more_than_colour() -> None:
    lines = _clear_figure(lines_of(noise(150, 8))).axes[0].lines[1:]
    assert len({line.get_color() for line in lines}) == 8
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 8


def test_the_first_sixteen_lines_are_told_apart() -> None:
    lines = _clear_figure(lines_of(noise(150, 16))).axes[0].lines[1:]
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 16


@pytest.mark.parametrize(("count", "named"), [(1, 1), (8, 8), (30, 16)])
def test_the_legend_stands_outside_the_data_and_on_the_canvas(count: int, named: int) -> None:
    dims = tuple(range(700, 700 + count))
    figure = _clear_figure(lines_of(noise(20, count), dims))
    legend = figure.axes[0].get_legend()
    box = legend.get_window_extent(figure.canvas.get_renderer())
    assert box.x0 > figure.axes[0].get_window_extent().x1
    assert box.x1 < SIZE[0]
    assert box.y0 > 0
    assert len(legend.get_texts()) == named


@pytest.mark.parametrize("build", [_clear_figure, _article_figure])
def test_positions_are_the_codes(build: Callable[[Lines], Figure]) -> None:
    axes = build(lines_of(noise(5, 2), start=700)).axes[0]
    assert list(axes.lines[-1].get_xdata()) == [700, 701, 702, 703, 704]
    assert list(axes.get_xticks()) == [700, 701, 702, 703, 704]


@pytest.mark.parametrize("style", ["clear", "article"])
def test_numbers_are_those_of_numpy(style: Style) -> None:
    values = noise(100, 5)
    picture = draw(values, [3, 10, 700, 5, 6], start=50, style=style)
    row, column = np.unravel_index(values.argmax(), values.shape)
    dimension = [3, 10, 700, 5, 6][column]
    assert f"{number(values.max())} (position {50 + row}, dimension {dimension})" in caption(picture)
    assert "dimension 3, 10, 700, 5, 6." in caption(picture)
    alt = str(picture.alt)
    assert f"dimension 10 from {number(values[:, 1].min())} to {number(values[:, 1].max())}" in alt
    assert "2 more" in alt
    assert len(alt) <= 256


@pytest.mark.parametrize("style", ["clear", "article"])
@pytest.mark.parametrize("value", [0, np.nan, 3e38])
@pytest.mark.parametrize("shape", [(1, 1), (40, 2)])
def test_edges_are_drawn(style: Style, value: float, shape: tuple[int, ...]) -> None:
    assert opened(draw(np.full(shape, value, np.float32), range(shape[1]), style=style)).size == SIZE


def test_one_position_is_drawn_as_points() -> None:
    for build in (_clear_figure, _article_figure):
        assert build(lines_of(noise(1, 2))).axes[0].lines[-1].get_marker() not in {None, "None", ""}


def test_missing_values_leave_gaps_and_are_counted() -> None:
    values = noise(30, 2)
    values[3, 1] = np.inf
    assert "NaN or infinite, left out: 1 of 60 values." in caption(draw(values, [0, 1]))


def test_as_many_dimensions_as_columns() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        draw(noise(10, 3), [0, 1])


@needs_gpt2_partial
def test_gpt2s_own_lines() -> None:
    picture = draw(parameter(NAME)[:150, :3], [0, 1, 2])
    assert f"{number(-0.19742)} (position 0, dimension 1) to 0.1312 (position 5, dimension 2)" in caption(picture)
    assert len(picture.file) < 300_000


def test_what_is_written_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, lambda: draw(noise(30, 20), range(20)))
    labels = shown_labels(figure)
    assert "first 16 of 20" in [label.get_text() for label, _, _ in labels]
    assert all(contrast(to_hex(label.get_color()), ground) >= 4.5 for label, _, ground in labels)
