"""The option `model` of the commands, which exists only where there are several models, and what it chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import discord
from discord import app_commands

from bot.text import say
from bot.ui import limits
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Collection

    from discord.ext import commands

    from bot.client import GPT2Client
    from bot.gpt2.model_info import ModelInfo
    from bot.text import Text

OPTION: Final = "model"

Callback = TypeVar("Callback", bound=Callable[..., Any])


def with_model(callback: Callback) -> Callback:
    """Describe the option `model` of a command, and complete what people type there."""
    described = app_commands.describe(model="Which of my models answers; the first in the list if left out")
    return described(app_commands.autocomplete(model=complete_model)(callback))


async def complete_model(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
    """Return the models whose names contain what was typed, the default one first."""
    client = cast("GPT2Client", interaction.client)
    names = [name for name in client.models.names if current.strip().casefold() in name.casefold()]
    return [app_commands.Choice(name=name, value=name) for name in names[: limits.CHOICES]]


def leave_out(cog: commands.Cog, client: GPT2Client, options: Collection[str] = (OPTION,)) -> None:
    """Remove options that make no sense with one model from a cog's commands, unless there are several.

    The commands of a cog's instance are copies of those of its class, so other clients keep theirs.
    """
    if client.models.several:
        return
    for command in cog.walk_app_commands():
        if isinstance(command, app_commands.Command):
            command._params = {name: each for name, each in command._params.items() if name not in options}  # noqa: SLF001


def model_line(client: GPT2Client, model: ModelInfo) -> list[Text]:
    """Return the line of a caption that names the model, where there are several."""
    return [say("Model: {model}", model=literal(model.name))] if client.models.several else []
