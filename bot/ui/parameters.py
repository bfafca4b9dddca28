"""The list of the model's parameters, and notes for their readers."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

import discord

from bot.text import Text, say
from bot.ui.code import code_button
from bot.ui.continuation import ACCENT
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.text import Translate
    from bot.ui.buttons import Action

PRINTOUT_NAME: Final = "state_dict.txt"
_TABLE_CHARACTERS: Final = 3000  # leaves room for the sentences around it
_LAYER: Final = re.compile(r"(?<=\.h\.)\d+(?=\.)")


class ParameterList(discord.ui.LayoutView):
    """A table of names, shapes and dtypes, one row for all layers, with the whole printout attached."""

    def __init__(self, infos: Sequence[ParameterInfo], model: ModelInfo, translate: Translate, code: Action) -> None:
        super().__init__(timeout=None)
        title = say("**{model}**: the state dict", model=literal(model.name))
        container: discord.ui.Container[ParameterList] = discord.ui.Container(accent_colour=ACCENT)
        container.add_item(discord.ui.TextDisplay(title.in_language(translate)))
        container.add_item(discord.ui.TextDisplay(f"```\n{_table(infos, translate)}\n```"))
        container.add_item(discord.ui.TextDisplay(_totals(infos, model).in_language(translate)))
        container.add_item(discord.ui.File(f"attachment://{PRINTOUT_NAME}"))
        self.add_item(container)
        self.add_item(discord.ui.ActionRow(code_button(code, translate)))


def printout(infos: Sequence[ParameterInfo]) -> discord.File:
    """Return the output of the tutorial's ``for k, v in sd.items(): print(k, v.shape)`` as a file."""
    lines = "".join(f"{info.name} torch.Size({list(info.shape)})\n" for info in infos)
    return discord.File(io.BytesIO(lines.encode()), filename=PRINTOUT_NAME)


def parameter_notes(info: ParameterInfo) -> list[Text]:
    """Return notes without which a reader would misread a parameter's picture."""
    notes = []
    if not info.stored:
        notes.append(say("⚠️ The model's file does not contain this parameter: these values are random, not learned."))
    if info.tied_to:
        notes.append(say("This is the same matrix as {twin}: GPT-2 uses it at both ends.", twin=info.tied_to))
    return notes


def model_notes(model: ModelInfo) -> list[Text]:
    """Return notes without which a reader would misread a picture of the model's work."""
    notes = []
    if model.missing:
        notes.append(
            say(
                "⚠️ {model}'s file holds only part of the model and the rest is random: this shows how GPT-2 works, not "
                "what it has learned.",
                model=model.name,
            )
        )
    if model.precision != "float32":
        notes.append(say("Computed in {precision}, so slightly different from float32.", precision=model.precision))
    return notes


def _table(infos: Sequence[ParameterInfo], translate: Translate) -> str:
    """Return a table with one row for each kind of parameter; a star and a count stand for the layers.

    It is about 55 characters wide, which Discord shows without wrapping, except on phones.
    """
    kinds: dict[str, list[ParameterInfo]] = {}
    for info in infos:
        kinds.setdefault(_LAYER.sub("*", info.name), []).append(info)
    rows = [_row(kind if len(same) > 1 else same[0].name, same, translate) for kind, same in kinds.items()]
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"{name:<{width}} {rest}" for name, rest in rows)
    return table if len(table) <= _TABLE_CHARACTERS else table[:_TABLE_CHARACTERS].rpartition("\n")[0] + "\n…"


def _row(name: str, same: Sequence[ParameterInfo], translate: Translate) -> tuple[str, str]:
    times = f" ×{len(same)}" if len(same) > 1 else ""
    shape = "×".join(map(str, same[0].shape))
    dtype = same[0].dtype if all(info.stored for info in same) else say("random").in_language(translate)
    return name + times, f"{shape} {dtype}"


def _totals(infos: Sequence[ParameterInfo], model: ModelInfo) -> Text:
    own = {info.tied_to or info.name: info.size for info in infos}
    return say(
        "{count} entries, {size:,} values ({own:,} counting shared ones once); the whole model has {whole:,}. "
        "The attached file has every entry.",
        count=len(infos),
        size=sum(info.size for info in infos),
        own=sum(own.values()),
        whole=model.parameters,
    )
