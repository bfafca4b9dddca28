"""The programs draw the arrays that the bot draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.colors import AsinhNorm

from bot import exhibits, programs
from bot.figures import positional_geometry
from bot.figures.drawing.heatmap import Heatmap
from bot.figures.drawing.scale import stretched
from bot.figures.heads import head_spans
from bot.figures.positional_geometry import Curve
from bot.figures.qkv import _root_mean_square
from bot.programs.source import LINE_CHARACTERS
from tests.programs.running import Run, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.gpt2.local.engine import LocalEngine
    from bot.gpt2.model_info import ModelInfo, ParameterSlice

TOLERANCE = 1e-5


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Record the array that the bot draws."""
    found: dict[str, Any] = {}

    def show(heatmap: Heatmap, *arguments: Any) -> Any:
        found["values"] = heatmap.values
        return draw(heatmap, *arguments)

    draw = positional_geometry.draw_clear
    monkeypatch.setattr(positional_geometry, "draw_clear", show)
    return found


def image(done: Run) -> Any:
    """Return the image that the program shows."""
    assert done.figure
    (shown,) = done.figure.axes[0].images
    return shown


@pytest.mark.parametrize(
    ("style", "positions"), [("clear", ":"), ("clear", "5:60"), ("clear", "0:5"), ("article", "5:60")]
)
async def test_the_positional_heatmap(engine: LocalEngine, tiny_model: Path, style: Any, positions: str) -> None:
    part = await engine.select("wpe", positions, ":")
    shown = image(run(programs.positional_heatmap(part, style, await engine.model()), tiny_model))
    np.testing.assert_allclose(shown.get_array(), await engine.read(part), atol=TOLERANCE)
    assert shown.get_extent() == [-0.5, 31.5, part.rows.stop - 0.5, part.rows.start - 0.5]


@pytest.mark.parametrize(("loud", "positions"), [(1, ":"), (50, ":"), (50, "0:5")])
async def test_the_positional_heatmap_has_the_scale_of_the_picture(
    engine: LocalEngine, tiny_model: Path, positions: str, loud: float
) -> None:
    """Check that the scale is compressed where a few dimensions are much larger, as in GPT-2, and linear elsewhere."""
    part = await engine.select("wpe", positions, ":")
    program = programs.positional_heatmap(part, "clear", await engine.model())
    louder = program.replace(".numpy()\n", f".numpy()\nvalues[:, :1] *= {loud}\n")
    norm = image(run(louder, tiny_model)).norm
    values = (await engine.read(part)).copy()
    values[:, :1] *= loud
    expected = stretched(values).norm
    assert type(norm) is type(expected)
    assert isinstance(norm, AsinhNorm) is (loud > 1)
    assert norm.vmax == pytest.approx(expected.vmax)


@pytest.mark.parametrize("positions", [":", "5:60", "3:4"])
async def test_the_positional_lines(engine: LocalEngine, tiny_model: Path, positions: str) -> None:
    part = await engine.select("wpe", positions, ":")
    done = run(programs.positional_lines(part, (0, 31, 2), await engine.model()), tiny_model)
    assert done.figure
    values = await engine.read(part)
    for line, dimension in zip(done.figure.axes[0].lines, (0, 31, 2), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), part.rows)
        np.testing.assert_allclose(line.get_ydata(), values[:, dimension], atol=TOLERANCE)


@pytest.mark.parametrize("positions", [":", "5:60"])
async def test_the_similarity_of_positions(
    engine: LocalEngine, tiny_model: Path, drawn: dict[str, Any], positions: str
) -> None:
    part = await engine.select("wpe", positions, ":")
    exhibit = exhibits.positional_similarity(part, await engine.model())
    shown = image(run(exhibit.program, tiny_model))
    values = await engine.read(part)
    exhibit.draw(values)
    np.testing.assert_allclose(shown.get_array(), drawn["values"], atol=TOLERANCE)
    first, last = part.rows.start - 0.5, part.rows.stop - 0.5
    assert shown.get_extent() in ([first, last, last, first], (first, last, last, first))


@pytest.mark.parametrize("positions", [":", "5:60", "2:4", "7"])
async def test_the_curve_of_the_positions(engine: LocalEngine, tiny_model: Path, positions: str) -> None:
    part = await engine.select("wpe", positions, ":")
    done = run(programs.positional_helix(part, await engine.model()), tiny_model)
    curve = Curve.of((await engine.read(part)).astype(np.float64), part.rows)
    points = done.names["points"]
    # Where there is no variance the direction of a component is arbitrary, and of two positions either is the farthest.
    shown, expected = points * (curve.shares > TOLERANCE), curve.points
    either = np.abs if len(points) == 2 else np.positive
    np.testing.assert_allclose(either(shown), either(expected), atol=1e-4)
    assert done.figure
    assert len(done.figure.axes) == 2


async def test_all_heads_of_a_layer(engine: LocalEngine, tiny_model: Path) -> None:
    part = await engine.select("h.1.attn.c_attn", ":", ":")
    done = run(programs.attention_heads(part, 2, await engine.model()), tiny_model)
    values = await engine.read(part)
    np.testing.assert_allclose(image(done).get_array(), values, atol=TOLERANCE)
    spans = head_spans(part.columns, 32, 4)
    sizes = [_root_mean_square(values[:, span.columns.start : span.columns.stop]) for span in spans]
    np.testing.assert_allclose([bar.get_height() for bar in done.figure.axes[1].patches], sizes, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("style", "rows", "columns"),
    [("clear", None, None), ("clear", "3:9", "30:70"), ("clear", "0:1", "1:2"), ("article", "3:9", "30:70")],
)
async def test_a_slice_of_attention(
    engine: LocalEngine, tiny_model: Path, style: Any, rows: str | None, columns: str | None
) -> None:
    part = await engine.select("h.1.attn.c_attn", rows, columns)
    done = run(programs.attention_slice(part, 2, style, await engine.model()), tiny_model)
    np.testing.assert_allclose(image(done).get_array(), await engine.read(part), atol=TOLERANCE)
    if style == "clear":
        assert done.figure
        borders = [line.get_xdata()[0] for line in done.figure.axes[0].lines]
        # Four heads of 8 columns each in Q, K and V.
        assert borders == [each - 0.5 for each in range(8, 96, 8) if part.columns.start < each < part.columns.stop]


@pytest.mark.parametrize(
    ("style", "name", "rows", "columns"),
    [
        ("clear", "wte", None, None),
        ("article", "wte", "100:120", ":"),
        ("clear", "h.0.mlp.c_fc", ":", "7:9"),
        ("article", "h.0.mlp.c_fc", ":", "7:9"),
    ],
)
async def test_any_matrix(
    engine: LocalEngine, tiny_model: Path, style: Any, name: str, rows: str | None, columns: str | None
) -> None:
    part = await engine.select(name, rows, columns)
    shown = image(run(programs.matrix(part, style, await engine.model()), tiny_model))
    np.testing.assert_allclose(shown.get_array(), await engine.read(part), atol=TOLERANCE)


@pytest.mark.parametrize("style", ["clear", "article"])
@pytest.mark.parametrize("rows", [None, "3:9"])
async def test_any_vector(engine: LocalEngine, tiny_model: Path, style: Any, rows: str | None) -> None:
    part = await engine.select("h.0.attn.c_attn.bias", rows)
    done = run(programs.matrix(part, style, await engine.model()), tiny_model)
    assert done.figure
    line = done.figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), part.rows)
    np.testing.assert_allclose(line.get_ydata(), await engine.read(part), atol=TOLERANCE)


@pytest.mark.parametrize("part", ["", " Attn ", "h.2.ln_1"])
async def test_the_list_of_parameters(engine: LocalEngine, tiny_model: Path, part: str) -> None:
    infos = await engine.parameters(part)
    printed = run(programs.parameters(part, await engine.model()), tiny_model).printed
    assert printed == "".join(f"{info.name} torch.Size({list(info.shape)})\n" for info in infos)


@pytest.mark.parametrize(
    "program",
    [
        lambda part, model: programs.positional_heatmap(part, "clear", model),
        lambda part, model: programs.positional_lines(part, (0, 1, 2), model),
        lambda part, model: programs.attention_slice(part, 2, "clear", model),
        lambda part, model: programs.matrix(part, "clear", model),
        lambda part, model: programs.matrix(part, "article", model),
    ],
)
async def test_a_program_is_short(engine: LocalEngine, program: Callable[[ParameterSlice, ModelInfo], str]) -> None:
    source = program(await engine.select("h.1.attn.c_attn", "3:9", "4:90"), await engine.model())
    lines = [line for line in source.splitlines() if line]
    assert len(lines) <= 16
    assert max(map(len, lines)) <= LINE_CHARACTERS + 48
    assert "$" not in source
