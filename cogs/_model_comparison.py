"""/compare with two models: one prompt, its next tokens and surprise, and samples from one seed, side by side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from bot import figures, programs
from bot.gpt2.prediction import PredictionQuestion, shared_candidates
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.validation import well_formed
from bot.interactions.progress import while_shown
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui.buttons import Action
from bot.ui.code import CodeLayout, check_model, model_checksum
from bot.ui.limits import ELLIPSIS, LAYOUT_CHARACTERS
from bot.ui.literal import literal
from bot.ui.packing import Passage, pack
from bot.ui.parameters import model_notes
from bot.ui.picture import DrawingLayout, PictureLayout
from bot.ui.prompts import Prompts, prompt_of
from cogs._seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import discord

    from bot.client import GPT2Client
    from bot.figures import Picture
    from bot.gpt2.engine import Engine, Ticket
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.prediction import Prediction
    from bot.gpt2.requests import Continuation
    from bot.text import Text

COUNT: Final = 6  # next tokens that are compared
SAMPLE_CHARACTERS: Final = LAYOUT_CHARACTERS - 2000  # of all samples together; prompt and caption have the rest


@dataclass(frozen=True, slots=True)
class ModelComparison(Action):
    """Two models side by side; the button below shows the program.

    Attributes:
        model: The first model's checksum.
        other: The second model's.
        params: The settings of the samples.
    """

    NAME: ClassVar[str] = "comparemodels"

    model: int
    other: int
    params: SamplingParams


async def compare_models(
    client: GPT2Client,
    interaction: discord.Interaction,
    prompt: str,
    engines: tuple[Engine, Engine],
    params: SamplingParams,
) -> None:
    """Answer with the comparison of two models."""
    reply, text, owner = Reply.of(interaction), well_formed(prompt), interaction.user.id
    params = replace(params, seed=seed_of(interaction)) if params.seed is None else params
    request = ContinuationRequest(text, params)
    tickets = await reply.checked(_accepted(client, request, engines, owner), undo=_abandon)
    try:
        work = _compared(client, text, engines, tickets, owner)
        waiting = DrawingLayout(reply.translate, say("Both models are writing; this takes a few seconds."))
        found = await while_shown(work, reply, waiting, client.wait_between_edits)
    finally:
        _abandon(tickets)
    models, picture, continuations = found
    code = ModelComparison(model_checksum(models[0]), model_checksum(models[1]), params)
    samples = [
        Passage(f"-# {literal(model.name)} · {number}", ELLIPSIS, sample.text)
        for model, continuation in zip(models, continuations, strict=True)
        for number, sample in enumerate(continuation.samples, 1)
    ]
    blurred = any(sample.veil == "blurred" for each in continuations for sample in each.samples)
    layout = PictureLayout(
        picture,
        [_settings(params), *dict.fromkeys(note for model in models for note in model_notes(model))],
        reply.translate,
        code,
        Prompts([text], reply.translate),
        texts=pack(samples, SAMPLE_CHARACTERS),
        blurred=blurred,
    )
    await reply.give(layout, layout.files)


async def show_code(client: GPT2Client, interaction: discord.Interaction, asked: ModelComparison) -> None:
    """Answer the button below a comparison with its program."""
    reply = Reply.of(interaction)

    async def write() -> str:
        models = [await client.models.of(checksum).model() for checksum in (asked.model, asked.other)]
        for checksum, model in zip((asked.model, asked.other), models, strict=True):
            check_model(checksum, model)
        prompt = await prompt_of(interaction.message) if interaction.message else ""
        return programs.model_comparison(ContinuationRequest(prompt, asked.params), *models)

    layout = CodeLayout(await reply.checked(write(), private=True), reply.translate)
    await reply.give(layout, layout.files)


async def _accepted(
    client: GPT2Client, request: ContinuationRequest, engines: tuple[Engine, Engine], owner: int
) -> tuple[Ticket, ...]:
    """Submit the request to both models, or to neither."""
    first = await engines[0].submit(request, owner=owner)
    try:
        second = await engines[1].submit(request, owner=owner)
    except BaseException:
        first.abandon()
        raise
    return client.moderation.moderate(first), client.moderation.moderate(second)


async def _compared(
    client: GPT2Client, text: str, engines: tuple[Engine, Engine], tickets: Sequence[Ticket], owner: int
) -> tuple[tuple[ModelInfo, ModelInfo], Picture, list[Continuation]]:
    """Return both models, the picture, and the samples of both."""
    continuations = await asyncio.gather(*(ticket.result() for ticket in tickets))

    async def ask(question: PredictionQuestion) -> Any:
        return await asyncio.gather(
            *(client.answers.introspect(question, owner=owner, engine=engine) for engine in engines)
        )

    first, second = await ask(PredictionQuestion(text, count=COUNT))
    candidates = shared_candidates((first, second), COUNT)
    both = await ask(PredictionQuestion(text, candidates, COUNT))
    models = (await engines[0].model(), await engines[1].model())
    draw = partial(
        figures.compare_models,
        names=(models[0].name, models[1].name),
        pieces=(first.text.tokens.pieces, second.text.tokens.pieces),
        bits=(first.text.bits, second.text.bits),
        candidates=candidates,
        probabilities=np.stack([each.among for each in both]),
        likeliest=(_likeliest(first), _likeliest(second)),
    )
    return models, await client.renderer.render(draw), list(continuations)


def _likeliest(prediction: Prediction) -> tuple[bytes, float]:
    return prediction.candidates.pieces[0], float(prediction.probabilities[0])


def _settings(params: SamplingParams) -> Text:
    return say(
        "Samples: seed {seed} · samples {samples} · length {length}; /continue gives the same words with them.",
        seed=params.seed,
        samples=params.samples,
        length=params.length,
    )


def _abandon(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.abandon()
