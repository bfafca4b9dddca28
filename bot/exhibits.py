"""What there is to show: which values, how they are drawn, and the program that does the same without the bot.

Commands, the gallery and the bench show the same things; here they are put together once. Nothing is computed or drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bot import figures, programs
from bot.gpt2.requests import ParameterSlice

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bot.figures import Picture, Renderer, Style
    from bot.gpt2.engine import Engine
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import ModelInfo


SourceT = TypeVar("SourceT", bound="ParameterSlice | Question[Any]")


@dataclass(frozen=True, slots=True)
class Exhibit(Generic[SourceT]):
    """One picture that can be made.

    Attributes:
        source: What is drawn: values of a parameter, or the answer to a question about a text.
        draw: Makes the picture of them.
        program: The source text of a program that draws the same; empty where there is none.
        variant: Tells drawings of one source apart.
    """

    source: SourceT
    draw: Callable[[Any], Picture]
    program: str = ""
    variant: tuple[Hashable, ...] = ()

    async def picture(self, engine: Engine, renderer: Renderer, *, owner: Hashable = None) -> Picture:
        """The picture; one of weights, which never change, is kept, and then nothing is read or drawn.

        Raises:
            InvalidInputError: The text does not suit the question.
            UnavailableError: The engine could not answer it.
        """
        if not isinstance(self.source, ParameterSlice):
            answer = await engine.introspect(self.source, owner=owner)
            return await renderer.render(partial(self.draw, answer))
        part = self.source

        async def make() -> Picture:
            return await renderer.render(partial(self.draw, await engine.read(part)))

        return await renderer.kept(((await engine.model()).fingerprint, part, *self.variant), make)


def positional_heatmap(part: ParameterSlice, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """The positional embeddings as a heatmap."""
    draw = partial(_matrix, figures.positional_heatmap, part, style)
    return Exhibit(part, draw, programs.positional_heatmap(part, style, model), ("positional", style))


def positional_lines(
    part: ParameterSlice, dims: Sequence[int], style: Style, model: ModelInfo
) -> Exhibit[ParameterSlice]:
    """Some dimensions of the positional embeddings as lines over the positions."""
    program = programs.positional_lines(part, dims, model)
    return Exhibit(part, partial(_lines, part, tuple(dims), style), program, ("lines", *dims, style))


def attention_slice(part: ParameterSlice, layer: int, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """A slice of the matrix that makes a layer's queries, keys and values; layers count from 1."""
    program = programs.attention_slice(part, layer, style, model)
    return Exhibit(part, partial(_attention, part, model, layer, style), program, ("attention", style))


def parameter(part: ParameterSlice, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Any parameter."""
    program = programs.matrix(part, style, model)
    return Exhibit(part, partial(_parameter, part, style), program, ("parameter", style))


def _matrix(draw: Callable[..., Picture], part: ParameterSlice, style: Style, values: NDArray[np.float32]) -> Picture:
    return draw(
        values,
        name=part.info.name,
        rows=part.rows,
        columns=part.columns,
        shape=part.info.matrix_shape,
        dtype=part.info.dtype,
        style=style,
    )


def _lines(part: ParameterSlice, dims: tuple[int, ...], style: Style, values: NDArray[np.float32]) -> Picture:
    return figures.positional_lines(
        values[:, dims], name=part.info.name, dims=dims, positions=part.rows, dtype=part.info.dtype, style=style
    )


def _attention(
    part: ParameterSlice, model: ModelInfo, layer: int, style: Style, values: NDArray[np.float32]
) -> Picture:
    return figures.attention_slice(
        values,
        name=part.info.name,
        layer=layer,
        rows=part.rows,
        columns=part.columns,
        width=model.width,
        heads=model.heads,
        dtype=part.info.dtype,
        style=style,
    )


def _parameter(part: ParameterSlice, style: Style, values: NDArray[np.float32]) -> Picture:
    if part.flat:
        return figures.vector(
            values,
            name=part.info.name,
            positions=part.rows,
            length=part.info.size,
            dtype=part.info.dtype,
            style=style,
        )
    return _matrix(figures.matrix, part, style, values)
