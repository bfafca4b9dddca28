"""An animation of sampling: for each token its candidates, the draw, the token chosen, and the text that grows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import Bbox
from PIL import Image

from bot.figures.attention_maps import direction_note
from bot.figures.drawing import canvas, token_layout
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import token_label
from bot.figures.drawing.wording import joined, number, percent, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from bot.figures.drawing.picture import Array, Drawing

DPI: Final = 120  # of the frames: enough for Discord's preview of 550 pixels on a sharp screen
COLOURS: Final = 64  # of the palette that all frames share
CANDIDATES_MS: Final = 700
DRAW_MS: Final = 1000
FIRST_MS: Final = 2500  # of the first frame, which explains the others
LAST_MS: Final = 4000

TOP: Final = 1.06
ROW: Final = 0.27
LABELS: Final = (0.3, 1.25)  # left and width in inches
BARS: Final = (1.65, 2.5)
VALUES: Final = 4.25
DRAWS: Final = (5.72, 1.3)
TEXT: Final = (0.3, 3.3)  # left and top
ROOM: Final = (canvas.WIDTH - 0.6, canvas.HEIGHT - 3.4)
SCALES: Final = (1.5, 1.2, 1.0)
BEFORE, AFTER, CHOSEN = "#80848e", "#56b4e9", "#ff7a2f"
HATCHED: Final[dict[str, Any]] = {"facecolor": "none", "edgecolor": BEFORE, "hatch": "////", "linewidth": 1}
WRITTEN: Final = "#2b4d6b"
ALT_CHARACTERS: Final = 90  # of the text


@dataclass(frozen=True, slots=True)
class Steps:
    """What each token was drawn from, ready to draw.

    Attributes:
        prompt: The prompt's tokens.
        chosen: The new tokens.
        candidates: [chosen][k].
        before: [chosen, k + 1], the model's probabilities, that of all others last.
        after: [chosen, k + 1], those that the settings leave.
        draws: [chosen, k], relative to the largest of each step.
        settings: For the headline.
    """

    prompt: Sequence[bytes]
    chosen: Sequence[bytes]
    candidates: Sequence[Sequence[bytes]]
    before: Array
    after: Array
    draws: Array
    settings: str

    def winner(self, step: int) -> int:
        """Return the row of the token that was chosen."""
        return int(np.argmax(self.draws[step]))


def writing(
    *,
    prompt: Sequence[bytes],
    chosen: Sequence[bytes],
    candidates: Sequence[Sequence[bytes]],
    before: Array,
    after: Array,
    draws: Array,
    seed: int,
    temperature: float,
    top_k: int,
    top_p: float,
    ended: bool,
) -> Drawing:
    """Draw an animated GIF, a frame a step: two frames for each token, its candidates and its draw.

    Args:
        prompt: The prompt's tokens.
        chosen: The n new tokens.
        candidates: [n][k], the tokens that are shown as candidates, the chosen one among them.
        before: [n, k], the model's probabilities.
        after: [n, k], the probabilities after the settings.
        draws: [n, k], those divided by random numbers; the largest is the chosen one's.
        seed: Of the random numbers.
        temperature: The setting; 0 is greedy.
        top_k: The setting; 0 is off.
        top_p: The setting; 1 is off.
        ended: Whether the text ends with the last token.

    Raises:
        ValueError: The arrays don't fit together, or there is no token.
    """
    shape = (len(chosen), len(candidates[0]) if candidates else 0)
    if 0 in shape or len(candidates) != len(chosen) or {before.shape, after.shape, draws.shape} != {shape}:
        raise ValueError(f"{shape} candidates with arrays {before.shape}, {after.shape}, {draws.shape}")
    names = f"temperature {number(temperature)}, top-k {top_k}, top-p {number(top_p)}"
    settings = names if temperature == 0 else f"seed {seed}, {names}"
    largest = draws.max(axis=1, keepdims=True)
    steps = Steps(prompt, chosen, candidates, _with_rest(before), _with_rest(after), draws / largest, settings)
    scene = Scene(steps)
    scene.show_candidates(0)
    palette = scene.show_draw(0).quantize(COLOURS, dither=Image.Dither.NONE)
    frames, milliseconds = [palette], [FIRST_MS]
    for step in range(1, len(chosen)):
        for show, duration in ((scene.show_candidates, CANDIDATES_MS), (scene.show_draw, DRAW_MS)):
            yield
            frames.append(show(step).quantize(palette=palette, dither=Image.Dither.NONE))
            milliseconds.append(duration)
    milliseconds[-1] = LAST_MS
    yield
    caption = _caption(steps, seed, greedy=temperature == 0, ended=ended)
    return Picture(_gif(frames, milliseconds), _alt(steps, seed), caption, "writing.gif")


def _with_rest(probabilities: Array) -> Array:
    """Append to each row the probability of all other tokens."""
    rest = np.clip(1 - probabilities.sum(axis=1, dtype=np.float64), 0, 1)
    whole: Array = np.column_stack([probabilities, rest])
    return whole


def _gif(frames: Sequence[Image.Image], milliseconds: Sequence[int]) -> bytes:
    """Return an animation that repeats; each frame stores only what changes."""
    buffer = io.BytesIO()
    first, *rest = frames
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0, optimize=False)
    return buffer.getvalue()


class Scene:
    """The figure of all frames. What stays is drawn once; each frame draws the rest on top of it."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._figure = canvas.clear_figure("Watch GPT-2 write", " ", DPI)
        self._agg = cast("FigureCanvasAgg", self._figure.canvas)
        self._subtitle = self._figure.texts[1]
        self._subtitle.set_visible(False)
        rows = steps.before.shape[1]
        height = ROW * rows
        self._bars = self._table(BARS, height)
        self._draws = self._table(DRAWS, height)
        self._cells = canvas.bare_axes(self._figure, (0, canvas.HEIGHT - TOP - height, canvas.WIDTH, height))
        self._most = max(float(steps.before.max()), float(steps.after.max()))
        self._headings()
        self._layout = token_layout.lay_out(self._figure, [*steps.prompt, *steps.chosen], ROOM, scales=SCALES)
        self._text = token_layout.axes_for(self._figure, self._layout, TEXT, ROOM)
        self._rows = round((TEXT[1] + self._layout.inches() + 0.12) * DPI)
        self._agg.draw()  # type: ignore[no-untyped-call]
        self._subtitle.set_visible(True)
        middle = self._figure.bbox.height - (TEXT[1] - 0.05) * DPI
        self._lower = Bbox.from_bounds(0, 0, self._figure.bbox.width, middle)
        self._table_still = self._agg.copy_from_bbox(self._figure.bbox)  # type: ignore[no-untyped-call]
        self._written = 0  # blocks of the text that are drawn
        self._write_until(len(steps.prompt))

    def show_candidates(self, step: int) -> Image.Image:
        """Draw the candidates of one token, below the text so far."""
        self._agg.restore_region(self._table_still)  # type: ignore[no-untyped-call]
        self._agg.restore_region(self._text_still)  # type: ignore[no-untyped-call]
        self._subtitle.set_text(f"token {step + 1} of {len(self._steps.chosen)}  ·  {self._steps.settings}")
        self._figure.draw_artist(self._subtitle)
        before, after = self._steps.before[step], self._steps.after[step]
        self._add(self._bars, _bars(before / self._most, -0.37, 0.32, **HATCHED))
        self._add(self._bars, _bars(after / self._most, 0.01, 0.38, facecolor=AFTER))
        for row in range(len(before)):
            self._write_row(step, row, canvas.MUTED if row == len(before) - 1 else canvas.INK)
        return self._image()

    def show_draw(self, step: int) -> Image.Image:
        """Draw the quotients beside the candidates of a token, and the token chosen."""
        draws, winner = self._steps.draws[step] * 0.96, self._steps.winner(step)
        own = np.arange(len(draws)) == winner
        self._add(self._draws, _bars(np.where(own, 0, draws), -0.15, 0.3, facecolor=BEFORE))
        self._add(self._draws, _bars(np.where(own, draws, 0), -0.15, 0.3, facecolor=CHOSEN))
        self._write_row(step, winner, CHOSEN)
        corner, width = (LABELS[0] - 0.08, ROW * winner + 0.01), sum(DRAWS) - LABELS[0] + 0.14
        frame = Rectangle(corner, width, ROW - 0.02, facecolor="none", edgecolor=CHOSEN, linewidth=1.5)
        self._add(self._cells, frame)
        newest = self._write_until(len(self._steps.prompt) + step + 1)
        if newest:
            width = 1.5 * self._layout.scale
            self._add(self._text, self._box(newest, facecolor="none", edgecolor=CHOSEN, linewidth=width))
        return self._image()

    def _image(self) -> Image.Image:
        pixels = np.asarray(self._agg.buffer_rgba())  # type: ignore[no-untyped-call]
        return Image.fromarray(pixels[: self._rows]).convert("RGB")

    def _table(self, column: tuple[float, float], height: float) -> Axes:
        left, width = column
        axes = canvas.clear_axes(self._figure, (left, canvas.HEIGHT - TOP - height, width, height), "", "")
        axes.set_xlim(0, 1)
        axes.set_ylim(self._steps.before.shape[1] - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def _headings(self) -> None:
        named = [Patch(label="the model's own", **HATCHED), Patch(facecolor=AFTER, label="after the settings")]
        canvas.legend_above(self._bars, named, left=-0.02, pad=0.2)
        canvas.draw_text(self._cells, DRAWS[0], -0.14, "the draw", color=CHOSEN)

    def _write_row(self, step: int, row: int, colour: str) -> None:
        """Write a candidate and its probabilities beside its bars."""
        before, after = float(self._steps.before[step, row]), float(self._steps.after[step, row])
        pieces, y = self._steps.candidates[step], ROW * (row + 0.5)
        label = token_label(pieces[row]) if row < len(pieces) else "all others"
        shown = canvas.truncate(self._figure, label, LABELS[1])
        self._add(self._cells, canvas.draw_text(self._cells, sum(LABELS), y, shown, ha="right", color=colour))
        numbers = f"{percent(before)} → {'cut' if after == 0 < before else percent(after)}"
        self._add(self._cells, canvas.draw_text(self._cells, VALUES, y, numbers, color=colour))

    def _write_until(self, token: int) -> token_layout.Block | None:
        """Draw the text up to a token for good: the prompt plain, new tokens on a ground; return the last block."""
        newest = None
        for block in self._layout.blocks[self._written :]:
            if block.unit.tokens.start >= token:
                break
            self._written, newest = self._written + 1, block
            if block.unit.tokens.stop > len(self._steps.prompt):
                self._add(self._text, self._box(block, facecolor=WRITTEN))
            x, y = block.left + block.width / 2, block.line * token_layout.LINE + token_layout.BLOCK / 2
            size = canvas.TEXT_POINTS * self._layout.scale
            look = {"ha": "center", "va": "center_baseline", "size": size}
            self._add(self._text, canvas.draw_text(self._text, x, y, block.unit.label, **look))
        self._text_still = self._agg.copy_from_bbox(self._lower)  # type: ignore[no-untyped-call]
        return newest

    def _box(self, block: token_layout.Block, **look: Any) -> Rectangle:
        corner = (block.left, block.line * token_layout.LINE)
        return Rectangle(corner, block.width, token_layout.BLOCK, **look)

    def _add(self, axes: Axes, artist: Artist) -> None:
        """Draw one artist over what is there, and forget it."""
        if artist.axes is None:
            axes.add_artist(artist)
        axes.draw_artist(artist)
        artist.remove()


def _bars(values: Array, offset: float, height: float, **look: Any) -> PolyCollection:
    """Return horizontal bars from 0, so far below the middle of their rows and so high."""
    corners = [
        [(0, row + offset), (value, row + offset), (value, row + offset + height), (0, row + offset + height)]
        for row, value in enumerate(values)
    ]
    return PolyCollection(corners, **look)


def _alt(steps: Steps, seed: int) -> Text:
    text = b"".join(steps.chosen).decode(errors="replace")
    return say(
        "Animation: GPT-2 writes {tokens} tokens with seed {seed}, each with its candidates, their probabilities and"
        " the draw. The text: {text}",
        tokens=len(steps.chosen),
        seed=seed,
        text=shorten(" ".join(text.split()), ALT_CHARACTERS),
    )


def _caption(steps: Steps, seed: int, *, greedy: bool, ended: bool) -> tuple[Text, ...]:
    draw = (
        say("At temperature 0 the likeliest token is always taken.")
        if greedy
        else say("The draw: each probability divided by a random number of seed {seed}. The largest wins.", seed=seed)
    )
    more = [] if ended else [say("Showing the first {count} new tokens.", count=len(steps.chosen))]
    return (
        say("For each token the likeliest candidates: the model's own probability, and the one after the settings."),
        draw,
        joined(say("· is a space, ⏎ a newline."), *more, *direction_note([*steps.prompt, *steps.chosen])),
    )
