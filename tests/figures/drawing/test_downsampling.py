from __future__ import annotations

import numpy as np
import pytest

from bot.figures.drawing.downsampling import PIXELS, downsample
from tests.figures.builders import noise


def test_what_fits_is_drawn_weight_by_weight() -> None:
    values = noise(*PIXELS)
    downsampled = downsample(values)
    assert downsampled.block == (1, 1)
    assert downsampled.sentences() == ()
    assert (downsampled.cells == values).all()


@pytest.mark.parametrize("shape", [(7, 11), (8, 9), (9, 4), (1, 13), (13, 1)])
def test_each_cell_is_the_mean_of_its_block_and_the_last_of_what_is_left(shape: tuple[int, ...]) -> None:
    values = noise(*shape)
    downsampled = downsample(values, most=(3, 4))
    rows, columns = downsampled.block
    assert downsampled.cells.shape <= (3, 4)
    for (i, j), cell in np.ndenumerate(downsampled.cells):
        block = values[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        assert cell == pytest.approx(block.mean(), rel=1e-5)


def test_the_caption_says_what_a_cell_is() -> None:
    (sentence,) = downsample(noise(1300, 30)).sentences()
    assert str(sentence) == "Each cell is the mean of 3 × 1 weights."


def test_a_missing_value_shows_in_its_cell_and_nowhere_else() -> None:
    values = noise(8, 8)
    values[5, 2] = np.nan
    missing = np.isnan(downsample(values, most=(4, 4)).cells)
    assert missing[2, 1]
    assert missing.sum() == 1
