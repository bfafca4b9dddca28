from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bot.figures import matrix
from bot.figures.drawing.wording import number
from bot.figures.weights import _figure
from tests.figures.builders import NAME, SIZE, caption, heatmap, labels, noise, opened, texts

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from bot.figures import Picture, Style


UGLY = "a$x^{$_`*@everyone\n\t漢字 \N{RIGHT-TO-LEFT OVERRIDE}" + "W" * 200


def draw(values: NDArray[Any], *, name: str = NAME, row: int = 0, column: int = 0, style: Style = "clear") -> Picture:
    rows, columns = range(row, row + values.shape[0]), range(column, column + values.shape[1])
    return matrix(values, name=name, rows=rows, columns=columns, shape=(768, 3072), dtype="float16", style=style)


@pytest.mark.parametrize("style", ["clear", "article"])
def test_alt_and_caption_have_the_numbers_of_the_array(style: Style) -> None:
    values = noise(40, 60)
    picture = draw(values, row=100, column=200, style=style)
    low, high = number(values.min()), number(values.max())
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert str(picture.alt) == f"Heatmap of {NAME}[100:140, 200:260]: 40 × 60 weights, from {low} to {high}."
    said = caption(picture)
    assert f"{NAME}[100:140, 200:260]: 40 × 60 of a matrix of 768 × 3072, float16." in said
    assert low in said
    assert f"{high} (row {100 + row}, column {200 + column})" in said


def test_a_whole_matrix_is_called_whole() -> None:
    whole = range(9)
    picture = matrix(noise(9, 9), name="m", rows=whole, columns=whole, shape=(9, 9), dtype="float32", style="clear")
    assert "m: the whole matrix, 9 × 9, float32." in caption(picture)


def test_the_title_names_parameter_and_slice() -> None:
    assert f"{NAME}[5:25, 7:27]" in texts(_figure(heatmap(noise(20, 20), row=5, column=7)))
    assert _figure(heatmap(noise(20, 20), style="article")).axes[0].get_title() == f"{NAME}[0:20, 0:20]"


@pytest.mark.parametrize("style", ["clear", "article"])
def test_an_ugly_name_is_cut_in_the_picture_and_whole_in_the_caption(style: Style) -> None:
    picture = draw(noise(8, 8), name=UGLY, style=style)
    assert opened(picture).size == SIZE
    assert UGLY in caption(picture)
    assert len(str(picture.alt)) <= 256
    assert picture.filename.isascii()
    assert len(picture.filename) < 120
    figure = _figure(heatmap(noise(8, 8), name=UGLY, style=style))
    titles = [label for label in labels(figure) if "$x" in label.get_text()]
    assert [(label.get_parse_math(), "…" in label.get_text()) for label in titles] == [(False, True)]


@pytest.mark.parametrize("name", ["", "..", "漢字", "/etc/passwd"])
def test_filenames_are_plain(name: str) -> None:
    filename = draw(noise(2, 2), name=name).filename
    assert filename.endswith("-0-2-0-2-clear.png")
    assert "/" not in filename
    assert not filename.startswith((".", "-"))


def test_missing_values_are_counted_in_the_caption() -> None:
    values = noise(10, 10)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    said = caption(draw(values))
    assert "NaN or infinite, drawn in white: 3 of 100 values." in said
    assert number(values[np.isfinite(values)].max()) in said


@pytest.mark.parametrize(
    ("value", "said"), [(0, "Values: all 0."), (0.25, "Values: all 0.25."), (np.nan, "Values: no finite value.")]
)
def test_a_constant_is_named(value: float, said: str) -> None:
    assert said in caption(draw(np.full((4, 4), value)))


def test_big_matrices_are_downsampled_and_say_so() -> None:
    values = noise(5025, 100)
    picture = draw(values)
    assert "Each cell is the mean of 9 × 1 weights." in caption(picture)
    assert number(values.min()) in caption(picture)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((3, 3), range(3), range(4)),
        ((0, 3), range(0), range(3)),
        ((3, 3), range(0, 6, 2), range(3)),
        ((3,), range(3), range(1)),
    ],
)
def test_what_does_not_fit_its_slice_is_refused(shape: tuple[int, ...], rows: range, columns: range) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        matrix(np.zeros(shape), name="m", rows=rows, columns=columns, shape=(9, 9), dtype="float32", style="clear")


def test_half_precision_is_drawn_in_full_precision() -> None:
    values = noise(50, 50).astype(np.float16)
    assert number(values.astype(np.float32).max()) in caption(draw(values))
