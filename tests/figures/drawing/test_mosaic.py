from __future__ import annotations

import numpy as np
import pytest

from bot.figures.drawing import canvas
from bot.figures.drawing.mosaic import GUTTER, WIDEST, Mosaic, tiles_of
from tests.figures.builders import causal

BOX = (0.6, 1.0, 3.95, 3.5)


@pytest.mark.parametrize("shape", [(12, 12), (6, 12), (48, 25), (1, 1), (3, 16)])
def test_tiles_fill_one_side_of_the_box_and_are_not_too_wide(shape: tuple[int, int]) -> None:
    mosaic = Mosaic.within(*shape, BOX)
    width, height = mosaic.size
    assert width <= BOX[2] * canvas.DPI + 1
    assert height <= BOX[3] * canvas.DPI + 1
    assert width + shape[1] > BOX[2] * canvas.DPI - 2 * GUTTER or height + shape[0] > BOX[3] * canvas.DPI - 2 * GUTTER
    high, wide = mosaic.tile
    assert high <= wide <= WIDEST * high


@pytest.mark.parametrize("tile", [(8, 8), (16, 24), (40, 40)])
def test_a_tile_of_whole_cells_is_the_matrix_enlarged(tile: tuple[int, int]) -> None:
    weights = causal(2, 3, 8)
    cell = (tile[0] // 8, tile[1] // 8)
    np.testing.assert_allclose(tiles_of(weights, tile), np.kron(weights, np.ones(cell)), rtol=1e-5)


@pytest.mark.parametrize(("tokens", "tile"), [(40, (66, 131)), (40, (17, 17)), (7, (66, 80))])
def test_a_tile_keeps_the_mean_by_area(tokens: int, tile: tuple[int, int]) -> None:
    weights = causal(1, 2, tokens)
    np.testing.assert_allclose(tiles_of(weights, tile).mean(axis=(2, 3)), weights.mean(axis=(2, 3)), rtol=1e-4)


def test_what_is_not_there_stays_out_of_the_means() -> None:
    weights = np.array([[[[1.0, np.nan], [0.25, 0.75]]]])
    tile = tiles_of(weights, (4, 4))[0, 0]
    assert np.isnan(tile[:2, 2:]).all()
    assert set(tile[np.isfinite(tile)]) == {1.0, 0.25, 0.75}


def test_layers_and_heads_are_numbered_from_one() -> None:
    figure = canvas.clear_figure("", "")
    mosaic = Mosaic.within(12, 12, BOX)
    axes = mosaic.draw(figure, np.zeros((12, 12, *mosaic.tile, 3)))
    numbers = [str(n) for n in range(1, 13)]
    assert [label.get_text() for label in axes.get_xticklabels()] == numbers
    assert [label.get_text() for label in axes.get_yticklabels()] == numbers
