"""Look inside: the menu below samples that leads to the pictures of one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import discord

from bot.errors import InvalidInputError
from bot.text import say
from bot.ui.limits import CHOICES
from bot.ui.moves import menu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.text import Text, Translate
    from bot.ui.buttons import Action

VIEWS: Final[Mapping[str, Text]] = {
    "attention": say("Attention of all heads"),
    "surprise": say("Surprise of each token"),
    "lens": say("What each layer would say next"),
    "tokens": say("Tokens"),
    "next": say("Next token"),
}
"""The pictures of a text from which the others can be reached, by name."""

INSIGHTS: Final = "insights"
CODE: Final = "code"

_OFFERED: Final = ("attention", "surprise", "lens", "tokens")


def look_inside(
    action: Action, samples: int, translate: Translate, more: Mapping[str, Text]
) -> discord.ui.ActionRow[Any]:
    """Return the menu, whose values are "insights", "code", or the number of a sample and a view: "3:lens".

    Args:
        action: The action of the menu.
        samples: The number of samples. With more than there is room for in all views, each has one option.
        translate: Translates into the reader's language.
        more: Options for the whole message, by value.
    """
    offered = _OFFERED if samples * len(_OFFERED) + len(more) <= CHOICES else _OFFERED[:1]
    options = {
        f"{sample}:{view}": _label(sample, view, samples) for sample in range(1, samples + 1) for view in offered
    }
    if len(offered) == 1:
        options = {value: say("Sample {sample}", sample=value.partition(":")[0]) for value in options}
    shown = [
        discord.SelectOption(label=label.in_language(translate), value=value)
        for value, label in (options | dict(more)).items()
    ]
    return menu(action, say("Look inside").in_language(translate), shown)


def parse_choice(value: str) -> tuple[int, str]:
    """Return the sample and the view that a value names.

    Raises:
        InvalidInputError: This version has no such view.
    """
    sample, _, view = value.partition(":")
    if not sample.isdecimal() or view not in VIEWS:
        raise InvalidInputError(say("This menu is from another version of me. Use /continue again."))
    return int(sample), view


def _label(sample: int, view: str, samples: int) -> Text:
    return VIEWS[view] if samples == 1 else say("Sample {sample} · {view}", sample=sample, view=VIEWS[view])
