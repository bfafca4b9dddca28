"""Answers to the questions of `bot.gpt2.questions`, as arrays of the model's activations.

All numbers equal those of Transformers' `GPT2LMHeadModel` with `attn_implementation="eager"` within 1e-5 in float32.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import torch
from torch.nn import functional

from bot.errors import InvalidInputError
from bot.gpt2.local.activations import ActivationReader
from bot.gpt2.local.replay import replay
from bot.gpt2.local.runner import PREFILL_CHUNK
from bot.gpt2.local.sampling import Sampler, drawn_from
from bot.gpt2.local.scores import head_scores, similarity
from bot.gpt2.local.sequences import check_finite
from bot.gpt2.local.tokens import describe, encode, find_pieces, look_up
from bot.gpt2.prediction import Prediction, PredictionQuestion
from bot.gpt2.questions import (
    MAX_MAP_TOKENS,
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
    Surprise,
    SurpriseQuestion,
    Tokens,
    TokensQuestion,
    VisibleEnd,
)
from bot.gpt2.requests import ContinuationRequest
from bot.gpt2.validation import MAX_PROMPT_CHARACTERS
from bot.gpt2.writing import Writing, WritingQuestion
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from bot.gpt2.local.activations import LayerActivations
    from bot.gpt2.local.replay import Step
    from bot.gpt2.model.loading import LoadedModel
    from bot.text import Text

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A computation that yields between its steps, where other work may be interleaved, and returns the answer."""

_SEVERAL: Final = 2  # a single token attends only to itself and has nothing before it


@functools.singledispatch
def answer(question: Any, model: LoadedModel) -> Steps[Any]:
    """Compute the answer to a question step by step.

    The first step counts tokens and refuses invalid questions without running the model. Each other step takes at
    most `PREFILL_CHUNK` positions through all layers, or as many through the output matrix.

    Raises:
        InvalidInputError: The text does not suit the question.
    """
    raise TypeError(f"{type(question).__name__} is no question about {model.info.name}")


@answer.register(TokensQuestion)
def _answer_tokens(question: TokensQuestion, model: LoadedModel) -> Steps[Tokens]:
    yield from ()  # a generator like the others, with a single step
    return describe(model, encode(model, question.text))


@answer.register(AttentionQuestion)
def _answer_attention(question: AttentionQuestion, model: LoadedModel) -> Steps[Attention]:
    ids, left_out = _attended(model, question.prompt)
    yield
    weights = yield from _maps(model, ids)
    return Attention(describe(model, ids), left_out, weights, head_scores(weights, ids))


@answer.register(HeadQuestion)
def _answer_head(question: HeadQuestion, model: LoadedModel) -> Steps[HeadAttention]:
    model.info.check_layer(question.layer)
    model.info.check_head(question.head)
    ids, left_out = _attended(model, question.prompt)
    yield
    weights = yield from _maps(model, ids, depth=question.layer)
    return HeadAttention(describe(model, ids), left_out, weights[-1, question.head - 1].copy())


@answer.register(NextTokensQuestion)
def _answer_next_tokens(question: NextTokensQuestion, model: LoadedModel) -> Steps[NextTokens]:
    chosen = [] if question.chosen is None else [question.chosen]
    written = [*look_up(model, question.written), *chosen]
    ids = [*encode(model, question.prompt), *written]
    _check_fits(ids, model.info.context - question.draw, _PROMPT)
    yield
    reader = ActivationReader(model.transformer, len(ids) + question.draw)
    logits = _logits(model, (yield from _stream(reader, ids))[-1:])
    share = None
    if question.draw:
        token, share = _draw(question, logits)
        written.append(token)
        logits = _logits(model, (yield from _stream(reader, [token])))
    before, after = _array(logits.softmax(dim=-1)[0]), _array(drawn_from(logits, question.params)[0])
    candidates = _largest(before, question.count)
    return NextTokens(
        tokens=describe(model, [*ids, *written[len(written) - question.draw :]]),
        candidates=describe(model, candidates),
        before=before[candidates],
        after=after[candidates],
        rest_before=float(np.delete(before, candidates).sum(dtype=np.float64)),
        rest_after=float(np.delete(after, candidates).sum(dtype=np.float64)),
        kept=int(np.count_nonzero(after)),
        written=describe(model, written),
        share=share,
    )


@answer.register(SurpriseQuestion)
def _answer_surprise(question: SurpriseQuestion, model: LoadedModel) -> Steps[Surprise]:
    given, ids = encode(model, question.given), encode(model, question.text)
    _check_several([*given, *ids], _TEXT)
    _check_fits(ids, model.info.context - len(given), _TEXT)
    yield
    stream = yield from _stream(ActivationReader(model.transformer, len(given) + len(ids)), [*given, *ids])
    bits = yield from _bits(model, stream[max(len(given) - 1, 0) : -1], ids)
    return Surprise(describe(model, ids), bits)


@answer.register(LensQuestion)
def _answer_lens(question: LensQuestion, model: LoadedModel) -> Steps[Lens]:
    ids = encode(model, question.prompt)
    _check_fits(ids, model.info.context, _PROMPT)
    yield
    until = len(ids) if question.until is None else min(question.until, len(ids))
    positions = range(max(until - question.last, 0), until)
    reader, chunks = ActivationReader(model.transformer, until), []
    for chunk in _chunks(ids[:until]):
        start = max(positions.start - reader.position, 0)
        chunks.append(torch.stack([layer.residual[start:] for layer in reader.layers(chunk)]))
        yield
    tops, probabilities = [], []
    for residual in torch.cat(chunks, dim=1):  # [layers + 1, positions, d]
        likeliest = _logits(model, residual).softmax(dim=-1).max(dim=-1)
        tops.append(_array(likeliest.indices))
        probabilities.append(_array(likeliest.values))
        yield
    return Lens(
        tokens=describe(model, ids),
        positions=positions,
        tops=tuple(describe(model, row.tolist()) for row in tops),
        probabilities=np.stack(probabilities),
        settled=_settled(np.stack(tops)),
    )


@answer.register(ComparisonQuestion)
def _answer_comparison(question: ComparisonQuestion, model: LoadedModel) -> Steps[Comparison]:
    first, second = encode(model, question.first), encode(model, question.second)
    _check_fits(first, model.info.context, say("The first prompt"))
    _check_fits(second, model.info.context, say("The second prompt"))
    yield
    one, after_one = yield from _read(model, first)
    other, after_other = yield from _read(model, second)
    probabilities = np.stack([after_one, after_other])
    candidates = _largest(probabilities.max(axis=0), question.count)
    difference = None
    if len(first) == len(second) and _SEVERAL <= len(first) <= MAX_MAP_TOKENS:
        before = yield from _maps(model, first)
        difference = (yield from _maps(model, second)) - before
    return Comparison(one, other, describe(model, candidates), probabilities[:, candidates], difference)


@answer.register(AblationQuestion)
def _answer_ablation(question: AblationQuestion, model: LoadedModel) -> Steps[Ablation]:
    for layer, head in question.heads:
        model.info.check_layer(layer)
        model.info.check_head(head)
    ids = encode(model, question.prompt)
    _check_fits(ids, model.info.context, _PROMPT)
    yield
    whole, after_whole = yield from _read(model, ids)
    rest, after_rest = yield from _read(model, ids, [(layer - 1, head - 1) for layer, head in question.heads])
    probabilities = np.stack([after_whole, after_rest])
    candidates = _largest(probabilities.max(axis=0), question.count)
    return Ablation(
        whole.tokens, describe(model, candidates), probabilities[:, candidates], np.stack([whole.bits, rest.bits])
    )


@answer.register(PredictionQuestion)
def _answer_prediction(question: PredictionQuestion, model: LoadedModel) -> Steps[Prediction]:
    ids = encode(model, question.prompt)
    _check_fits(ids, model.info.context, _PROMPT)
    yield
    read, after = yield from _read(model, ids)
    candidates = _largest(after, question.count)
    among = [np.nan if token is None else after[token] for token in find_pieces(model, question.among)]
    return Prediction(read, describe(model, candidates), after[candidates], np.array(among, np.float32))


@answer.register(WritingQuestion)
def _answer_writing(question: WritingQuestion, model: LoadedModel) -> Steps[Writing]:
    request = question.request
    ids = encode(model, request.prompt)
    _check_fits(ids, model.info.context - request.params.length, _PROMPT)
    yield
    steps = yield from replay(model, ids, request, question.sample - 1, question.most)
    candidates = [_candidates(step, question.count) for step in steps]
    chosen = [step.chosen for step in steps]
    return Writing(
        prompt=describe(model, ids),
        chosen=describe(model, chosen),
        candidates=tuple(describe(model, each) for each in candidates),
        before=np.stack([step.before[each] for step, each in zip(steps, candidates, strict=True)]),
        after=np.stack([step.after[each] for step, each in zip(steps, candidates, strict=True)]),
        draws=np.stack([step.draws[each] for step, each in zip(steps, candidates, strict=True)]),
        kept=np.array([np.count_nonzero(step.after) for step in steps]),
        ended=len(steps) == request.params.length or chosen[-1] in model.endings.tokens,
    )


@answer.register(InductionQuestion)
def _answer_induction(question: InductionQuestion, model: LoadedModel) -> Steps[Induction]:
    most = min(model.info.context // 2, model.info.vocabulary)
    if question.length > most:
        raise InvalidInputError(
            say(
                "{model} can read at most {most} random tokens twice over, not {length}.",
                model=model.info.name,
                most=most,
                length=question.length,
            )
        )
    yield
    generator = torch.Generator().manual_seed(question.seed)
    ids = torch.randperm(model.info.vocabulary, generator=generator)[: question.length].tolist() * 2
    weights = yield from _maps(model, ids)
    scores = head_scores(weights, ids)["induction"]
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    return Induction(describe(model, ids), scores, int(layer) + 1, int(head) + 1, weights[layer, head])


@answer.register(InsightsQuestion)
def _answer_insights(question: InsightsQuestion, model: LoadedModel) -> Steps[Insights]:
    prompt = encode(model, question.prompt)
    samples = [encode(model, each) if isinstance(each, str) else list(each) for each in question.samples]
    longest = max(map(len, samples))
    _check_fits(prompt, model.info.context - longest, _PROMPT)
    yield
    reader = ActivationReader(model.transformer, len(prompt) + longest)
    before = (yield from _stream(reader, prompt))[-1:]
    surprises = []
    for sample in samples:
        reader.position = len(prompt)  # the prompt is read once for all samples
        stream = yield from _stream(reader, sample)
        bits = yield from _bits(model, torch.cat([before, stream])[:-1], sample)
        surprises.append(Surprise(describe(model, sample), bits))
    return Insights(describe(model, prompt), tuple(surprises), similarity(samples))


@answer.register(VisibleEnd)
def _answer_visible_end(question: VisibleEnd, model: LoadedModel) -> Steps[str]:
    yield from ()
    text = question.text[-MAX_PROMPT_CHARACTERS:]
    room = max(model.info.context - max([question.length, *(len(encode(model, each)) for each in question.behind)]), 1)
    while True:
        split = model.tokenizer(text, return_offsets_mapping=True, verbose=False)
        excess = len(split["input_ids"]) - room
        if excess <= 0 or not text:  # a tokenizer may add tokens even to an empty text
            return text
        begins = [begin for begin, _ in split["offset_mapping"][excess:]]
        # BPE splits a word the same way here as in the whole text if its leading space is kept.
        words = (begin for begin in begins[: len(begins) // 2] if begin and text[begin].isspace())
        text = text[next(words, max(begins[0], 1)) :]
        yield


_PROMPT: Final = say("The prompt")
_TEXT: Final = say("The text")


def _draw(question: NextTokensQuestion, logits: torch.Tensor) -> tuple[int, float]:
    """Draw a token as a continuation of one sample and one token would; return it and its probability."""
    request = ContinuationRequest(question.prompt, replace(question.params, samples=1))
    (token,) = Sampler(request, logits.shape[-1], logits.device).next_tokens(logits, [0], [0])
    return token, float(drawn_from(logits, question.params)[0, token])


def _attended(model: LoadedModel, prompt: str) -> tuple[list[int], int]:
    """Return the last tokens of a prompt, whose attention is computed, and the number of tokens before them."""
    ids = encode(model, prompt)
    _check_several(ids, _PROMPT)
    kept = ids[-min(MAX_MAP_TOKENS, model.info.context) :]
    return kept, len(ids) - len(kept)


def _check_fits(ids: Sequence[int], most: int, what: Text) -> None:
    if len(ids) > most:
        raise InvalidInputError(
            say(
                "{what} has {count} tokens; at most {most} fit here. Shorten it.",
                what=what,
                count=len(ids),
                most=max(most, 0),
            )
        )


def _check_several(ids: Sequence[int], what: Text) -> None:
    if len(ids) < _SEVERAL:
        raise InvalidInputError(
            say("{what} is a single token, with nothing before it to look at. Write at least two words.", what=what)
        )


def _chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    return (ids[begin : begin + PREFILL_CHUNK] for begin in range(0, len(ids), PREFILL_CHUNK))


def _maps(model: LoadedModel, ids: Sequence[int], depth: int | None = None) -> Steps[NDArray[np.float32]]:
    """Compute the attention of all heads, in the first `depth` layers or all: [layers, heads, tokens, tokens]."""
    info, reader = model.info, ActivationReader(model.transformer, len(ids))
    weights = np.zeros((depth or info.layers, info.heads, len(ids), len(ids)), dtype=np.float32)
    for chunk in _chunks(ids):
        begin, end = reader.position, reader.position + len(chunk)
        for layer, activations in enumerate(reader.layers(chunk, depth=depth)):
            if layer:
                check_finite(activations.attention)
                weights[layer - 1, :, begin:end, :end] = _array(activations.attention)
        yield
    return weights


def _stream(reader: ActivationReader, ids: Sequence[int]) -> Steps[torch.Tensor]:
    """Compute the final residual stream, [tokens, d]."""
    parts = [reader.empty_residual]
    for chunk in _chunks(ids):
        parts.append(_last(reader.layers(chunk)).residual)
        yield
    return torch.cat(parts)


def _bits(model: LoadedModel, expecting: torch.Tensor, ids: Sequence[int]) -> Steps[NDArray[np.float32]]:
    """Compute the surprise of each token in bits, [tokens].

    Args:
        model: The model that predicts.
        expecting: The final residual stream at the position before each of the last tokens, [tokens or fewer, d].
        ids: The tokens; the first ones without a prediction get NaN.
    """
    unexpected = len(ids) - len(expecting)
    bits = np.full(len(ids), math.nan, dtype=np.float32)
    for begin in range(0, len(expecting), PREFILL_CHUNK):
        logits = _logits(model, expecting[begin : begin + PREFILL_CHUNK])
        chunk = slice(unexpected + begin, unexpected + begin + len(logits))
        tokens = torch.tensor(ids[chunk], device=logits.device)
        bits[chunk] = _array(functional.cross_entropy(logits, tokens, reduction="none")) / math.log(2)
        yield
    return bits


def _read(
    model: LoadedModel, ids: Sequence[int], silenced: Iterable[tuple[int, int]] = ()
) -> Steps[tuple[Surprise, NDArray[np.float32]]]:
    """Compute the surprise of a text and the next-token probabilities, [vocabulary], without some heads."""
    stream = yield from _stream(ActivationReader(model.transformer, len(ids), silenced), ids)
    bits = yield from _bits(model, stream[:-1], ids)
    return Surprise(describe(model, ids), bits), _array(_logits(model, stream[-1:]).softmax(dim=-1)[0])


def _last(layers: Iterable[LayerActivations]) -> LayerActivations:
    """Return the last activations without keeping the others in memory."""
    return deque(layers, maxlen=1).pop()


@torch.inference_mode()
def _logits(model: LoadedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Map the final residual stream [rows, d] to logits [rows, vocabulary].

    Raises:
        FloatingPointError: One is not finite.
    """
    logits = model.transformer.logits(hidden)
    check_finite(logits)
    return logits


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def _largest(values: NDArray[np.float32], count: int) -> list[int]:
    """Return the indices of the largest values, in descending order."""
    order: list[int] = np.argsort(-values, kind="stable")[:count].tolist()
    return order


def _candidates(step: Step, count: int) -> list[int]:
    """Return the most likely tokens of a step, the chosen one among them."""
    likeliest = _largest(step.before, count)
    return likeliest if step.chosen in likeliest else [*likeliest[:-1], step.chosen]


def _settled(tops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each position the first row from which on all equal the last, [positions].

    Args:
        tops: [rows, positions].
    """
    agreeing = np.cumprod((tops == tops[-1])[::-1], axis=0).sum(axis=0)
    rows: NDArray[np.int64] = len(tops) - agreeing
    return rows
