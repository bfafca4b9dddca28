"""First steps: the tutorial as three buttons, under /help and in the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import discord

from bot.gpt2.requests import TUTORIAL_PROMPT
from bot.text import say
from bot.ui.buttons import Action, button

if TYPE_CHECKING:
    from bot.text import Translate


@dataclass(frozen=True, slots=True)
class TryContinuation(Action):
    """Continue the tutorial's prompt with its five samples and its seed."""

    NAME: ClassVar[str] = "trycontinuation"


@dataclass(frozen=True, slots=True)
class TryPositional(Action):
    """Show the positional embeddings."""

    NAME: ClassVar[str] = "trypositional"


@dataclass(frozen=True, slots=True)
class TryAttention(Action):
    """Ask for words, to show the attention of all heads to them."""

    NAME: ClassVar[str] = "tryattention"


def first_steps(translate: Translate) -> discord.ui.ActionRow[Any]:
    """Return a row with one button for each step."""
    steps = (
        (TryContinuation(), say("Continue “{prompt}”", prompt=TUTORIAL_PROMPT), "✍️"),
        (TryPositional(), say("Positional embeddings"), "🌀"),
        (TryAttention(), say("Attention of your words"), "🔍"),
    )
    return discord.ui.ActionRow(
        *(
            button(action, label.in_language(translate), emoji=emoji, style=discord.ButtonStyle.primary)
            for action, label, emoji in steps
        )
    )
