"""The samples of a request while they are computed: KV cache, sampler and tokens so far.

The prompt is prefilled once, in chunks, and all samples share its keys and values. Those of the samples' own tokens
follow in the same cache, step by step: a request's attention is one computation for all samples, in which each sees
the prompt and its own tokens. It depends neither on other requests nor on how far the other samples are.

A pass may compute several positions of each sample at once: its newest token and the tokens that `drafting` guessed
to follow. Each position attends by itself, with the same arithmetic as if it were computed alone.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from bot.gpt2.local.runner import PREFILL_CHUNK, Sequences
from bot.gpt2.local.sampling import Sampler
from bot.gpt2.local.sharing import run_all
from bot.gpt2.model.attention import (
    LENGTH_STEP,
    attend,
    causal_attention,
    make_spans,
    query_scales,
)
from bot.gpt2.model.shapes import position_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from transformers import GPT2Config

    from bot.gpt2.model.attention import Span
    from bot.gpt2.model.draft_model import DraftModel
    from bot.gpt2.model.transformer import Attend, Transformer
    from bot.gpt2.requests import ContinuationRequest

MAX_LEAD: Final = 16
"""Tokens by which a sample may be ahead of another of its request, whose random numbers wait in memory meanwhile."""

_JOINED_PLACES: Final = 512
"""Of several requests, read by one pass of the drafting model: to join more takes longer than another pass."""

Views = list[tuple[tuple[torch.Tensor, torch.Tensor], ...]]
"""Keys and values of each layer, for each span of positions: [1, heads, positions, size] each."""


class DraftInputs(NamedTuple):
    """A group's rows for a pass of the drafting model; see `DraftModel`."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    past: NDArray[np.float32]
    seen: NDArray[np.bool_]


class SequenceGroup(Sequences):
    """The sequences of one request, which share its prompt (vLLM's term).

    A pass calls `next_inputs` for the rows to compute, `attend` for them in every layer, `select_for_logits` for the
    rows whose logits are needed, and `accept` or `guess` with those. Only these two change what a later pass does, so
    a failed pass can be repeated.

    Attributes:
        cache_bytes: Size of the KV cache.
        drafts: The tokens guessed to follow each active sample's, equally many.
    """

    def __init__(
        self,
        transformer: Transformer,
        prompt_ids: Sequence[int],
        request: ContinuationRequest,
        end_tokens: Collection[int],
    ) -> None:
        super().__init__(len(prompt_ids), request)
        config, device = transformer.config, transformer.device
        self.cache_bytes = cache_bytes(config, len(prompt_ids), request)
        self.drafts: list[list[int]] = [[] for _ in range(request.params.rows)]
        self._end_tokens = end_tokens
        self._device = device
        self._prompt = torch.tensor(prompt_ids, device=device)
        self._heads = config.n_head
        self._scales = query_scales(config)
        self._sampler = Sampler(request, config.vocab_size, device)
        self._cache = Cache(config, len(prompt_ids) + request.params.rows * request.params.length, device)
        # Of the current pass: prompt positions; then the places of the samples' rows and what they see of the cache.
        self._chunk = 0
        self._places = torch.empty(0)
        self._spans: list[Span] = []
        self._views: Views = []

    @property
    def rows(self) -> int:
        """Rows in a pass without drafts once the prompt is prefilled."""
        return len(self._active)

    @property
    def next_rows(self) -> int:
        """Rows in the next pass, with those of the drafts."""
        return self.next_chunk or self.rows * (len(self.drafts[0]) + 1)

    def release(self) -> None:
        """Free the KV cache, hundreds of megabytes for a large request; the tokens stay."""
        self._cache.release()
        self._views = []

    def next_inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and positions of the next rows, each int64 [rows].

        Once the prompt is prefilled, these are the newest token of an active sample and its drafts, then those of
        the next sample.
        """
        begin = self.prefilled
        if self.prefilling:
            tokens = self._prompt[begin : begin + PREFILL_CHUNK]
            self._chunk = len(tokens)
            self._views = self._cache.views([(0, begin + len(tokens))])
            return tokens, torch.arange(begin, begin + len(tokens), device=self._device)
        tokens = torch.tensor([[self.tokens[s][-1], *drafts] for s, drafts in self._drafted()])
        positions = self._newest_positions()[:, None] + np.arange(tokens.shape[1])
        positions, seen = self._locate(positions)
        self._spans = make_spans(torch.from_numpy(seen).to(self._device), begin)
        self._views = self._cache.views((span.begin, span.end) for span in self._spans)
        return tokens.flatten().to(self._device), torch.from_numpy(positions).to(self._device)

    def next_draft_inputs(self) -> DraftInputs:
        """Return the last draft of each active sample, or its last token without one, and what it sees."""
        newest = [(drafts or self.tokens[sample])[-1] for sample, drafts in self._drafted()]
        positions, seen = self._locate(self._newest_positions()[:, None] + len(self.drafts[0]))
        seen[np.arange(len(seen)), self._places.numpy()] = False  # not yet in the cache
        return DraftInputs(np.array(newest), positions, self._cache.until(seen.shape[1]), seen)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Store keys and values and return the heads' outputs, for the rows of the last `next_inputs`.

        Args:
            layer: From 0.
            qkv: Queries, keys and values side by side, [rows, 3d].

        Returns:
            [rows, d].
        """
        width = qkv.shape[1] // 3
        queries, keys_values = qkv[:, :width].view(len(qkv), self._heads, -1), qkv[:, width:]
        if self.prefilling:
            return self._attend_in_prompt(layer, queries, keys_values).flatten(1)
        self._cache.store(layer, self._places, keys_values)
        return attend(queries, self._views[layer], self._spans, self._scales[layer]).flatten(1)

    def select_for_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the rows of the last `next_inputs` whose logits are needed: none, the prompt's last, or all."""
        if not self.prefilling:
            return hidden
        last_chunk = self.prefilled + self._chunk == len(self._prompt)
        return hidden[-1:] if last_chunk else hidden[:0]

    def guess(self, logits: torch.Tensor, keys_values: NDArray[np.float32]) -> None:
        """End a pass of the drafting model: append a draft to every active sample.

        Args:
            logits: float32 [rows, vocabulary].
            keys_values: Of the rows, [layers, 2, rows, d].
        """
        self._cache.store_all(self._places, keys_values)
        steps = [len(self.tokens[sample]) + len(self.drafts[0]) for sample in self._active]
        for drafts, token in zip(self.drafts, self._sampler.next_tokens(logits, self._active, steps), strict=True):
            drafts.append(token)

    def accept(self, logits: torch.Tensor) -> tuple[int, int]:
        """End the pass: append a token to every active sample, once the prompt is prefilled.

        A sample whose token is its first draft goes on with the next logits, and so on.

        Args:
            logits: float32 [rows, vocabulary], of the rows that `select_for_logits` returned.

        Returns:
            How many drafts were compared with a token, and how many equalled it.
        """
        drawn = self._drawn(logits) if len(logits) else []
        if self.prefilling:  # only now, since drawing may fail and be repeated
            self.prefilled += self._chunk
        return self._append(drawn) if drawn else (0, 0)

    def _drawn(self, logits: torch.Tensor) -> list[list[int]]:
        """Return the tokens of each active sample that follow if its drafts are right."""
        depths = len(self.drafts[0]) + 1
        logits = logits.expand(depths * len(self._active), -1)  # after prefill one row serves all samples
        places = [(s, len(self.tokens[s]) + depth) for s in self._active for depth in range(depths)]
        drawn = self._sampler.next_tokens(logits, *zip(*places, strict=True))
        return [drawn[begin : begin + depths] for begin in range(0, len(drawn), depths)]

    def _append(self, drawn: Sequence[list[int]]) -> tuple[int, int]:
        """Append each active sample's tokens as far as its drafts are right, and the one that follows; see `accept`."""
        limit = min(min(len(self.tokens[s]) for s in self._active) + MAX_LEAD, self.request.params.length)
        compared = equal = 0
        for (sample, drafts), following in zip(self._drafted(), drawn, strict=True):
            tokens = self.tokens[sample]
            given = following[: limit - len(tokens)]
            right = _common(given, drafts)
            tokens += _until(self._end_tokens, given[: right + 1])
            equal += right
            compared += min(right + 1, len(drafts), len(given))
        computed = self._active
        self._drop_ended(self._end_tokens)
        for sample in computed:
            steps = len(self.tokens[sample]) if sample in self._active else self.request.params.length
            self._sampler.forget(sample, steps)
        self.drafts = [[] for _ in self._active]
        return compared, equal

    def _drafted(self) -> Iterator[tuple[int, list[int]]]:
        """Yield every active sample with its drafts."""
        return zip(self._active, self.drafts, strict=True)

    def _newest_positions(self) -> NDArray[np.int64]:
        """Return the position of each active sample's newest token."""
        return np.array([self.prefilled + len(self.tokens[sample]) - 1 for sample in self._active])

    def _locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Note the places of the rows' keys and values.

        Args:
            positions: Of each active sample, int64 [active samples, n]. Beyond the full length nobody needs them, and
                the cache has no place.

        Returns:
            The rows' positions within the full length, int64 [rows], and which places each row sees, [rows, places].
        """
        prompt, samples = len(self._prompt), self.request.params.rows
        positions = np.minimum(positions, self.prefilled + self.request.params.length - 1)
        places = (prompt + (positions - prompt) * samples + np.array(self._active)[:, None]).ravel()
        self._places = torch.from_numpy(places).to(self._device)
        keys = np.arange(math.ceil((int(places.max()) + 1) / LENGTH_STEP) * LENGTH_STEP)
        back = places[:, None] - keys
        return positions.ravel(), (keys < prompt) | ((back >= 0) & (back % samples == 0))

    def _attend_in_prompt(self, layer: int, queries: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        """Attend for a chunk of the prompt, causally: [n, heads, size]."""
        begin, end = self.prefilled, self.prefilled + len(queries)
        self._cache.store(layer, torch.arange(begin, end, device=self._device), keys_values)
        keys, values = self._views[layer][0]
        scaled = (queries * self._scales[layer]).transpose(0, 1)
        return (causal_attention(scaled, keys[0].transpose(1, 2)) @ values[0]).transpose(0, 1)


class Cache:
    """Keys and values of a request: [layers, 2, places, d].

    The prompt's positions come first, then the samples' first tokens, then their second ones, and so on. A sample that
    has ended keeps its places, so that the others' do not move.
    """

    def __init__(self, config: GPT2Config, places: int, device: torch.device) -> None:
        # A few more may be read.
        shape: tuple[int, ...] = (config.n_layer, 2, places + LENGTH_STEP, config.n_embd)
        # NumPy's zeros take no memory before they are written to; torch.zeros writes them.
        self._memory = torch.from_numpy(np.zeros(shape, np.float32)).to(device)
        self._layers = self._memory.unbind()
        shape = (config.n_layer, 2, 1, places + LENGTH_STEP, config.n_head, config.n_embd // config.n_head)
        # [layers, 1, heads, places, size] each
        self._keys, self._values = self._memory.view(shape).transpose(3, 4).unbind(1)

    def store(self, layer: int, places: torch.Tensor, keys_values: torch.Tensor) -> None:
        """Write a layer's keys and values, side by side: [len(places), 2d]."""
        self._layers[layer].index_copy_(1, places, keys_values.view(len(places), 2, -1).transpose(0, 1))

    def store_all(self, places: torch.Tensor, keys_values: NDArray[np.float32]) -> None:
        """Write [layers, 2, len(places), d] to a cache on the CPU."""
        # NumPy needs no second thread, which OpenMP would keep awake beside the drafting model's.
        self._memory.numpy()[:, :, places.numpy()] = keys_values

    def views(self, spans: Iterable[tuple[int, int]]) -> Views:
        """Return the keys and values of each layer between these places."""
        parts = [
            zip(*(each[:, :, :, begin:end].unbind() for each in (self._keys, self._values)), strict=True)
            for begin, end in spans
        ]
        return list(zip(*parts, strict=True))

    def until(self, end: int) -> NDArray[np.float32]:
        """Return the first places of a cache on the CPU: [layers, 2, end, d]."""
        return self._memory.numpy()[:, :, :end]

    def release(self) -> None:
        """Free the memory."""
        self._memory = self._keys = self._values = torch.empty(0)
        self._layers = ()


@torch.inference_mode()
def advance(transformer: Transformer, groups: Sequence[SequenceGroup]) -> tuple[int, int]:
    """Run one forward pass for all groups: a chunk of the prompt for some, a token for each sample of the others.

    Drafts are computed along and accepted as far as they are right.

    Returns:
        How many drafts were compared with a token, and how many equalled it.

    Raises:
        FloatingPointError: A logit is not finite. No group has accepted any.
    """
    outcomes = run_all([partial(group.accept, logits) for group, logits in _forward(transformer, groups)])
    return sum(compared for compared, _ in outcomes), sum(equal for _, equal in outcomes)


@torch.inference_mode()
def draft(model: DraftModel, groups: Sequence[SequenceGroup]) -> None:
    """Run the drafting model, which appends a draft to each sample of groups that decode."""
    inputs = [group.next_draft_inputs() for group in groups]
    for part in _joined([each.seen.shape[1] for each in inputs]):
        own = inputs[part]
        logits, keys_values = model(*(own[0] if len(own) == 1 else _join(own)))
        ends = list(itertools.accumulate(len(each.tokens) for each in own))
        rows = [slice(*bounds) for bounds in itertools.pairwise([0, *ends])]
        calls = zip(groups[part], rows, strict=True)
        run_all([partial(group.guess, logits[each], keys_values[:, :, each]) for group, each in calls])


def _join(inputs: Sequence[DraftInputs]) -> DraftInputs:
    """Join the rows of several groups, each of which sees its own places only."""
    tokens, positions, pasts, seen = zip(*inputs, strict=True)
    together: torch.Tensor = torch.block_diag(*map(torch.from_numpy, seen))  # type: ignore[no-untyped-call]
    past = np.concatenate(pasts, axis=2)
    return DraftInputs(np.concatenate(tokens), np.concatenate(positions), past, together.numpy())


def _joined(places: Sequence[int]) -> Iterator[slice]:
    """Yield the consecutive groups, by the places that they read, which share a pass of the drafting model."""
    begin = total = 0
    for index, count in enumerate(places):
        if total and total + count > _JOINED_PLACES:
            yield slice(begin, index)
            begin, total = index, 0
        total += count
    yield slice(begin, len(places))


def _forward(transformer: Transformer, groups: Sequence[SequenceGroup]) -> Iterator[tuple[SequenceGroup, torch.Tensor]]:
    """Yield each group with the logits that it needs."""
    inputs = [group.next_inputs() for group in groups]
    sizes = [len(tokens) for tokens, _ in inputs]

    hidden = _hidden(transformer, inputs, [group.attend for group in groups])
    parts = torch.split(hidden, sizes)
    selected = [group.select_for_logits(part) for group, part in zip(groups, parts, strict=True)]
    rows = torch.cat(selected)
    logits = transformer.logits(rows) if len(rows) else rows
    check_finite(logits)
    return zip(groups, torch.split(logits, [len(each) for each in selected]), strict=True)


def _hidden(
    transformer: Transformer, inputs: Sequence[tuple[torch.Tensor, torch.Tensor]], attends: Sequence[Attend]
) -> torch.Tensor:
    """Compute the residual stream of several groups' rows, each of which attends by itself."""
    if len(inputs) == 1:
        return transformer.hidden(*inputs[0], attends[0])
    tokens, positions = (torch.cat(parts) for parts in zip(*inputs, strict=True))
    sizes = [len(part) for part, _ in inputs]

    def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
        return torch.cat([own(layer, part) for own, part in zip(attends, torch.split(qkv, sizes), strict=True)])

    return transformer.hidden(tokens, positions, attend)


def check_finite(values: torch.Tensor) -> None:
    """Refuse NaN and infinity, from which no token can be drawn.

    Raises:
        FloatingPointError: There is one.
    """
    # A sum takes a tenth of the time; it may overflow though every value is finite. NumPy's needs no second thread.
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.numpy().sum() if values.device.type == "cpu" else values.sum().item()
    if not math.isfinite(total) and not bool(values.isfinite().all()):
        raise FloatingPointError("the model computed values that are not finite")


def cache_bytes(config: GPT2Config, prompt_tokens: int, request: ContinuationRequest) -> int:
    """Return the size of a request's KV cache: the prompt's once, that of the new tokens for each sample."""
    positions = prompt_tokens + request.params.rows * request.params.length
    return positions * position_bytes(config)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common beginning."""
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in equal)


def _until(ends: Collection[int], tokens: list[int]) -> list[int]:
    """Return the tokens up to the first of `ends` and with it."""
    return next((tokens[: index + 1] for index, token in enumerate(tokens) if token in ends), tokens)
