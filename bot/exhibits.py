"""What there is to show: which values, how they are drawn, and the program that does the same without the bot.

Commands, the gallery and the bench show the same things; here they are put together once. Nothing is computed or drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bot import figures, programs
from bot.gpt2.model_info import ParameterSlice
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bot.figures import Picture, Renderer, Sink, Style
    from bot.gpt2.engine import Engine
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.questions import (
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


SourceT = TypeVar("SourceT", bound="ParameterSlice | Question[Any]")


@dataclass(frozen=True, slots=True)
class Exhibit(Generic[SourceT]):
    """One picture that can be made.

    Attributes:
        source: What is drawn: values of a parameter, or the answer to a question about a text.
        draw: Makes the picture of them.
        program: The source text of a program that draws the same; empty where there is none.
        variant: Tells drawings of one source apart.
    """

    source: SourceT
    draw: Callable[[Any], Picture]
    program: str = ""
    variant: tuple[Hashable, ...] = ()

    async def picture(self, engine: Engine, renderer: Renderer, *, owner: Hashable = None) -> Picture:
        """The picture; one of weights, which never change, is kept, and then nothing is read or drawn.

        Raises:
            InvalidInputError: The text does not suit the question.
            UnavailableError: The engine could not answer it.
        """
        if not isinstance(self.source, ParameterSlice):
            return await self.drawn(engine, renderer, owner=owner)
        key = ((await engine.model()).fingerprint, self.source, *self.variant)
        return await renderer.kept(key, partial(self.drawn, engine, renderer))

    async def drawn(self, engine: Engine, renderer: Renderer, *, owner: Hashable = None) -> Picture:
        """The picture, drawn anew."""
        if isinstance(self.source, ParameterSlice):
            values: Any = await engine.read(self.source)
        else:
            values = await engine.introspect(self.source, owner=owner)
        return await renderer.render(partial(self.draw, values))


def positional_heatmap(part: ParameterSlice, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """The positional embeddings as a heatmap."""
    draw = partial(_matrix, figures.positional_heatmap, part, style)
    return Exhibit(part, draw, programs.positional_heatmap(part, style, model), ("positional", style))


def positional_lines(
    part: ParameterSlice, dims: Sequence[int], style: Style, model: ModelInfo
) -> Exhibit[ParameterSlice]:
    """Some dimensions of the positional embeddings as lines over the positions."""
    program = programs.positional_lines(part, dims, model)
    return Exhibit(part, partial(_lines, part, tuple(dims), style), program, ("lines", *dims, style))


def positional_similarity(part: ParameterSlice, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """How alike the embeddings of each two positions are."""
    draw = partial(_positions, figures.positional_similarity, part)
    return Exhibit(part, draw, programs.positional_similarity(part, model), ("similarity",))


def positional_helix(part: ParameterSlice, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """The curve of the positional embeddings in their principal components."""
    draw = partial(_positions, figures.positional_helix, part)
    return Exhibit(part, draw, programs.positional_helix(part, model), ("helix",))


def attention_heads(part: ParameterSlice, layer: int, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """The whole of a layer's queries, keys and values, and how loud each head is; layers count from 1."""
    program = programs.attention_heads(part, layer, model)
    return Exhibit(part, partial(_attention_heads, part, model, layer), program, ("heads",))


def attention_slice(part: ParameterSlice, layer: int, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """A slice of the matrix that makes a layer's queries, keys and values; layers count from 1."""
    program = programs.attention_slice(part, layer, style, model)
    return Exhibit(part, partial(_attention, part, model, layer, style), program, ("attention", style))


def parameter(part: ParameterSlice, style: Style, model: ModelInfo) -> Exhibit[ParameterSlice]:
    """Any parameter."""
    program = programs.matrix(part, style, model)
    return Exhibit(part, partial(_parameter, part, style), program, ("parameter", style))


def attention_grid(question: AttentionQuestion, sink: Sink, model: ModelInfo) -> Exhibit[AttentionQuestion]:
    """What all heads look at."""
    return Exhibit(question, partial(_attention_grid, sink), programs.attention_grid(question, sink, model))


def attention_head(question: HeadQuestion, sink: Sink, model: ModelInfo) -> Exhibit[HeadQuestion]:
    """What one head looks at."""
    program = programs.attention_head(question, sink, model)
    return Exhibit(question, partial(_attention_head, question, sink), program)


def token_split(question: TokensQuestion, model: ModelInfo) -> Exhibit[TokensQuestion]:
    """The tokens of a text."""
    return Exhibit(question, _token_split, programs.token_split(question, model))


def next_tokens(question: NextTokensQuestion, model: ModelInfo) -> Exhibit[NextTokensQuestion]:
    """What may come next."""
    return Exhibit(question, partial(_next_tokens, question), programs.next_tokens(question, model))


def surprise(question: SurpriseQuestion, model: ModelInfo) -> Exhibit[SurpriseQuestion]:
    """How surprising each token is."""
    return Exhibit(question, partial(_surprise, question), programs.surprise(question, model))


def lens(question: LensQuestion, model: ModelInfo) -> Exhibit[LensQuestion]:
    """What each layer would say next."""
    return Exhibit(question, _lens, programs.lens(question, model))


def compare(question: ComparisonQuestion, model: ModelInfo) -> Exhibit[ComparisonQuestion]:
    """Two prompts side by side."""
    return Exhibit(question, _compare, programs.compare(question, model))


def induction(question: InductionQuestion, model: ModelInfo) -> Exhibit[InductionQuestion]:
    """Which heads continue what they have seen before."""
    return Exhibit(question, partial(_induction, question), programs.induction(question, model))


def insights(question: InsightsQuestion, model: ModelInfo) -> Exhibit[InsightsQuestion]:
    """How expected several samples are, and how alike."""
    return Exhibit(question, _insights, programs.insights(question, model))


def _matrix(draw: Callable[..., Picture], part: ParameterSlice, style: Style, values: NDArray[np.float32]) -> Picture:
    return draw(
        values,
        name=part.info.name,
        rows=part.rows,
        columns=part.columns,
        shape=part.info.matrix_shape,
        dtype=part.info.dtype,
        style=style,
    )


def _lines(part: ParameterSlice, dims: tuple[int, ...], style: Style, values: NDArray[np.float32]) -> Picture:
    return figures.positional_lines(
        values[:, dims], name=part.info.name, dims=dims, positions=part.rows, dtype=part.info.dtype, style=style
    )


def _positions(draw: Callable[..., Picture], part: ParameterSlice, values: NDArray[np.float32]) -> Picture:
    return draw(values, name=part.info.name, positions=part.rows, dtype=part.info.dtype)


def _attention_heads(part: ParameterSlice, model: ModelInfo, layer: int, values: NDArray[np.float32]) -> Picture:
    return figures.attention_heads(
        values, name=part.info.name, layer=layer, width=model.width, heads=model.heads, dtype=part.info.dtype
    )


def _attention(
    part: ParameterSlice, model: ModelInfo, layer: int, style: Style, values: NDArray[np.float32]
) -> Picture:
    return figures.attention_slice(
        values,
        name=part.info.name,
        layer=layer,
        rows=part.rows,
        columns=part.columns,
        width=model.width,
        heads=model.heads,
        dtype=part.info.dtype,
        style=style,
    )


def _parameter(part: ParameterSlice, style: Style, values: NDArray[np.float32]) -> Picture:
    if part.flat:
        return figures.vector(
            values,
            name=part.info.name,
            positions=part.rows,
            length=part.info.size,
            dtype=part.info.dtype,
            style=style,
        )
    return _matrix(figures.matrix, part, style, values)


def _attention_grid(sink: Sink, answer: Attention) -> Picture:
    picture = figures.attention_grid(answer.weights, pieces=answer.tokens.pieces, scores=answer.scores, sink=sink)
    return _noted(picture, *_left_out(answer.left_out, answer.tokens))


def _attention_head(question: HeadQuestion, sink: Sink, answer: HeadAttention) -> Picture:
    picture = figures.attention_head(
        answer.weights, pieces=answer.tokens.pieces, layer=question.layer, head=question.head, sink=sink
    )
    return _noted(picture, *_left_out(answer.left_out, answer.tokens))


def _token_split(answer: Tokens) -> Picture:
    return figures.token_split(pieces=answer.pieces, ids=answer.ids)


def _next_tokens(question: NextTokensQuestion, answer: NextTokens) -> Picture:
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


def _surprise(question: SurpriseQuestion, answer: Surprise) -> Picture:
    return figures.surprise(pieces=answer.tokens.pieces, bits=answer.bits, characters=len(question.text))


def _lens(answer: Lens) -> Picture:
    picture = figures.lens(
        pieces=answer.shown,
        tops=[row.pieces for row in answer.tops],
        probabilities=answer.probabilities,
        settled=answer.settled,
    )
    shown, tokens = len(answer.positions), len(answer.tokens)
    if shown == tokens:
        return picture
    return _noted(picture, say("Shown are the last {shown} of {tokens} tokens.", shown=shown, tokens=tokens))


def _compare(answer: Comparison) -> Picture:
    return figures.compare(
        first=answer.first.tokens.pieces,
        second=answer.second.tokens.pieces,
        candidates=answer.candidates.pieces,
        probabilities=answer.probabilities,
        first_bits=answer.first.bits,
        second_bits=answer.second.bits,
        difference=answer.difference,
    )


def _induction(question: InductionQuestion, answer: Induction) -> Picture:
    return figures.induction(
        answer.weights, scores=answer.scores, layer=answer.layer, head=answer.head, length=question.length
    )


def _insights(answer: Insights) -> Picture:
    samples = [(sample.tokens.pieces, sample.bits) for sample in answer.samples]
    return figures.insights(samples=samples, similarity=answer.similarity)


def _noted(picture: Picture, *notes: Text) -> Picture:
    return replace(picture, caption=(*picture.caption, *notes))


def _left_out(count: int, tokens: Tokens) -> tuple[Text, ...]:
    if not count:
        return ()
    return (
        say(
            "The prompt has {count} tokens, and {shown} can be shown: the model was given the last {shown} alone.",
            count=len(tokens) + count,
            shown=len(tokens),
        ),
    )
