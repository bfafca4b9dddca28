"""/lens, /ablate and /compare: a prompt on its way through the layers, without some heads, and beside another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits
from bot.errors import InvalidInputError
from bot.gpt2 import requests
from bot.gpt2.model_info import heads_text, parse_heads
from bot.gpt2.questions import ComparisonQuestion
from bot.gpt2.requests import SamplingParams
from bot.gpt2.validation import MAX_PROMPT_CHARACTERS
from bot.text import say
from cogs._model_comparison import ModelComparison, compare_models, show_code
from cogs._models import OPTION, complete_model, leave_out, with_model
from cogs._pictures import TextPicture, register, show_picture
from cogs._text_pictures import Ablation, Lens

if TYPE_CHECKING:
    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.engine import Engine
    from bot.gpt2.model_info import ModelInfo

_Prompt = app_commands.Range[str, 1, MAX_PROMPT_CHARACTERS]
_Count = app_commands.Range[int, 1, 100]
_Seed = app_commands.Range[int, 0, requests.MAX_SEED]
_Samples = app_commands.Range[int, 1, 5]
_Length = app_commands.Range[int, requests.MIN_LENGTH, 100]
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
        self._require_second()
        leave_out(self, client, (OPTION, "other", "seed", "samples", "length"))
        register(client, Lens, Comparison)
        client.actions.on(ModelComparison, partial(show_code, client))

    def _require_second(self) -> None:
        """Make the second prompt of /compare a must where there is no second model."""
        if not self.client.models.several:
            options = self.compare._params  # noqa: SLF001
            options["second"] = replace(options["second"], required=True)

    @app_commands.command()
    @app_commands.describe(prompt="The text that GPT-2 reads; its last ten tokens are looked at")
    @with_model
    async def lens(self, interaction: discord.Interaction, prompt: _Prompt, model: str | None = None) -> None:
        """What each layer would say next if it were the last (the logit lens)."""
        await show_picture(self.client, interaction, Lens(self.client.models.checksum(model)), prompt)

    @app_commands.command()
    @app_commands.describe(
        prompt="The text that GPT-2 reads",
        layer="Which layer, counted from 1",
        head="Which head of it, counted from 1",
        heads="Or several heads at once, as layer.head: 7.1, 8.6",
    )
    @with_model
    async def ablate(
        self,
        interaction: discord.Interaction,
        prompt: _Prompt,
        layer: _Count | None = None,
        head: _Count | None = None,
        heads: _Heads | None = None,
        model: str | None = None,
    ) -> None:
        """What changes without some heads: what may come next, and what surprises."""
        asked = Ablation(self.client.models.checksum(model), _named(layer, head, heads))
        await show_picture(self.client, interaction, asked, prompt)

    @app_commands.command()
    @app_commands.describe(
        first="One prompt",
        second="Another; with as many tokens, attention is compared, too",
        other="Instead of a second prompt: another model, for the same prompt",
        seed="Two models: the seed of the samples of both; drawn and shown if left out",
        samples="Two models: how many samples each draws (2)",
        length="Two models: how many new tokens each sample may have (40)",
    )
    @app_commands.autocomplete(other=complete_model)
    @with_model
    async def compare(
        self,
        interaction: discord.Interaction,
        first: _Prompt,
        second: _Prompt | None = None,
        model: str | None = None,
        other: str | None = None,
        seed: _Seed | None = None,
        samples: _Samples = 2,
        length: _Length = 40,
    ) -> None:
        """Two prompts side by side: what may come next, surprise, attention."""
        models = self.client.models
        if second is None:
            engines = self._pair(model, other)
            await compare_models(self.client, interaction, first, engines, SamplingParams(seed, samples, length))
        elif other is not None:
            raise InvalidInputError(say("Compare two prompts or two models: leave out second or other."))
        else:
            await show_picture(self.client, interaction, Comparison(models.checksum(model)), first, second)

    def _pair(self, model: str | None, other: str | None) -> tuple[Engine, Engine]:
        """Return the engines of two models: by default the default one, and the first that is not the same.

        Raises:
            InvalidInputError: There is no such model, or both are the same.
        """
        models = self.client.models
        first = models.find(model) if model is not None else models.names[0]
        second = models.find(other) if other is not None else next(name for name in models.names if name != first)
        if first == second:
            raise InvalidInputError(say("Choose two different models to compare."))
        return models.engines[first], models.engines[second]


def _named(layer: int | None, head: int | None, heads: str | None) -> str:
    """Return the heads that the options name together.

    Raises:
        InvalidInputError: They name none, or half of one.
    """
    if (layer is None) != (head is None) or not (layer or heads):
        raise InvalidInputError(say("Name a head by layer and head, or several with heads, as in 7.1, 8.6."))
    single = [(layer, head)] if layer and head else []
    return heads_text(dict.fromkeys([*single, *(parse_heads(heads) if heads else [])]))
