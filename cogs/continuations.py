"""/continue: several seeded samples of how a text goes on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import discord
from discord import app_commands
from discord.ext import commands

from bot.gpt2 import requests
from bot.gpt2.requests import ContinuationRequest
from bot.ui.continuation import ContinuationLayout, transcript
from bot.ui.forms import PromptForm

if TYPE_CHECKING:
    from bot.client import GPT2Client

_Samples = app_commands.Range[int, requests.MIN_SAMPLES, requests.MAX_SAMPLES]
_Length = app_commands.Range[int, requests.MIN_LENGTH, requests.MAX_LENGTH]
_Seed = app_commands.Range[int, 0, requests.MAX_SEED]
_Temperature = app_commands.Range[float, requests.MIN_TEMPERATURE, requests.MAX_TEMPERATURE]
_TopK = app_commands.Range[int, 0, requests.MAX_TOP_K]
_TopP = app_commands.Range[float, 0.0, 1.0]
_Prompt = app_commands.Range[str, 1, requests.MAX_PROMPT_CHARACTERS]


class Continuations(commands.Cog):
    """The commands that make GPT-2 write."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client

    @app_commands.command(name="continue")
    @app_commands.describe(
        prompt="The beginning of a text; leave it out for a form with room for several lines",
        samples="How many continuations to draw (5)",
        length="How many new tokens each may have (40); a token is about three quarters of a word",
        seed="The same seed gives the same words again; drawn and shown if left out",
        temperature="Below 1 safer, above 1 wilder; 0 always takes the likeliest token (1)",
        top_k="Draw from the k likeliest tokens only; 0 is off (50)",
        top_p="Draw from the likeliest tokens that make up this share; 1 is off (1)",
        private="Show the answer to you alone",
    )
    async def continue_(
        self,
        interaction: discord.Interaction,
        prompt: _Prompt | None = None,
        samples: _Samples = 5,
        length: _Length = 40,
        seed: _Seed | None = None,
        temperature: _Temperature = 1.0,
        top_k: _TopK = 50,
        top_p: _TopP = 1.0,
        private: bool = False,  # noqa: FBT001, FBT002 # an option that Discord gives by name
    ) -> None:
        """Continue a text with GPT-2, several samples at once."""

        async def proceed(interaction: discord.Interaction, prompt: str) -> None:
            # Drawn from the id, which nobody chooses, so that an answer after a restart has the same words.
            drawn = random.Random(interaction.id).randint(0, requests.MAX_SEED) if seed is None else seed
            request = ContinuationRequest(prompt, drawn, samples, length, temperature, top_k, top_p)
            await self._answer(interaction, request, private=private)

        if prompt is None:
            await interaction.response.send_modal(PromptForm(self.client, interaction, proceed))
        else:
            await proceed(interaction, prompt)

    async def _answer(self, interaction: discord.Interaction, request: ContinuationRequest, *, private: bool) -> None:
        reply, engine = self.client.reply_to(interaction), self.client.engine
        ticket = await reply.checked(
            engine.submit(request, owner=interaction.user.id), private=private, undo=lambda ticket: ticket.abandon()
        )
        try:
            continuation = await ticket.result()
        finally:
            ticket.abandon()
        model = await engine.model()
        layout = ContinuationLayout(continuation, model, reply.translate)
        await reply.give(layout, [transcript(continuation, model, reply.translate)] if layout.shortened else [])
