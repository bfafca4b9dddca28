"""Exhibits: the source of a picture, the function that draws it, and the program that draws the same without the bot.

Commands, the gallery and the bench share them. An exhibit computes and draws nothing until it is asked for its picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bot import figures, programs
from bot.gpt2.model_info import ParameterSlice

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bot.figures import Drawing, Picture, Renderer, Sink, Style
    from bot.gpt2.engine import Engine
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.questions import (
        Ablation,
        AblationQuestion,
        Attention,
        AttentionQuestion,
        Comparison,
        ComparisonQuestion,
        HeadAttention,
        HeadQuestion,
        Induction,
        InductionQuestion,
        Insights,
        InsightsQuestion,
        Lens,
        LensQuestion,
        NextTokens,
        NextTokensQuestion,
        Question,
        Surprise,
        SurpriseQuestion,
        Tokens,
        TokensQuestion,
    )
    from bot.gpt2.writing import Writing, WritingQuestion

    Values = NDArray[np.float32]


SourceT = TypeVar("SourceT", bound="ParameterSlice | Question[Any]")


@dataclass(frozen=True, slots=True)
class Exhibit(Generic[SourceT]):
    """One picture that can be made.

    Attributes:
        source: A slice of a parameter, or a question about a text.
        draw: Draws the values of the slice, or the answer to the question, at once or in steps.
        program: The source text of a program that draws the same; empty where there is none.
        variant: Distinguishes drawings of one source.
    """

    source: SourceT
    draw: Callable[[Any], Picture | Drawing]
    program: str = ""
    variant: tuple[Hashable, ...] = ()

    async def picture(self, engine: Engine, renderer: Renderer, *, owner: Hashable = None) -> Picture:
        """Return the picture, from the cache where it is one of weights, which never change.

        Raises:
            InvalidInputError: The text does not suit the question.
            UnavailableError: The engine could not answer it.
        """
        if not isinstance(self.source, ParameterSlice):
            return await self.render(engine, renderer, owner=owner)
        key = ((await engine.model()).fingerprint, self.source, *self.variant)
        return await renderer.cached(key, partial(self.render, engine, renderer))

    async def render(self, engine: Engine, renderer: Renderer, *, owner: Hashable = None) -> Picture:
        """Draw the picture anew."""
        if isinstance(self.source, ParameterSlice):
            values: Any = await engine.read(self.source)
        else:
            values = await engine.introspect(self.source, owner=owner)
        return await renderer.render(partial(self.draw, values))


def positional_heatmap(part: ParameterSlice, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Return the positional embeddings as a heatmap."""
    draw = partial(figures.positional_heatmap, style=style, **_matrix(part))
    return Exhibit(part, draw, programs.positional_heatmap(part, style, model), ("positional", style))


def positional_lines(
    part: ParameterSlice, dims: Sequence[int], style: Style, model: ModelInfo
) -> Exhibit[ParameterSlice]:
    """Return some dimensions of the positional embeddings as lines over the positions."""
    dims = tuple(dims)

    def draw(values: Values) -> Picture:
        return figures.positional_lines(values[:, dims], dims=dims, style=style, **_positions(part))

    return Exhibit(part, draw, programs.positional_lines(part, dims, model), ("lines", *dims, style))


def positional_similarity(part: ParameterSlice, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Return the cosine similarity of the embeddings of each pair of positions."""
    draw = partial(figures.positional_similarity, **_positions(part))
    return Exhibit(part, draw, programs.positional_similarity(part, model), ("similarity",))


def positional_helix(part: ParameterSlice, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Return the curve of the positional embeddings in their principal components."""
    draw = partial(figures.positional_helix, **_positions(part))
    return Exhibit(part, draw, programs.positional_helix(part, model), ("helix",))


def attention_heads(part: ParameterSlice, layer: int, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Return all of a layer's Q, K and V with the RMS of each head; layers count from 1."""
    draw = partial(
        figures.attention_heads,
        name=part.info.name,
        layer=layer,
        width=model.width,
        heads=model.heads,
        dtype=part.info.dtype,
    )
    return Exhibit(part, draw, programs.attention_heads(part, layer, model), ("heads",))


def attention_slice(part: ParameterSlice, layer: int, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Return a slice of the matrix that makes a layer's queries, keys and values; layers count from 1."""
    draw = partial(
        figures.attention_slice,
        name=part.info.name,
        layer=layer,
        rows=part.rows,
        columns=part.columns,
        width=model.width,
        heads=model.heads,
        dtype=part.info.dtype,
        style=style,
    )
    return Exhibit(part, draw, programs.attention_slice(part, layer, style, model), ("attention", style))


def parameter(part: ParameterSlice, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Return any parameter: a matrix as a heatmap, a vector as a plot."""
    if part.flat:
        draw = partial(figures.vector, length=part.info.size, style=style, **_positions(part))
    else:
        draw = partial(figures.matrix, style=style, **_matrix(part))
    return Exhibit(part, draw, programs.matrix(part, style, model), ("parameter", style))


def attention_grid(question: AttentionQuestion, sink: Sink, model: ModelInfo) -> Exhibit[AttentionQuestion]:
    """Return the attention of all heads."""

    def draw(answer: Attention) -> Picture:
        return figures.attention_grid(
            answer.weights,
            pieces=answer.tokens.pieces,
            scores=answer.scores,
            sink=sink,
            left_out=answer.left_out,
        )

    return Exhibit(question, draw, programs.attention_grid(question, sink, model))


def attention_head(question: HeadQuestion, sink: Sink, model: ModelInfo) -> Exhibit[HeadQuestion]:
    """Return the attention of one head."""

    def draw(answer: HeadAttention) -> Picture:
        return figures.attention_head(
            answer.weights,
            pieces=answer.tokens.pieces,
            layer=question.layer,
            head=question.head,
            sink=sink,
            left_out=answer.left_out,
        )

    return Exhibit(question, draw, programs.attention_head(question, sink, model))


def token_split(question: TokensQuestion, model: ModelInfo) -> Exhibit[TokensQuestion]:
    """Return the tokens of a text."""

    def draw(answer: Tokens) -> Picture:
        return figures.token_split(question.text, pieces=answer.pieces, ids=answer.ids)

    return Exhibit(question, draw, programs.token_split(question, model))


def next_tokens(question: NextTokensQuestion, model: ModelInfo) -> Exhibit[NextTokensQuestion]:
    """Return next-token probabilities, before and after the sampling settings."""

    def draw(answer: NextTokens) -> Picture:
        return figures.next_tokens(
            prompt=answer.tokens.pieces,
            candidates=answer.candidates.pieces,
            before=answer.before,
            after=answer.after,
            rest_before=answer.rest_before,
            rest_after=answer.rest_after,
            temperature=question.params.temperature,
            top_k=question.params.top_k,
            top_p=question.params.top_p,
        )

    return Exhibit(question, draw, programs.next_tokens(question, model))


def surprise(
    question: SurpriseQuestion, model: ModelInfo, *, first: int | None = None, until: int | None = None
) -> Exhibit[SurpriseQuestion]:
    """Return the surprise of each token of a text, from the token `first` or up to `until` if it is long."""

    def draw(answer: Surprise) -> Picture:
        return figures.surprise(question.text, pieces=answer.tokens.pieces, bits=answer.bits, first=first, until=until)

    return Exhibit(question, draw, programs.surprise(question, model))


def lens(question: LensQuestion, model: ModelInfo) -> Exhibit[LensQuestion]:
    """Return the logit lens: the next token that each layer predicts."""

    def draw(answer: Lens) -> Picture:
        return figures.lens(
            pieces=answer.shown,
            tops=[row.pieces for row in answer.tops],
            probabilities=answer.probabilities,
            settled=answer.settled,
            left_out=answer.positions.start,
            after=len(answer.tokens) - answer.positions.stop,
        )

    return Exhibit(question, draw, programs.lens(question, model))


def compare(question: ComparisonQuestion, model: ModelInfo) -> Exhibit[ComparisonQuestion]:
    """Return two prompts side by side."""

    def draw(answer: Comparison) -> Picture:
        return figures.compare(
            first=answer.first.tokens.pieces,
            second=answer.second.tokens.pieces,
            candidates=answer.candidates.pieces,
            probabilities=answer.probabilities,
            first_bits=answer.first.bits,
            second_bits=answer.second.bits,
            difference=answer.difference,
        )

    return Exhibit(question, draw, programs.compare(question, model))


def ablation(question: AblationQuestion, model: ModelInfo) -> Exhibit[AblationQuestion]:
    """Return what changes without some heads."""

    def draw(answer: Ablation) -> Picture:
        return figures.ablation(
            pieces=answer.tokens.pieces,
            heads=question.heads,
            candidates=answer.candidates.pieces,
            probabilities=answer.probabilities,
            bits=answer.bits,
        )

    return Exhibit(question, draw, programs.ablation(question, model))


def induction(question: InductionQuestion, model: ModelInfo) -> Exhibit[InductionQuestion]:
    """Return the induction score of every head."""

    def draw(answer: Induction) -> Picture:
        return figures.induction(
            answer.weights, scores=answer.scores, layer=answer.layer, head=answer.head, length=question.length
        )

    return Exhibit(question, draw, programs.induction(question, model))


def insights(question: InsightsQuestion, model: ModelInfo) -> Exhibit[InsightsQuestion]:
    """Return the surprise of several samples, and their similarity."""

    def draw(answer: Insights) -> Picture:
        samples = [(sample.tokens.pieces, sample.bits) for sample in answer.samples]
        return figures.insights(samples=samples, similarity=answer.similarity)

    return Exhibit(question, draw, programs.insights(question, model))


def writing(question: WritingQuestion, model: ModelInfo) -> Exhibit[WritingQuestion]:
    """Return an animation of how a sample was written."""
    request = question.request

    def draw(answer: Writing) -> Drawing:
        return figures.writing(
            prompt=answer.prompt.pieces,
            chosen=answer.chosen.pieces,
            candidates=[each.pieces for each in answer.candidates],
            before=answer.before,
            after=answer.after,
            draws=answer.draws,
            seed=request.seed,
            temperature=request.params.temperature,
            top_k=request.params.top_k,
            top_p=request.params.top_p,
            ended=answer.ended,
        )

    return Exhibit(question, draw, programs.writing(question, model))


def _matrix(part: ParameterSlice) -> dict[str, Any]:
    """Return the keywords that describe a slice of a matrix to `bot.figures`."""
    info = part.info
    return {
        "name": info.name,
        "rows": part.rows,
        "columns": part.columns,
        "shape": info.matrix_shape,
        "dtype": info.dtype,
    }


def _positions(part: ParameterSlice) -> dict[str, Any]:
    """Return the keywords that describe a range of a parameter's first axis to `bot.figures`."""
    return {"name": part.info.name, "positions": part.rows, "dtype": part.info.dtype}
