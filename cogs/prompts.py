"""/lens and /compare: a prompt on its way through the layers, and two prompts side by side."""

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
from cogs._pictures import TextPicture, show_code, show_picture

if TYPE_CHECKING:
    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.model_info import ModelInfo

_Prompt = app_commands.Range[str, 1, MAX_PROMPT_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Lens(TextPicture):
    """The next-token predictions of every layer."""

    NAME: ClassVar[str] = "lens"

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.lens(LensQuestion(prompts[0]), model)


@dataclass(frozen=True, slots=True)
class Comparison(TextPicture):
    """Two prompts side by side."""

    NAME: ClassVar[str] = "compare"
    PROMPTS: ClassVar[int] = 2

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.compare(ComparisonQuestion(prompts[0], prompts[1]), model)


class Prompts(commands.Cog):
    """The commands about prompts inside the model."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        for kind in (Lens, Comparison):
            client.actions.on(kind, partial(show_code, client))

    @app_commands.command()
    @app_commands.describe(prompt="The text that GPT-2 reads; its last ten tokens are looked at")
    async def lens(self, interaction: discord.Interaction, prompt: _Prompt) -> None:
        """What each layer would say next if it were the last (the logit lens)."""
        await show_picture(self.client, interaction, Lens(), prompt)

    @app_commands.command()
    @app_commands.describe(first="One prompt", second="Another; with as many tokens, attention is compared, too")
    async def compare(self, interaction: discord.Interaction, first: _Prompt, second: _Prompt) -> None:
        """Two prompts side by side: what may come next, surprise, attention."""
        await show_picture(self.client, interaction, Comparison(), first, second)
