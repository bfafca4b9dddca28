"""Requirements of every picture of a text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest

from bot import figures
from bot.figures.drawing import canvas
from tests.figures.builders import (
    SIZE,
    caption,
    causal,
    contrast,
    drawn,
    noise,
    opened,
    shown_labels,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from bot.figures import Picture

PLAIN = words("When Mary and John went to the store, John gave a drink to Mary")
HOSTILE = [
    *(character.encode() for character in "吾😀ש ع$x^{\n\t`"),
    "猫".encode()[:1],
    "猫".encode()[1:],
    b"\xff\xfe",
    b"\x00",
    "\N{RIGHT-TO-LEFT OVERRIDE}".encode(),
    b"@everyone",
    b" " + b"W" * 90,
    b"",
]
LAYERS, HEADS = 4, 6
CAPTION_LINE = 300  # characters, with every exceptional note
MAX_BAND = 0.7  # inches of an empty band
PREVIEW = 3  # pixels of the picture for one of what Discord shows


def draws(pieces: list[bytes]) -> dict[str, Callable[[], Picture]]:
    """Return a function for every picture of these tokens."""
    size = len(pieces)
    random = np.random.default_rng(1)
    bits = np.append(np.nan, random.gamma(2, 3, size - 1)).astype(np.float32)
    scores = {key: random.random((LAYERS, HEADS)) for key in ("previous", "first", "same", "induction")}
    shares = np.full(size, 0.5 / size)
    maps = causal(LAYERS, HEADS, size)
    wpe = np.cumsum(noise(60, 32), axis=0)
    table = {
        f"grid {sink}": partial(figures.attention_grid, maps, pieces=pieces, scores=scores, sink=sink)
        for sink in ("raw", "removed")
    } | {
        f"head {sink}": partial(figures.attention_head, maps[0, 0], pieces=pieces, layer=1, head=1, sink=sink)
        for sink in ("raw", "removed")
    }
    return table | {
        "next": partial(
            figures.next_tokens,
            prompt=pieces,
            candidates=pieces,
            before=shares,
            after=np.append(1.0, np.zeros(size - 1)),
            rest_before=0.5,
            rest_after=0.0,
            temperature=0.7,
            top_k=1,
            top_p=0.9,
        ),
        "surprise": partial(figures.surprise, "x" * 60, pieces=pieces, bits=bits),
        "split": partial(figures.token_split, "x" * 60, pieces=pieces, ids=range(50_000, 50_000 + size)),
        "lens": partial(
            figures.lens,
            pieces=pieces,
            tops=[pieces] * (LAYERS + 1),
            probabilities=random.random((LAYERS + 1, size)),
            settled=random.integers(0, LAYERS + 1, size),
        ),
        "compare": partial(
            figures.compare,
            first=pieces,
            second=pieces[::-1],
            candidates=pieces,
            probabilities=random.dirichlet(np.ones(size), 2),
            first_bits=bits,
            second_bits=bits,
            difference=causal(LAYERS, HEADS, size, seed=3) - maps,
        ),
        "ablation": partial(
            figures.ablation,
            pieces=pieces,
            heads=[(2, 3), (4, 6)],
            candidates=pieces,
            probabilities=random.dirichlet(np.ones(size), 2),
            bits=np.stack([bits, bits[:1].tolist() + (bits[1:] + 3).tolist()]),
        ),
        "insights": partial(figures.insights, samples=[(pieces, bits[::-1])] * 4, similarity=random.random((4, 4))),
        "similarity": partial(
            figures.positional_similarity, wpe, name="wpe.weight", positions=range(60), dtype="float32"
        ),
        "helix": partial(figures.positional_helix, wpe, name="wpe.weight", positions=range(60), dtype="float32"),
        "heads": partial(
            figures.attention_heads, noise(48, 144), name="c", layer=1, width=48, heads=6, dtype="float16"
        ),
        "induction": partial(
            figures.induction, causal(20), scores=random.random((LAYERS, HEADS)), layer=2, head=3, length=10
        ),
    }


TEXTS = {"plain": PLAIN, "hostile": HOSTILE}
WITHOUT_TEXT = {"similarity", "helix", "heads", "induction"}
ALL = [
    pytest.param(text, name, id=f"{name}, {text}")
    for text in TEXTS
    for name in draws(PLAIN)
    if text == "plain" or name not in WITHOUT_TEXT
]


@pytest.mark.parametrize(("text", "name"), ALL)
def test_it_is_readable_light_and_well_described(
    text: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    picture, figure = drawn(monkeypatch, draws(TEXTS[text])[name])
    assert not caplog.records
    image = opened(picture)
    assert image.width == SIZE[0]
    assert round(canvas.LOWEST * canvas.DPI) <= image.height <= SIZE[1]
    assert longest_band(image) <= MAX_BAND * canvas.DPI, "an empty band"
    assert image.mode in {"RGB", "P"}
    assert len(picture.file) < 600_000
    assert 20 < len(str(picture.alt)) <= 256
    assert any(character.isdigit() for character in str(picture.alt))
    assert picture.filename.endswith(".png")
    assert picture.filename.isascii()
    assert caption(picture).endswith(".")
    assert 2 <= len(picture.caption) <= 4
    assert all(len(str(each)) <= CAPTION_LINE for each in picture.caption)
    leftwards = text == "hostile" and name != "next"  # has Hebrew and Arabic
    assert ("from left to right" in caption(picture)) is leftwards
    labels = shown_labels(figure)
    assert len(labels) > 5
    for label, box, ground in labels:
        place = f"{label.get_text()!r} at {box.extents}"
        assert not label.get_parse_math() or "$" not in label.get_text(), place
        assert label.get_size() >= canvas.TEXT_POINTS, place
        assert contrast(mpl.colors.to_hex(label.get_color()), ground) >= 4.5, place
        assert box.x0 >= 2 * PREVIEW, place
        assert box.x1 <= SIZE[0] - 2 * PREVIEW, place
        assert box.y0 >= SIZE[1] - image.height - 1, place
        assert box.y1 <= SIZE[1] + 1, place


@pytest.mark.parametrize("name", ["grid raw", "compare", "helix"])
def test_the_same_arrays_make_the_same_picture(name: str) -> None:
    assert draws(PLAIN)[name]().file == draws(PLAIN)[name]().file


def longest_band(image: Image.Image) -> int:
    """Return the height of the highest band that has nothing but the background."""
    ground = np.array([round(255 * channel) for channel in canvas.rgb(canvas.BACKGROUND)])
    empty = (np.asarray(image.convert("RGB")) == ground).all(axis=(1, 2))
    return max(len(run) for run in "".join(" x"[row] for row in empty.astype(int)).split(" "))


@pytest.mark.parametrize("name", [name for name in draws(PLAIN) if "removed" not in name])
def test_one_token_is_enough(name: str) -> None:
    assert draws([b"a"])[name]().file


@pytest.mark.parametrize("name", ["grid removed", "head removed"])
def test_without_the_first_token_nothing_is_left_of_one(name: str) -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        draws([b"a"])[name]()


def test_captions_of_weights_have_at_most_four_lines() -> None:
    values, where = noise(300, 300), {"rows": range(300), "columns": range(300), "dtype": "float16"}
    values[0, 0] = np.nan
    lines = {"name": "wpe.weight", "positions": range(300), "dtype": "float32"}
    for picture in (
        figures.matrix(values, name="m", shape=(768, 768), style="clear", **where),
        figures.positional_heatmap(values, name="wpe.weight", shape=(1024, 768), style="article", **where),
        figures.attention_slice(values, name="c", layer=2, width=768, heads=12, style="clear", **where),
        figures.positional_lines(values[:, :3], dims=(0, 1, 2), style="clear", **lines),
        figures.vector(values[0], length=768, style="clear", **lines),
    ):
        assert 2 <= len(picture.caption) <= 4
        assert max(map(len, map(str, picture.caption))) <= CAPTION_LINE
