"""/weights: pictures of what the model has learned, straight from its parameters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot import figures
from bot.figures import Style  # noqa: TC001 # discord.py reads the annotations at run time
from bot.gpt2.requests import POSITIONAL_EMBEDDING, parse_indices
from bot.text import say
from bot.ui import limits
from bot.ui.parameters import ParameterList, parameter_notes, printout
from bot.ui.picture import PictureLayout, picture_file

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np
    from numpy.typing import NDArray

    from bot.client import GPT2Client
    from bot.figures import Picture
    from bot.gpt2.requests import ModelInfo, ParameterSlice

MAX_LINES = 8  # as many as Okabe and Ito have colours
DEFAULT_POSITIONS = 150

_Slice = app_commands.Range[str, 1, 30]
_View = Literal["heatmap", "lines"]

_STYLE = "Ours, made for reading, or the tutorial's own gray picture (clear)"
_ROWS = "Rows to show: 0:300, 300 for the first 300, or 700: for all from 700 on (0:300)"
_COLUMNS = "Columns to show, written like rows (0:300)"


class Weights(commands.GroupCog, group_name="weights", group_description="Look at what GPT-2 has learned"):
    """The commands that show parameters."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client

    @app_commands.command()
    @app_commands.describe(
        view="The matrix as a picture, or some of its dimensions as lines (heatmap)",
        dims="Dimensions to draw as lines (0,1,2)",
        positions="Positions to show: 150 for the first 150, or a slice (lines: 150, heatmap: all)",
        style=_STYLE,
    )
    async def positional(
        self,
        interaction: discord.Interaction,
        view: _View = "heatmap",
        dims: app_commands.Range[str, 1, 100] = "0,1,2",
        positions: _Slice | None = None,
        style: Style = "clear",
    ) -> None:
        """The positional embedding matrix wpe: how GPT-2 knows where a token stands."""
        reply = self.client.reply_to(interaction)
        part, chosen = await reply.checked(self._select_positions(view, positions, dims))
        if view == "lines":
            await self._show(interaction, part, partial(_lines, part, chosen, style), ("lines", chosen, style))
        else:
            await self._show(
                interaction, part, partial(_matrix, figures.positional_heatmap, part, style), ("positional", style)
            )

    @app_commands.command()
    @app_commands.describe(layer="Which layer, counted from 1 (2)", rows=_ROWS, columns=_COLUMNS, style=_STYLE)
    async def attention(
        self,
        interaction: discord.Interaction,
        layer: app_commands.Range[int, 1, 100] = 2,
        rows: _Slice | None = None,
        columns: _Slice | None = None,
        style: Style = "clear",
    ) -> None:
        """A slice of c_attn, the matrix that makes a layer's queries, keys and values."""
        reply = self.client.reply_to(interaction)
        model, part = await reply.checked(self._select_attention(layer, rows, columns))
        await self._show(interaction, part, partial(_attention, part, model, layer, style), ("attention", style))

    @app_commands.command()
    @app_commands.describe(
        name="The parameter's name in the state dict; start typing to choose",
        rows=_ROWS,
        columns=_COLUMNS,
        style=_STYLE,
    )
    async def matrix(
        self,
        interaction: discord.Interaction,
        name: app_commands.Range[str, 1, limits.CHOICE_CHARACTERS],
        rows: _Slice | None = None,
        columns: _Slice | None = None,
        style: Style = "clear",
    ) -> None:
        """Any parameter of the model as a picture."""
        reply = self.client.reply_to(interaction)
        part = await reply.checked(self.client.engine.select(name, rows, columns))
        await self._show(interaction, part, partial(_parameter, part, style), ("parameter", style))

    @matrix.autocomplete("name")
    async def _complete_name(self, _: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        names = await self.client.engine.complete_name(current, limits.CHOICES)
        return [app_commands.Choice(name=name, value=name) for name in names if len(name) <= limits.CHOICE_CHARACTERS]

    @app_commands.command(name="list")
    @app_commands.describe(filter="Show only names that contain this, such as attn or h.0")
    async def list_(
        self,
        interaction: discord.Interaction,
        filter: app_commands.Range[str, 1, limits.CHOICE_CHARACTERS] | None = None,  # noqa: A002 # the option's name
    ) -> None:
        """Every parameter's name and shape, as the tutorial prints them."""
        reply = self.client.reply_to(interaction)
        infos = await reply.checked(self.client.engine.parameters(filter or ""))
        await reply.give(ParameterList(infos, await self.client.engine.model(), reply.translate), [printout(infos)])

    async def _select_positions(
        self, view: _View, positions: str | None, dims: str
    ) -> tuple[ParameterSlice, tuple[int, ...]]:
        """The rows to show, all dimensions of them, and which dimensions to draw as lines."""
        engine = self.client.engine
        model = await engine.model()
        if positions is None and view == "lines":
            positions = str(min(DEFAULT_POSITIONS, model.context))
        chosen = parse_indices(dims, model.width, what=say("dims"), limit=MAX_LINES) if view == "lines" else ()
        return await engine.select(POSITIONAL_EMBEDDING, positions or ":", ":"), chosen

    async def _select_attention(
        self, layer: int, rows: str | None, columns: str | None
    ) -> tuple[ModelInfo, ParameterSlice]:
        engine = self.client.engine
        model = await engine.model()
        return model, await engine.select(model.attention_parameter(layer), rows, columns)

    async def _show(
        self,
        interaction: discord.Interaction,
        part: ParameterSlice,
        draw: Callable[[NDArray[np.float32]], Picture],
        variant: tuple[Hashable, ...],
    ) -> None:
        """Have the values drawn and post the picture; `variant` tells drawings of the same slice apart.

        A picture that is kept is posted without a look into the model's file.
        """
        reply, engine, renderer = self.client.reply_to(interaction), self.client.engine, self.client.renderer

        async def make() -> Picture:
            return await renderer.render(partial(draw, await engine.read(part)))

        picture = await renderer.kept(((await engine.model()).fingerprint, part, *variant), make)
        layout = PictureLayout(picture, parameter_notes(part.info), reply.translate)
        await reply.give(layout, [picture_file(picture, reply.translate)])


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
