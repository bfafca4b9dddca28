from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bot.figures import attention_slice
from bot.figures.attention import _figure
from bot.figures.drawing import canvas
from bot.figures.drawing.heatmap import Heatmap
from bot.figures.drawing.picture import Slice
from bot.figures.drawing.wording import number
from bot.figures.heads import head_spans
from tests.figures.builders import caption, noise, opened, texts
from tests.figures.gpt2_partial import needs_gpt2_partial, parameter

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bot.figures import Picture, Style


NAME = "transformer.h.1.attn.c_attn.weight"


def draw(
    values: NDArray[Any], columns: range = range(300), style: Style = "clear", width: int = 768, heads: int = 12
) -> Picture:
    rows = range(len(values))
    return attention_slice(
        values, name=NAME, layer=2, rows=rows, columns=columns, width=width, heads=heads, dtype="float16", style=style
    )


def figure_of(columns: range, style: Style = "clear") -> Figure:
    part = Slice(NAME, range(20), columns, (768, 2304), "float16", style)
    return _figure(Heatmap.of(noise(20, len(columns)), part), 2, head_spans(columns, 768, 12))


def borders(figure: Figure) -> list[float]:
    return [line.get_xdata()[0] for line in figure.axes[0].lines]


def labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].texts]


def test_the_tutorials_slice_has_its_heads_marked() -> None:
    figure = figure_of(range(300))
    assert borders(figure) == [63.5, 127.5, 191.5, 255.5]
    assert labels(figure) == [f"Q head {head}" for head in range(1, 6)]
    assert "This slice is Q alone: 4 whole heads and 44 of the 64 columns of head 5." in texts(figure)


def test_the_border_between_parts_is_stronger() -> None:
    figure = figure_of(range(700, 900))
    widths = {line.get_xdata()[0]: line.get_linewidth() for line in figure.axes[0].lines}
    assert max(widths, key=widths.get) == 767.5
    assert labels(figure) == ["Q head 12", "K head 1", "K head 2"]


def test_the_whole_matrix_names_its_parts_only() -> None:
    figure = figure_of(range(2304))
    assert labels(figure) == ["Q", "K", "V"]
    assert len(borders(figure)) == 35


@pytest.mark.parametrize("columns", [range(300), range(1000), range(60, 70), range(1), range(700, 1700)])
def test_labels_do_not_overlap(columns: range) -> None:
    figure = figure_of(columns)
    boxes = [label.get_window_extent() for label in figure.axes[0].texts if label.get_position()[1] == 3]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert all(box.y1 < canvas.HEIGHT * canvas.DPI * 0.9 for box in boxes)


def test_the_article_is_the_tutorials() -> None:
    axes = figure_of(range(300), style="article").axes[0]
    assert axes.get_title() == "Attention Matrix (Layer 2)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Column", "Row")
    assert not axes.lines


def test_the_caption_counts_layers_for_people_and_for_the_code() -> None:
    said = caption(draw(noise(300, 300)))
    assert "Layer 2 (h.1 in the code)" in said
    assert NAME in said
    assert "300 × 300 of a matrix of 768 × 2304" in said


def test_the_extreme_heads_are_those_of_numpy() -> None:
    values = noise(300, 300)
    values[:, 64:128] *= 4
    values[:, 192:256] /= 4
    picture = draw(values)
    high, low = (number(np.abs(values[:, start : start + 64]).mean()) for start in (64, 192))
    sentence = f"Mean magnitude: largest in Q head 2 ({high}), smallest in Q head 4 ({low})."
    assert sentence in caption(picture)
    assert sentence in str(picture.alt)


def test_one_head_is_not_compared() -> None:
    assert "largest" not in caption(draw(noise(5, 10), range(10)))


def test_a_missing_value_stops_the_comparison_and_nothing_else() -> None:
    values = noise(300, 300)
    values[4, 5] = np.nan
    said = caption(draw(values))
    assert "largest" not in said
    assert "1 of 90000 values" in said


def test_other_sizes_of_model() -> None:
    picture = draw(noise(64, 192), range(192), width=64, heads=4)
    assert "Q (4 whole heads), K (4 whole heads) and V (4 whole heads)" in caption(picture)


def test_columns_outside_the_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        draw(noise(3, 10), range(2300, 2310))


@needs_gpt2_partial
@pytest.mark.parametrize("style", ["clear", "article"])
def test_gpt2s_own_slice(style: Style) -> None:
    values = parameter(NAME)[:300, :300]
    picture = draw(values, style=style)
    said = caption(picture)
    assert f"{number(-0.99707)} (row 71, column 242)" in said
    assert "0.8574 (row 164, column 39)" in said
    assert "largest in Q head 1 (0.1804)" in said
    assert len(str(picture.alt)) <= 256
    assert len(picture.file) < 600_000
    assert opened(picture).format == "PNG"
