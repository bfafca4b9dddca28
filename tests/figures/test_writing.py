"""The animation of a sample being written."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from bot.figures import Picture, writing
from bot.figures.drawing import canvas
from bot.figures.writing import CHOSEN, DPI
from tests.figures.builders import caption, words

if TYPE_CHECKING:
    from bot.figures import Drawing

PROMPT = [*words("Zoë said:"), "猫".encode()[:2], "猫".encode()[2:], " 🤖".encode()]
CHOSEN_PIECES = [b" a", b"\n", "猫".encode()[:1], "猫".encode()[1:], b" $x^{$", b"<|endoftext|>"]


def draw(chosen: list[bytes], **changes: Any) -> Drawing:
    random = np.random.default_rng(0)
    size = len(chosen)
    before = random.dirichlet(np.ones(7), size)[:, :6].astype(np.float32)
    draws = np.full((size, 6), 0.5)
    draws[:, 2] = 3
    given: dict[str, Any] = {
        "prompt": PROMPT,
        "chosen": chosen,
        "candidates": [[b" x", b" y", piece, b"\xff", b" " + b"W" * 90, b"z"] for piece in chosen],
        "before": before,
        "after": np.where(before < 0.1, 0, before).astype(np.float32),
        "draws": draws,
        "seed": 42,
        "temperature": 0.7,
        "top_k": 50,
        "top_p": 0.9,
        "ended": True,
    }
    return writing(**given | changes)


def finished(drawing: Drawing) -> tuple[Picture, int]:
    """Draw all steps, and count them."""
    steps = 0
    while True:
        try:
            next(drawing)
        except StopIteration as end:
            return end.value, steps
        steps += 1


def test_two_frames_for_each_token_make_a_light_gif_that_repeats() -> None:
    picture, steps = finished(draw(CHOSEN_PIECES * 4))
    assert steps == 47, "a frame a step, so that other pictures do not wait"
    assert picture.filename == "writing.gif"
    assert len(picture.file) < 3_000_000
    assert len(str(picture.alt)) <= 256
    assert str(picture.alt).startswith("Animation: GPT-2 writes 24 tokens with seed 42, ")
    assert 2 <= len(picture.caption) <= 4
    assert "a random number of seed 42" in caption(picture)
    assert "from left to right" not in caption(picture)
    image = Image.open(io.BytesIO(picture.file))
    assert image.format == "GIF"
    assert image.info["loop"] == 0
    assert image.size == picture.size
    assert image.width == int(canvas.WIDTH * DPI)
    assert image.n_frames == 47
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert durations[0] > 2000, "the first frame explains the others"
    assert sum(durations) < 60_000


def frames(picture: Picture) -> list[np.ndarray[Any, Any]]:
    image = Image.open(io.BytesIO(picture.file))
    return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(image)]


def test_the_first_frame_has_a_draw_and_every_second_one_after_it() -> None:
    picture, _ = finished(draw(CHOSEN_PIECES[:3]))
    orange = [round(255 * channel) for channel in canvas.rgb(CHOSEN)]
    marked = [int((abs(frame - orange).sum(axis=2) < 60).sum()) for frame in frames(picture)]
    assert len(marked) == 5
    assert min(marked[0::2]) > 4 * max(marked[1::2]), "only the heading of the draw is orange without one"


def test_the_text_grows_and_stays() -> None:
    picture, _ = finished(draw(CHOSEN_PIECES))
    below = [frame[int(3.4 * DPI) :] for frame in frames(picture)]
    ground = [round(255 * channel) for channel in canvas.rgb(canvas.BACKGROUND)]
    filled = [int((abs(frame - ground).sum(axis=2) > 30).sum()) for frame in below[1::2]]
    assert filled == sorted(filled)
    assert filled[-1] > filled[0]


def test_greedy_has_no_seed_and_a_part_is_said_to_be_one() -> None:
    picture, _ = finished(draw([b" a"], temperature=0.0, ended=False))
    assert "At temperature 0 the likeliest token is always taken." in caption(picture)
    assert "Showing the first 1 new tokens." in caption(picture)


@pytest.mark.parametrize("changes", [{"before": np.ones((2, 6))}, {"candidates": []}, {"draws": np.ones((1, 5))}])
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="candidates"):
        next(draw([b" a"], **changes))
