from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bot.figures.drawing.scale import CLIP_PERCENTILE, MISSING_IN_CLEAR, diverging, full_range, stretched
from bot.figures.drawing.summary import summarize
from tests.figures.builders import noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from bot.figures.drawing.scale import Scale


@pytest.mark.parametrize("fit", [diverging, stretched])
def test_colours_are_centred_on_zero_and_end_at_the_percentile(fit: Callable[[NDArray[Any]], Scale]) -> None:
    cells = noise(200, 200) + 0.01
    scale = fit(cells)
    limit = np.percentile(np.abs(cells), CLIP_PERCENTILE)
    assert (scale.norm.vmin, scale.norm.vmax) == pytest.approx((-limit, limit))
    assert scale.norm(0) == pytest.approx(0.5)
    assert scale.clips


def test_the_caption_names_the_limit_and_the_share_beyond_it() -> None:
    cells = noise(200, 200)
    limit = np.percentile(np.abs(cells), CLIP_PERCENTILE)
    sentence = str(diverging(cells).sentences[0])
    assert f"±{limit:.4g}" in sentence
    assert "99th percentile" in sentence
    assert f"{np.mean(np.abs(cells) > limit):.1%}" in sentence


@pytest.mark.parametrize("fit", [diverging, stretched])
def test_a_small_slice_is_not_clipped(fit: Callable[[NDArray[Any]], Scale]) -> None:
    cells = noise(5, 5)
    scale = fit(cells)
    assert scale.norm.vmax == pytest.approx(np.abs(cells).max())
    assert not scale.clips
    assert "nothing clipped" in str(scale.sentences[0])


@pytest.mark.parametrize("fit", [diverging, stretched])
@pytest.mark.parametrize("value", [0.0, 0.3, -7.0, np.nan, 1e-42, 3e38])
def test_any_constant_has_a_scale(fit: Callable[[NDArray[Any]], Scale], value: float) -> None:
    scale = fit(np.full((40, 40), value))
    assert 0 < scale.norm.vmax < np.inf
    assert list(scale.ticks) == sorted(scale.ticks)


def test_one_weight_among_zeros_is_not_cut() -> None:
    cells = np.zeros((50, 50))
    cells[3, 4] = 2
    assert diverging(cells).norm.vmax == 2


def test_a_stretched_scale_is_nearly_linear_for_ordinary_noise_and_lifts_what_is_small_among_giants() -> None:
    cells = noise(100, 100)
    giants = cells.copy()
    giants[:, :5] *= 100
    assert stretched(cells).norm(0.02) == pytest.approx(diverging(cells).norm(0.02), abs=0.05)
    assert stretched(giants).norm(0.02) - 0.5 > 4 * (diverging(giants).norm(0.02) - 0.5)


def test_missing_values_have_a_colour_of_their_own() -> None:
    scale = diverging(noise(5, 5))
    assert tuple(scale.colormap.get_bad()) == (1, 1, 1, 1)
    assert MISSING_IN_CLEAR == "#ffffff"


def test_the_article_shows_the_full_range() -> None:
    values = noise(50, 50)
    scale = full_range(summarize(values))
    assert (scale.norm.vmin, scale.norm.vmax) == (values.min(), values.max())
    assert scale.colormap.name == "gray"


@pytest.mark.parametrize("value", [0.0, 0.3, np.nan])
def test_a_constant_has_a_gray_too(value: float) -> None:
    scale = full_range(summarize(np.full((3, 3), value)))
    assert scale.norm.vmin < scale.norm.vmax
