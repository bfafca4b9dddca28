from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bot.figures import positional_helix, positional_similarity
from bot.figures.drawing import canvas
from bot.figures.positional_geometry import ALONG, Curve
from tests.figures.builders import caption, contrast, drawn, noise, shown_labels
from tests.figures.gpt2_partial import needs_gpt2_partial, parameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.figures import Picture

NAME = "transformer.wpe.weight"


def test_the_image_is_the_cosine_of_each_two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(20, 8)
    picture, figure = drawn(
        monkeypatch, lambda: positional_similarity(values, name=NAME, positions=range(5, 25), dtype="float32")
    )
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    image = figure.axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), units @ units.T, atol=1e-6)
    assert image.get_clim() == (-1, 1)
    assert "wpe.weight[5:25]" in str(picture.alt)
    assert "Colour scale: ±1, nothing clipped." in caption(picture)


def test_a_row_of_zeros_has_no_direction() -> None:
    values = noise(6, 4)
    values[2] = 0
    picture = positional_similarity(values, name=NAME, positions=range(6), dtype="float32")
    assert "Positions without a direction, drawn in white: 1." in caption(picture)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (2, 5), (1, 5), (5, 2)])
def test_principal_components_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    values = noise(*shape).astype(np.float64)
    curve = Curve.of(values, range(len(values)))
    left, sizes, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    count = min(3, len(sizes))
    np.testing.assert_allclose(np.abs(curve.points[:, :count]), np.abs(left * sizes)[:, :count], atol=1e-9)
    total = (sizes**2).sum() or 1
    np.testing.assert_allclose(curve.shares[:count], sizes[:count] ** 2 / total, atol=1e-9)


def test_the_curve_is_shown_flat_and_in_space(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.stack([np.cos(np.arange(50) / 5), np.sin(np.arange(50) / 5), np.arange(50) / 25], axis=1)
    picture, figure = drawn(
        monkeypatch, lambda: positional_helix(values, name=NAME, positions=range(50), dtype="float32")
    )
    assert sum(axes.name == "3d" for axes in figure.axes) == 1
    assert len(figure.axes[0].collections[0].get_offsets()) == 50
    assert "three 100.0%" in str(picture.alt)


def test_every_position_is_seen_on_the_ground() -> None:
    brightness = [contrast(to_hex(ALONG(place)), canvas.BACKGROUND) for place in np.linspace(0, 1, 20)]
    assert brightness[0] > 3
    assert brightness == sorted(brightness)


def test_labels_of_a_small_curve_stay_on_the_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(3, 8)  # whose axes have the longest numbers
    _, figure = drawn(monkeypatch, lambda: positional_helix(values, name=NAME, positions=range(3), dtype="float32"))
    assert all(box.x0 > 9 for _, box, _ in shown_labels(figure))


@pytest.mark.parametrize("turns", [0.1, 1, 2, 2.5, 3, 5])
def test_the_numbers_on_the_curve_do_not_collide(turns: float, monkeypatch: pytest.MonkeyPatch) -> None:
    angle = np.linspace(0, turns * 2 * np.pi, 600)
    values = np.column_stack([np.cos(angle), np.sin(angle), angle / 50]).astype(np.float32)
    _, figure = drawn(monkeypatch, lambda: positional_helix(values, name=NAME, positions=range(600), dtype="float32"))
    for axes in figure.axes[:2]:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert boxes
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize("draw", [positional_similarity, positional_helix])
def test_constants_and_single_rows_are_drawn(draw: Callable[..., Picture]) -> None:
    for values in (np.ones((9, 4)), np.zeros((5, 4)), np.ones((1, 4)), np.ones((6, 1))):
        assert draw(values.astype(np.float32), name=NAME, positions=range(len(values)), dtype="float32").file


def test_no_components_of_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="not finite"):
        positional_helix(np.full((3, 3), np.nan), name=NAME, positions=range(3), dtype="float32")


@pytest.mark.parametrize("draw", [positional_similarity, positional_helix])
def test_positions_must_fit(draw: Callable[..., Picture]) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        draw(np.ones((3, 4)), name=NAME, positions=range(4), dtype="float32")


@needs_gpt2_partial
def test_gpt2s_own_positions_make_a_helix() -> None:
    values = parameter(NAME)
    whole = range(len(values))
    helix = positional_helix(values, name=NAME, positions=whole, dtype="float32")
    assert "two hold 65.8% of the variance, three 90.4%" in str(helix.alt)
    similarity = positional_similarity(values, name=NAME, positions=whole, dtype="float32")
    assert "Mean similarity: 0.9974 of neighbours" in str(similarity.alt)
    assert len(similarity.file) < 600_000
