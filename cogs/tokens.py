"""/tokens: the tokens of a text, next-token probabilities, surprise, and induction heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits
from bot.gpt2 import requests, validation
from bot.gpt2.questions import MAX_INDUCTION_LENGTH, MIN_INDUCTION_LENGTH, InductionQuestion
from cogs._models import leave_out, with_model
from cogs._pictures import TextPicture, register, show_picture
from cogs._text_pictures import ChooseNext, DrawNext, Next, Split, Surprise, UndoNext

if TYPE_CHECKING:
    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.model_info import ModelInfo

_Text = app_commands.Range[str, 1, validation.MAX_PROMPT_CHARACTERS]
_Temperature = app_commands.Range[float, requests.MIN_TEMPERATURE, requests.MAX_TEMPERATURE]
_TopK = app_commands.Range[int, 0, requests.MAX_TOP_K]
_TopP = app_commands.Range[float, 0.0, 1.0]
_Length = app_commands.Range[int, MIN_INDUCTION_LENGTH, MAX_INDUCTION_LENGTH]
_Seed = app_commands.Range[int, 0, requests.MAX_SEED]


@dataclass(frozen=True, slots=True)
class Induction(TextPicture):
    """The induction scores of all heads."""

    NAME: ClassVar[str] = "induction"
    PROMPTS: ClassVar[int] = 0

    length: int = 25
    seed: int = 0

    def exhibit(self, model: ModelInfo, *_: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.induction(InductionQuestion(self.length, self.seed), model)


class Tokens(commands.GroupCog, group_name="tokens", group_description="See a text as GPT-2 sees it"):
    """The commands about tokens."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        leave_out(self, client)
        register(client, Split, Next, ChooseNext, DrawNext, UndoNext, Surprise, Induction)

    @app_commands.command()
    @app_commands.describe(text="Any text")
    @with_model
    async def split(self, interaction: discord.Interaction, text: _Text, model: str | None = None) -> None:
        """How a text falls into tokens, with their ids, and their bytes where one is half a character."""
        await show_picture(self.client, interaction, Split(self.client.models.checksum(model)), text)

    @app_commands.command(name="next")
    @app_commands.describe(
        prompt="The beginning of a text",
        temperature="Below 1 safer, above 1 wilder; 0 always takes the likeliest token (1)",
        top_k="Draw from the k likeliest tokens only; 0 is off (50)",
        top_p="Draw from the likeliest tokens that make up this share; 1 is off (1)",
    )
    @with_model
    async def next_(
        self,
        interaction: discord.Interaction,
        prompt: _Text,
        temperature: _Temperature = 1.0,
        top_k: _TopK = 50,
        top_p: _TopP = 1.0,
        model: str | None = None,
    ) -> None:
        """What GPT-2 would say next, before and after the settings of sampling."""
        chosen = self.client.models.checksum(model)
        asked = Next(chosen, temperature=float(temperature), top_k=top_k, top_p=float(top_p))
        await show_picture(self.client, interaction, asked, prompt)

    @app_commands.command()
    @app_commands.describe(text="Any text of at least two tokens")
    @with_model
    async def surprise(self, interaction: discord.Interaction, text: _Text, model: str | None = None) -> None:
        """How little GPT-2 expected each token of a text, in bits."""
        await show_picture(self.client, interaction, Surprise(self.client.models.checksum(model)), text)

    @app_commands.command()
    @app_commands.describe(
        length="How many random tokens to repeat (25)", seed="Which random tokens; the same seed, the same ones (0)"
    )
    @with_model
    async def induction(
        self, interaction: discord.Interaction, length: _Length = 25, seed: _Seed = 0, model: str | None = None
    ) -> None:
        """Which heads continue what they have seen before, on random tokens repeated."""
        asked = Induction(self.client.models.checksum(model), length, seed)
        await show_picture(self.client, interaction, asked)
