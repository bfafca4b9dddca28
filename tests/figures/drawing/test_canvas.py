from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from bot.figures import matrix
from bot.figures.drawing import canvas
from bot.figures.drawing.scale import STOPS
from tests.figures.builders import NAME, SIZE, contrast, noise, opened

if TYPE_CHECKING:
    from bot.figures import Picture, Style


def draw(style: Style = "clear", shape: tuple[int, ...] = (300, 300)) -> Picture:
    rows, columns = map(range, shape)
    return matrix(noise(*shape), name=NAME, rows=rows, columns=columns, shape=(768, 3072), dtype="float32", style=style)


@pytest.mark.parametrize("colour", [canvas.INK, canvas.MUTED, *canvas.CATEGORIES])
def test_text_and_lines_are_readable_on_the_ground(colour: str) -> None:
    assert contrast(colour, canvas.BACKGROUND) >= 4.5


@pytest.mark.parametrize("colour", STOPS)
def test_numbers_are_readable_on_every_colour_of_a_cell(colour: str) -> None:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert contrast(canvas.contrasting_colour(rgb), colour) >= 4.5


@pytest.mark.parametrize("style", ["clear", "article"])
def test_pngs_are_opaque_and_three_times_the_preview(style: Style) -> None:
    image = opened(draw(style))
    assert image.format == "PNG"
    assert image.size == SIZE
    assert image.mode in {"RGB", "P"}
    assert "transparency" not in image.info


@pytest.mark.parametrize("shape", [(768, 3072), (5000, 768)])
def test_noise_of_many_weights_stays_light_and_keeps_its_colours(shape: tuple[int, ...]) -> None:
    png = draw(shape=shape).file
    assert len(png) < 620_000
    corner = Image.open(io.BytesIO(png)).convert("RGB").getpixel((3, 3))
    assert corner == (0x1E, 0x1F, 0x22)


@pytest.mark.parametrize("style", ["clear", "article"])
def test_the_global_settings_of_matplotlib_are_left_alone(style: Style) -> None:
    before = dict(mpl.rcParams)
    draw(style)
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_imported() -> None:
    program = """
import sys
import numpy as np
from bot.figures import *
r = range(3)
for style in ("clear", "article"):
    matrix(np.eye(3), name="m", rows=r, columns=r, shape=(3, 3), dtype="float64", style=style)
    vector(np.ones(3), name="v", positions=r, length=3, dtype="float64", style=style)
sys.exit("matplotlib.pyplot" in sys.modules or "torch" in sys.modules or "discord" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_long_title_ends_before_the_edge() -> None:
    figure = canvas.clear_figure("W" * 500, "i" * 500)
    for label in figure.texts:
        assert label.get_text().endswith("…")
        assert label.get_window_extent().x1 <= canvas.WIDTH * canvas.DPI


@pytest.mark.parametrize("shade", np.linspace(0, 1, 50))
def test_black_or_white_is_readable_on_every_gray(shade: float) -> None:
    gray = to_hex((shade, shade, shade))
    assert contrast(canvas.contrasting_colour(np.array(to_rgb(gray))), gray) >= 4.5
