from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bot.figures import vector
from bot.figures.drawing import canvas
from bot.figures.drawing.wording import number
from bot.figures.vectors import Vector, _article_figure, _clear_figure
from tests.figures.builders import SIZE, caption, noise, opened, texts
from tests.figures.gpt2_partial import needs_gpt2_partial, parameter

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from bot.figures import Picture, Style


NAME = "transformer.h.0.ln_1.bias"
BIAS = "transformer.h.1.attn.c_attn.bias"


def draw(values: NDArray[Any], name: str = NAME, start: int = 0, length: int = 768, style: Style = "clear") -> Picture:
    positions = range(start, start + len(values))
    return vector(values, name=name, positions=positions, length=length, dtype="float32", style=style)


def shown(values: NDArray[Any], name: str = NAME, start: int = 0, length: int = 768) -> Vector:
    return Vector.of(values, name, range(start, start + len(values)), length)


def test_values_stand_over_their_index_beside_a_histogram_of_all_of_them() -> None:
    values = noise(300)
    plot, histogram = _clear_figure(shown(values, start=100)).axes
    points = plot.lines[1]
    assert list(points.get_xdata()) == list(range(100, 400))
    assert points.get_ydata() == pytest.approx(values)
    assert sum(bar.get_width() for bar in histogram.patches) == 300
    assert histogram.get_ylim() == plot.get_ylim()
    assert histogram.get_xscale() == "log"


def test_few_values_have_stems_and_no_histogram() -> None:
    (plot,) = _clear_figure(shown(noise(5), start=40)).axes
    (stems,) = plot.collections
    assert len(stems.get_segments()) == 5
    assert list(plot.get_xticks()) == [40, 41, 42, 43, 44]
    low, high = plot.get_ylim()
    assert low < 0 < high


def test_the_largest_magnitudes_are_named() -> None:
    values = noise(300)
    values[[7, 100, 250]] = 0.5, -0.9, 0.7
    figure = _clear_figure(shown(values, start=1000))
    assert [label.get_text() for label in figure.axes[0].texts] == ["1100", "1250", "1007"]
    sentence = f"Largest magnitudes at index 1100 ({number(-0.9)}), 1250 (0.7), 1007 (0.5)."
    assert sentence in caption(draw(values, start=1000, length=3072))


def test_names_that_would_collide_are_left_to_the_caption() -> None:
    values = noise(300)
    values[[7, 8, 250]] = 0.5, 0.5, 0.4
    assert [label.get_text() for label in _clear_figure(shown(values)).axes[0].texts] == ["7", "250"]


@pytest.mark.parametrize(
    ("start", "count", "parts", "borders"),
    [(0, 2304, ["Q", "K", "V"], [767.5, 1535.5]), (700, 100, ["Q", "K"], [767.5]), (1600, 60, ["V"], [])],
)
def test_the_thirds_of_the_bias_of_c_attn_are_marked(
    start: int, count: int, parts: list[str], borders: list[float]
) -> None:
    bias = shown(noise(count), BIAS, start, 2304)
    plot = _clear_figure(bias).axes[0]
    assert [label.get_text() for label in plot.texts if not label.get_text().isdigit()] == parts
    upright = [line.get_xdata() for line in plot.lines if len(line.get_xdata()) == 2 and line.get_ydata() == [0, 1]]
    assert [x[0] for x in upright] == borders


def test_other_parameters_have_no_thirds() -> None:
    assert not shown(noise(60), "transformer.h.0.mlp.c_fc.bias", 0, 3072).has_thirds


@pytest.mark.parametrize("style", ["clear", "article"])
def test_numbers_are_those_of_numpy(style: Style) -> None:
    values = noise(768)
    picture = draw(values, style=style)
    mean, std = number(values.mean(dtype=np.float64)), number(values.std(dtype=np.float64))
    assert f"from {number(values.min())} to {number(values.max())}; mean {mean}, standard deviation {std}" in str(
        picture.alt
    )
    said = caption(picture)
    assert f"{NAME}[0:768]: 768 of 768 values, float32." in said
    assert f"(index {values.argmin()})" in said
    assert f"Mean {mean}, standard deviation {std}." in said
    assert len(str(picture.alt)) <= 256


def test_the_article_is_a_simple_plot() -> None:
    values = noise(768)
    axes = _article_figure(shown(values)).axes[0]
    assert axes.get_title() == f"{NAME}[0:768]"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Index", "Value")
    assert axes.lines[0].get_ydata() == pytest.approx(values)


@pytest.mark.parametrize("style", ["clear", "article"])
@pytest.mark.parametrize("value", [0, -0.5, np.nan, 3e38])
@pytest.mark.parametrize("count", [1, 60])
def test_constants_and_missing_values_are_drawn(style: Style, value: float, count: int) -> None:
    assert opened(draw(np.full(count, value, np.float32), style=style)).size == SIZE


def test_missing_values_are_left_out_and_counted() -> None:
    values = noise(100)
    values[3], values[9] = np.nan, -np.inf
    said = caption(draw(values))
    assert "NaN or infinite, left out: 2 of 100 values." in said
    assert number(np.nanmean(values[np.isfinite(values)], dtype=np.float64)) in said


def test_everything_is_written_on_the_canvas() -> None:
    figure = _clear_figure(shown(noise(2304), BIAS, 0, 2304))
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= canvas.WIDTH
    assert f"{BIAS}[0:2304]" in texts(figure)


@needs_gpt2_partial
def test_gpt2s_own_bias() -> None:
    picture = draw(parameter(BIAS), BIAS, length=2304)
    assert "1.939 (index 670)" in caption(picture)
    assert "The thirds are the biases of Q, K and V." in caption(picture)
