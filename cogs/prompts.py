"""/lens, /ablate and /compare: a prompt on its way through the layers, without some heads, and beside another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits
from bot.errors import InvalidInputError
from bot.gpt2.model_info import heads_text, parse_heads
from bot.gpt2.questions import ComparisonQuestion
from bot.gpt2.validation import MAX_PROMPT_CHARACTERS
from bot.text import say
from cogs._pictures import TextPicture, register, show_picture
from cogs._text_pictures import Ablation, Lens

if TYPE_CHECKING:
    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.model_info import ModelInfo

_Prompt = app_commands.Range[str, 1, MAX_PROMPT_CHARACTERS]
_Count = app_commands.Range[int, 1, 100]
_Heads = app_commands.Range[str, 1, 100]


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
        register(client, Lens, Comparison)

    @app_commands.command()
    @app_commands.describe(prompt="The text that GPT-2 reads; its last ten tokens are looked at")
    async def lens(self, interaction: discord.Interaction, prompt: _Prompt) -> None:
        """What each layer would say next if it were the last (the logit lens)."""
        await show_picture(self.client, interaction, Lens(), prompt)

    @app_commands.command()
    @app_commands.describe(
        prompt="The text that GPT-2 reads",
        layer="Which layer, counted from 1",
        head="Which head of it, counted from 1",
        heads="Or several heads at once, as layer.head: 7.1, 8.6",
    )
    async def ablate(
        self,
        interaction: discord.Interaction,
        prompt: _Prompt,
        layer: _Count | None = None,
        head: _Count | None = None,
        heads: _Heads | None = None,
    ) -> None:
        """What changes without some heads: what may come next, and what surprises."""
        await show_picture(self.client, interaction, Ablation(heads=_named(layer, head, heads)), prompt)

    @app_commands.command()
    @app_commands.describe(first="One prompt", second="Another; with as many tokens, attention is compared, too")
    async def compare(self, interaction: discord.Interaction, first: _Prompt, second: _Prompt) -> None:
        """Two prompts side by side: what may come next, surprise, attention."""
        await show_picture(self.client, interaction, Comparison(), first, second)


def _named(layer: int | None, head: int | None, heads: str | None) -> str:
    """Return the heads that the options name together.

    Raises:
        InvalidInputError: They name none, or half of one.
    """
    if (layer is None) != (head is None) or not (layer or heads):
        raise InvalidInputError(say("Name a head by layer and head, or several with heads, as in 7.1, 8.6."))
    single = [(layer, head)] if layer and head else []
    return heads_text(dict.fromkeys([*single, *(parse_heads(heads) if heads else [])]))
