"""/weights: pictures of the model's parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits, programs
from bot.errors import InvalidInputError
from bot.figures import Style  # noqa: TC001 # discord.py reads the annotations at run time
from bot.gpt2.model_info import POSITIONAL_EMBEDDING, parse_indices, parse_slice
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui import limits
from bot.ui.buttons import Action
from bot.ui.code import CodeLayout, check_model, model_checksum
from bot.ui.first_steps import TryPositional
from bot.ui.moves import Controls, Option
from bot.ui.parameters import ParameterList, parameter_notes, printout
from bot.ui.picture import PictureLayout
from bot.ui.readback import was_asked_by
from cogs._models import OPTION, leave_out, model_line, with_model
from cogs._windows import moved, neighbour, short_name, widest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.engine import Engine
    from bot.gpt2.model_info import ModelInfo, ParameterSlice

MAX_LINES = 8  # the number of colours in Okabe and Ito's palette
DEFAULT_POSITIONS = 150
DEFAULT_DIMS = "0,1,2"

_DIRECTIONS = (
    (say("Up"), "rows", -1, "⬆️"),
    (say("Down"), "rows", 1, "⬇️"),
    (say("Left"), "columns", -1, "⬅️"),
    (say("Right"), "columns", 1, "➡️"),
)

_Slice = app_commands.Range[str, 1, 30]
_PositionalView = Literal["heatmap", "lines", "similarity", "helix"]
_AttentionView = Literal["slice", "heads"]

_STYLE = "Ours, made for reading, or the tutorial's own gray picture (clear)"
_ROWS = "Rows to show: 0:300, 300 for the first 300, or 700: for all from 700 on (0:300)"
_COLUMNS = "Columns to show, written like rows (0:300)"


@dataclass(frozen=True, slots=True)
class WeightPicture(Action):
    """A picture that a command shows of a parameter; the button below it shows its program.

    Empty fields stand for defaults.
    """

    model: int = 0  # the model's checksum, once one was chosen or the picture is resolved

    def add_controls(self, controls: Controls, part: ParameterSlice, model: ModelInfo) -> None:
        """Add the menus and buttons that lead to other pictures."""
        raise NotImplementedError

    async def resolve(self, engine: Engine, model: ModelInfo) -> tuple[Exhibit[ParameterSlice], Self]:
        """Return the exhibit, and this picture with its defaults filled in and its slices in canonical form.

        Raises:
            InvalidInputError: The model has no such parameter, layer or slice.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Positional(WeightPicture):
    """The positional embeddings."""

    NAME: ClassVar[str] = "positional"

    view: str = "heatmap"
    dims: str = ""
    positions: str = ""
    style: str = "clear"

    async def resolve(self, engine: Engine, model: ModelInfo) -> tuple[Exhibit[ParameterSlice], Self]:
        """See `WeightPicture.resolve`."""
        style, lines = cast("Style", self.style), self.view == "lines"
        chosen = self.dims or DEFAULT_DIMS
        dims = parse_indices(chosen, model.width, what=say("dims"), limit=MAX_LINES) if lines else ()
        default = str(min(DEFAULT_POSITIONS, model.context)) if lines else ":"
        positions = parse_slice(self.positions or default, model.context, what=say("positions"))
        part = await engine.select(POSITIONAL_EMBEDDING, _format_slice(positions), ":")
        match self.view:
            case "lines":
                exhibit = exhibits.positional_lines(part, dims, style, model)
            case "similarity":
                exhibit = exhibits.positional_similarity(part, model)
            case "helix":
                exhibit = exhibits.positional_helix(part, model)
            case _:
                exhibit = exhibits.positional_heatmap(part, style, model)
        return exhibit, replace(
            self, model=model_checksum(model), dims=",".join(map(str, dims)), positions=_format_slice(positions)
        )

    def add_controls(self, controls: Controls, part: ParameterSlice, model: ModelInfo) -> None:  # noqa: ARG002
        """See `WeightPicture.add_controls`."""
        views = {
            "heatmap": say("The matrix"),
            "lines": say("Dimensions as lines"),
            "similarity": say("How alike positions are"),
            "helix": say("The curve of the positions"),
        }
        # Each view has positions of its own.
        plain = Positional(self.model, style=self.style)
        controls.menu(
            say("Choose a view"),
            [Option(title, replace(plain, view=view), view == self.view) for view, title in views.items()],
        )
        if self.view in {"heatmap", "lines"}:
            _add_style(controls, self)


@dataclass(frozen=True, slots=True)
class Attention(WeightPicture):
    """The matrix that makes a layer's queries, keys and values."""

    NAME: ClassVar[str] = "cattn"

    view: str = "slice"
    layer: int = 2
    rows: str = ""
    columns: str = ""
    style: str = "clear"

    async def resolve(self, engine: Engine, model: ModelInfo) -> tuple[Exhibit[ParameterSlice], Self]:
        """See `WeightPicture.resolve`."""
        name = model.attention_parameter(self.layer)
        if self.view == "heads":
            if self.rows or self.columns:
                raise InvalidInputError(say("The “heads” view shows the whole matrix: leave out rows and columns."))
            part = await engine.select(name, ":", ":")
            return exhibits.attention_heads(part, self.layer, model), replace(self, model=model_checksum(model))
        part = await engine.select(name, self.rows or None, self.columns or None)
        exhibit = exhibits.attention_slice(part, self.layer, cast("Style", self.style), model)
        return exhibit, replace(
            self, model=model_checksum(model), rows=_format_slice(part.rows), columns=_format_slice(part.columns)
        )

    def add_controls(self, controls: Controls, part: ParameterSlice, model: ModelInfo) -> None:  # noqa: ARG002
        """See `WeightPicture.add_controls`."""
        controls.numbers(
            say("Open a layer"),
            model.layers,
            self.layer,
            lambda layer: say("Layer {layer}", layer=layer),
            lambda layer: replace(self, layer=layer),
        )
        if self.view == "heads":
            controls.button(say("A slice"), replace(self, view="slice"), "🔍")
        else:
            controls.button(say("All heads"), replace(self, view="heads", rows="", columns=""), "🔲")
            _add_style(controls, self)


@dataclass(frozen=True, slots=True)
class Matrix(WeightPicture):
    """Any parameter, or the whole of it with a window to come back to."""

    NAME: ClassVar[str] = "matrix"
    VERSION: ClassVar[int] = 2
    EARLIER: ClassVar[Mapping[str, int]] = {"1": 5}

    name: str = ""
    rows: str = ""
    columns: str = ""
    style: str = "clear"
    whole: bool = False

    async def resolve(self, engine: Engine, model: ModelInfo) -> tuple[Exhibit[ParameterSlice], Self]:
        """See `WeightPicture.resolve`."""
        window = await engine.select(self.name, self.rows or None, self.columns or None)
        part = widest(window) if self.whole else window
        exhibit = exhibits.parameter(part, cast("Style", self.style), model)
        return exhibit, replace(
            self,
            model=model_checksum(model),
            name=short_name(part.info.name),
            rows=_format_slice(window.rows),
            columns=_format_slice(window.columns),
        )

    def add_controls(self, controls: Controls, part: ParameterSlice, model: ModelInfo) -> None:
        """See `WeightPicture.add_controls`."""
        self._add_window(controls, part)
        name = part.info.name
        earlier, later = (neighbour(name, step, model.layers) for step in (-1, 1))
        if earlier or later:
            controls.button(say("Layer before"), replace(self, name=earlier) if earlier else None, "⏮️")
            controls.button(say("Layer after"), replace(self, name=later) if later else None, "⏭️")
        _add_style(controls, self)

    def _add_window(self, controls: Controls, part: ParameterSlice) -> None:
        """Add the buttons that move the window and zoom, where there is more than the window."""
        if self.whole:
            controls.button(say("Zoom in"), replace(self, whole=False), "🔍")
            return
        if part.shape == part.info.shape:
            return
        for label, axis, step, emoji in _DIRECTIONS[-2:] if part.flat else _DIRECTIONS:
            of_rows = axis == "rows" or part.flat  # a vector runs from left to right
            window = moved(part.rows if of_rows else part.columns, step, part.info.shape[0 if of_rows else 1])
            controls.button(label, self._with(window, of_rows=of_rows) if window else None, emoji)
        controls.button(say("Zoom out"), replace(self, whole=True), "🗺️")

    def _with(self, window: range, *, of_rows: bool) -> Matrix:
        text = _format_slice(window)
        return replace(self, rows=text) if of_rows else replace(self, columns=text)


@dataclass(frozen=True, slots=True)
class ParameterListing(Action):
    """The list of parameters whose names contain `part`."""

    NAME: ClassVar[str] = "listed"

    model: int
    part: str


class Weights(commands.GroupCog, group_name="weights", group_description="Look at what GPT-2 has learned"):
    """The commands that show parameters."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        leave_out(self, client)
        for kind in (Positional, Attention, Matrix):
            client.actions.on(kind, self._show_code)
            client.moves.on(kind, self._move)
        client.actions.on(TryPositional, self._try)
        client.actions.on(ParameterListing, self._show_list_code)

    @app_commands.command()
    @app_commands.describe(
        view="The matrix, some dimensions as lines, how alike positions are, or their curve (heatmap)",
        dims="Dimensions to draw as lines (0,1,2)",
        positions="Positions to show: 150 for the first 150, or a slice (lines: 150, other views: all)",
        style="For heatmap and lines: ours, made for reading, or the tutorial's own gray picture (clear)",
    )
    @with_model
    async def positional(
        self,
        interaction: discord.Interaction,
        view: _PositionalView = "heatmap",
        dims: app_commands.Range[str, 1, 100] = DEFAULT_DIMS,
        positions: _Slice | None = None,
        style: Style = "clear",
        model: str | None = None,
    ) -> None:
        """The positional embedding matrix wpe: how GPT-2 knows where a token stands."""
        asked = Positional(self.client.models.checksum(model), view, dims, positions or "", style)
        await self._show(interaction, asked)

    async def _try(self, interaction: discord.Interaction, _: TryPositional) -> None:
        """Answer the button that shows the positional embeddings."""
        await self._show(interaction, Positional())

    @app_commands.command()
    @app_commands.describe(
        layer="Which layer, counted from 1 (2)",
        view="A slice as in the tutorial, or the whole matrix with all heads and how loud they are (slice)",
        rows=_ROWS,
        columns=_COLUMNS,
        style=_STYLE,
    )
    @with_model
    async def attention(
        self,
        interaction: discord.Interaction,
        layer: app_commands.Range[int, 1, 100] = 2,
        view: _AttentionView = "slice",
        rows: _Slice | None = None,
        columns: _Slice | None = None,
        style: Style = "clear",
        model: str | None = None,
    ) -> None:
        """c_attn, the matrix that makes a layer's queries, keys and values."""
        chosen = self.client.models.checksum(model)
        asked = Attention(chosen, view=view, layer=layer, rows=rows or "", columns=columns or "", style=style)
        await self._show(interaction, asked)

    @app_commands.command()
    @app_commands.describe(
        name="The parameter's name in the state dict; start typing to choose",
        rows=_ROWS,
        columns=_COLUMNS,
        style=_STYLE,
    )
    @with_model
    async def matrix(
        self,
        interaction: discord.Interaction,
        name: app_commands.Range[str, 1, limits.CHOICE_CHARACTERS],
        rows: _Slice | None = None,
        columns: _Slice | None = None,
        style: Style = "clear",
        model: str | None = None,
    ) -> None:
        """Any parameter of the model as a picture."""
        chosen = self.client.models.checksum(model)
        await self._show(interaction, Matrix(chosen, name, rows or "", columns or "", style))

    @matrix.autocomplete("name")
    async def _complete_name(self, interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        try:
            engine = self.client.models.named(getattr(interaction.namespace, OPTION, None))
        except InvalidInputError:  # half of a model's name
            return []
        names = await engine.complete_name(current, limits.CHOICES)
        return [app_commands.Choice(name=name, value=name) for name in names if len(name) <= limits.CHOICE_CHARACTERS]

    @app_commands.command(name="list")
    @app_commands.describe(filter="Show only names that contain this, such as attn or h.0")
    @with_model
    async def list_(
        self,
        interaction: discord.Interaction,
        filter: app_commands.Range[str, 1, limits.CHOICE_CHARACTERS] | None = None,  # noqa: A002 # the option's name
        model: str | None = None,
    ) -> None:
        """Every parameter's name and shape, as the tutorial prints them."""
        reply, engine = Reply.of(interaction), self.client.models.named(model)
        infos = await reply.checked(engine.parameters(filter or ""))
        info = await engine.model()
        code = ParameterListing(model_checksum(info), (filter or "").strip().lower())
        await reply.give(ParameterList(infos, info, reply.translate, code), [printout(infos)])

    async def _show(self, interaction: discord.Interaction, asked: WeightPicture) -> None:
        """Answer with a picture."""
        exhibit, shown = await Reply.of(interaction).checked(self._resolve(asked))
        await self._post(interaction, exhibit, shown)

    async def _move(self, interaction: discord.Interaction, asked: WeightPicture) -> None:
        """Answer a button or menu below a picture, as `move_picture` does."""
        mine = was_asked_by(interaction.message, interaction.user)
        with self.client.presses.once(interaction, "move"):
            exhibit, shown = await Reply.of(interaction).checked(self._resolve(asked), private=not mine, in_place=mine)
            await self._post(interaction, exhibit, shown)

    async def _post(
        self, interaction: discord.Interaction, exhibit: Exhibit[ParameterSlice], shown: WeightPicture | None = None
    ) -> None:
        reply, engine = Reply.of(interaction), self.client.models.of(shown.model if shown else 0)
        picture, model = await exhibit.picture(engine, self.client.renderer), await engine.model()
        controls = Controls(reply.translate)
        if shown:
            shown.add_controls(controls, exhibit.source, model)
        notes = [*model_line(self.client, model), *parameter_notes(exhibit.source.info)]
        layout = PictureLayout(picture, notes, reply.translate, shown, controls=controls)
        await reply.give(layout, layout.files)

    async def _show_code(self, interaction: discord.Interaction, asked: WeightPicture) -> None:
        """Answer the button below a picture with its program."""
        reply = Reply.of(interaction)
        exhibit, _ = await reply.checked(self._resolve(asked), private=True)
        layout = CodeLayout(exhibit.program, reply.translate)
        await reply.give(layout, layout.files)

    async def _resolve(self, asked: WeightPicture) -> tuple[Exhibit[ParameterSlice], WeightPicture]:
        engine = self.client.models.of(asked.model)
        model = await engine.model()
        if asked.model:
            check_model(asked.model, model)
        return await asked.resolve(engine, model)

    async def _show_list_code(self, interaction: discord.Interaction, listing: ParameterListing) -> None:
        reply = Reply.of(interaction)
        model = await reply.checked(self.client.models.of(listing.model).model(), private=True)
        check_model(listing.model, model)
        layout = CodeLayout(programs.parameters(listing.part, model), reply.translate)
        await reply.give(layout, layout.files)


def _add_style(controls: Controls, shown: Positional | Attention | Matrix) -> None:
    """Add the button that leads to the same picture in the other style."""
    if shown.style == "clear":
        controls.button(say("The tutorial's style"), replace(shown, style="article"), "🎨")
    else:
        controls.button(say("Clear style"), replace(shown, style="clear"), "🎨")


def _format_slice(indices: range) -> str:
    """Write a slice as a user would; an empty one, of the columns of a vector, as an empty text."""
    return f"{indices.start}:{indices.stop}" if indices else ""
