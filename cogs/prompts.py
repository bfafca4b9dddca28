"""/lens and /compare: what becomes of a prompt on its way through the layers, and of two side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits
from bot.gpt2.questions import ComparisonQuestion, LensQuestion
from bot.gpt2.validation import MAX_PROMPT_CHARACTERS
from cogs._pictures import Look, explain, show

if TYPE_CHECKING:
    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.model_info import ModelInfo

_Prompt = app_commands.Range[str, 1, MAX_PROMPT_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Layers(Look):
    """What each layer would say next."""

    NAME: ClassVar[str] = "lens"

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `Look.exhibit`."""
        return exhibits.lens(LensQuestion(prompts[0]), model)


@dataclass(frozen=True, slots=True)
class Pair(Look):
    """Two prompts side by side."""

    NAME: ClassVar[str] = "compare"
    PROMPTS: ClassVar[int] = 2

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `Look.exhibit`."""
        return exhibits.compare(ComparisonQuestion(prompts[0], prompts[1]), model)


class Prompts(commands.Cog):
    """The commands about what becomes of prompts."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        for kind in (Layers, Pair):
            client.actions.on(kind, partial(explain, client))

    @app_commands.command()
    @app_commands.describe(prompt="The text that GPT-2 reads; its last ten tokens are looked at")
    async def lens(self, interaction: discord.Interaction, prompt: _Prompt) -> None:
        """What each layer would say next if it were the last (the logit lens)."""
        await show(self.client, interaction, Layers(), prompt)

    @app_commands.command()
    @app_commands.describe(first="One prompt", second="Another; with as many tokens, attention is compared, too")
    async def compare(self, interaction: discord.Interaction, first: _Prompt, second: _Prompt) -> None:
        """Two prompts side by side: what may come next, surprise, attention."""
        await show(self.client, interaction, Pair(), first, second)
