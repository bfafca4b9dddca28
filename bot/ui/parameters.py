"""The list of the model's parameters, and notes on single ones."""

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
    """Names, shapes and dtypes, the layers of a kind in one row; the printout with every row is attached."""

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
    """What the tutorial's ``for k, v in sd.items(): print(k, v.shape)`` prints, as a file."""
    lines = "".join(f"{info.name} torch.Size({list(info.shape)})\n" for info in infos)
    return discord.File(io.BytesIO(lines.encode()), filename=PRINTOUT_NAME)


def parameter_notes(info: ParameterInfo) -> list[Text]:
    """What a reader must know of a parameter to read its picture right."""
    notes = []
    if not info.stored:
        notes.append(say("⚠️ The model's file does not hold this parameter: these are random values, not learned ones."))
    if info.tied_to:
        notes.append(say("It is the same matrix as {twin}: GPT-2 uses it at both ends.", twin=info.tied_to))
    return notes


def model_notes(model: ModelInfo) -> list[Text]:
    """What a reader must know of the model to read a picture of its work right."""
    notes = []
    if model.missing:
        notes.append(
            say(
                "⚠️ {model}'s file holds a part of the model and the rest is random: this shows how GPT-2 works, not "
                "what it has learned.",
                model=model.name,
            )
        )
    if model.precision != "float32":
        notes.append(say("Computed in {precision}: a little off from float32's numbers.", precision=model.precision))
    return notes


def _table(infos: Sequence[ParameterInfo], translate: Translate) -> str:
    """One row a kind of parameter; a star and a number where a row stands for so many layers.

    About 55 characters wide, which Discord shows without cutting; on a phone the lines wrap.
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
        "{count} entries, {size:,} values ({own:,} with shared ones counted once); the whole model has {whole:,}. "
        "The attached file has every entry.",
        count=len(infos),
        size=sum(info.size for info in infos),
        own=sum(own.values()),
        whole=model.parameters,
    )
