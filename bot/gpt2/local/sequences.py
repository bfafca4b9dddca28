"""The samples of a request while they are computed: KV cache, sampler and tokens so far.

The prompt is prefilled once, in chunks, and all samples share its keys and values; each keeps its own for the tokens
it adds. Attention is computed request by request over its true length, so that the result depends neither on other
requests nor on padding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from bot.gpt2.local.sampling import Sampler
from bot.gpt2.model.attention import causal_attention, query_scales

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from transformers import GPT2Config

    from bot.gpt2.model.transformer import Transformer
    from bot.gpt2.requests import ContinuationRequest

PREFILL_CHUNK: Final = 64
"""Prompt positions computed in one pass: enough to be efficient, few enough not to stall jobs that decode."""

_FLOAT32_BYTES: Final = 4


class SequenceGroup:
    """The sequences of one request, which share its prompt (vLLM's term).

    A pass calls `next_inputs` for the rows to compute, `attend` for them in every layer, `select_for_logits` for the
    rows whose logits are needed, and `accept` with those. Nothing changes until `accept`, so a failed pass can be
    repeated.

    Attributes:
        cache_bytes: Size of the KV cache.
        request: The accepted request.
        tokens: New tokens of each sample so far.
    """

    def __init__(
        self,
        transformer: Transformer,
        prompt_ids: Sequence[int],
        request: ContinuationRequest,
        end_tokens: Collection[int],
    ) -> None:
        config, device = transformer.config, transformer.device
        layers, heads, size = config.n_layer, config.n_head, config.n_embd // config.n_head
        self.cache_bytes = cache_bytes(config, len(prompt_ids), request)
        self.request = request
        self.tokens: list[list[int]] = [[] for _ in range(request.params.rows)]
        self._end_tokens = end_tokens
        self._device = device
        self._prompt = torch.tensor(prompt_ids, device=device)
        self._heads = heads
        self._scales = query_scales(config)
        self._sampler = Sampler(request, config.vocab_size, device)
        self._active = list(range(request.params.rows))  # samples that have not ended
        self._prefilled = 0  # prompt positions in the cache
        self._chunk = 0  # prompt positions in the current pass
        self._sampling = False
        prompt, tail = len(prompt_ids), request.params.length - 1  # the last token is never fed
        # A single sample shares its prompt with no other: its tokens go into the same cache.
        self._single = request.params.rows == 1
        if self._single:
            prompt, tail = prompt + tail, 0
        self._prompt_keys = torch.empty(layers, heads, size, prompt, device=device)
        self._prompt_values = torch.empty(layers, heads, prompt, size, device=device)
        self._tail_keys = torch.empty(layers, request.params.rows, heads, size, tail, device=device)
        self._tail_values = torch.empty(layers, request.params.rows, heads, tail, size, device=device)

    @property
    def done(self) -> bool:
        """Return whether every sample has ended or has its full length."""
        return not self._active or len(self.tokens[self._active[0]]) == self.request.params.length

    @property
    def rows(self) -> int:
        """Rows in a pass once the prompt is prefilled."""
        return len(self._active)

    @property
    def next_chunk(self) -> int:
        """Prompt positions in the next pass; 0 once the prompt is prefilled."""
        return min(PREFILL_CHUNK, self.prompt_left)

    @property
    def prompt_left(self) -> int:
        """Prompt positions that are not computed yet."""
        return len(self._prompt) - self._prefilled

    @property
    def prefilling(self) -> bool:
        """Return whether the prompt is not fully computed yet."""
        return self._prefilled < len(self._prompt)

    def release(self) -> None:
        """Free the KV cache, hundreds of megabytes for a large request; the tokens stay."""
        empty = torch.empty(0)
        self._prompt_keys = self._prompt_values = self._tail_keys = self._tail_values = empty

    def next_inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and positions of the next rows, each int64 [rows].

        Raises:
            RuntimeError: Sampling failed half-way; later tokens would not be those of the seed.
        """
        if self._sampling:
            raise RuntimeError("the last sampling step was not finished")
        if self.prefilling:
            begin = self._prefilled
            tokens = self._prompt[begin : begin + PREFILL_CHUNK]
            self._chunk = len(tokens)
            return tokens, torch.arange(begin, begin + len(tokens), device=self._device)
        last = torch.tensor([self.tokens[row][-1] for row in self._active], device=self._device)
        return last, torch.full_like(last, len(self._prompt) + self._cached)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Store keys and values and return the heads' outputs, for the rows of the last `next_inputs`.

        Args:
            layer: From 0.
            qkv: Queries, keys and values side by side, [rows, 3d].

        Returns:
            [rows, d].
        """
        queries, keys, values = (part.reshape(len(qkv), self._heads, -1) for part in qkv.chunk(3, dim=1))
        queries = queries * self._scales[layer]
        attend = self._attend_in_prompt if self.prefilling or self._single else self._attend_in_tail
        return attend(layer, queries, keys, values).flatten(1)

    def select_for_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the rows of the last `next_inputs` whose logits are needed: none, the prompt's last, or all."""
        if not self.prefilling:
            return hidden
        last_chunk = self._prefilled + self._chunk == len(self._prompt)
        return hidden[-1:] if last_chunk else hidden[:0]

    def accept(self, logits: torch.Tensor) -> None:
        """End the pass: append a token to every active sample, once the prompt is prefilled.

        Args:
            logits: float32 [0, 1 or rows, vocabulary], of the rows that `select_for_logits` returned.
        """
        if self.prefilling:
            self._prefilled += self._chunk
        if not len(logits):
            return
        self._sampling = True
        logits = logits.expand(len(self._active), -1)  # after prefill one row serves all samples
        for row, token in zip(self._active, self._sampler.next_tokens(logits, self._active), strict=True):
            self.tokens[row].append(token)
        self._drop_ended()
        self._sampling = False

    @property
    def _cached(self) -> int:
        """New tokens of each active sample that are in the cache: all but the last."""
        return len(self.tokens[self._active[0]]) - 1

    def _drop_ended(self) -> None:
        kept = [index for index, row in enumerate(self._active) if self.tokens[row][-1] not in self._end_tokens]
        if len(kept) == len(self._active):
            return
        self._active = [self._active[index] for index in kept]
        self._tail_keys = self._tail_keys[:, kept]
        self._tail_values = self._tail_values[:, kept]

    def _attend_in_prompt(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attend for a chunk of the prompt or the newest token of a single sample: [n, heads, size] each, causal."""
        begin = self._prefilled if self.prefilling else self._prefilled + self._cached
        end = begin + len(queries)
        self._prompt_keys[layer, :, :, begin:end] = keys.permute(1, 2, 0)
        self._prompt_values[layer, :, begin:end] = values.transpose(0, 1)
        attention = causal_attention(queries.transpose(0, 1), self._prompt_keys[layer, :, :, :end])
        return (attention @ self._prompt_values[layer, :, :end]).transpose(0, 1)

    def _attend_in_tail(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attend for the newest token of each sample, over prompt and own tokens: [rows, heads, size] each."""
        now, prompt = self._cached, self._prompt_values.shape[2]
        self._tail_keys[layer, ..., now] = keys
        self._tail_values[layer, :, :, now] = values
        own_keys = self._tail_keys[layer, ..., : now + 1]  # [rows, heads, size, t]
        own_values = self._tail_values[layer, :, :, : now + 1]  # [rows, heads, t, size]
        shared = (queries.transpose(0, 1) @ self._prompt_keys[layer]).transpose(0, 1)  # [rows, heads, prompt]
        own = (queries.unsqueeze(2) @ own_keys).squeeze(2)  # [rows, heads, t]
        attention = torch.cat([shared, own], dim=-1).softmax(dim=-1)
        from_prompt = attention[..., :prompt].transpose(0, 1) @ self._prompt_values[layer]  # [heads, rows, size]
        from_own = (attention[..., prompt:].unsqueeze(2) @ own_values).squeeze(2)
        return from_prompt.transpose(0, 1) + from_own


@torch.inference_mode()
def advance(transformer: Transformer, groups: Sequence[SequenceGroup]) -> None:
    """Run one forward pass for all groups: a chunk of the prompt for some, a token for each sample of the others.

    Raises:
        FloatingPointError: A logit is not finite. No group has accepted any.
    """
    inputs = [group.next_inputs() for group in groups]
    sizes = [len(tokens) for tokens, _ in inputs]

    def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
        parts = torch.split(qkv, sizes)
        return torch.cat([group.attend(layer, part) for group, part in zip(groups, parts, strict=True)])

    hidden = transformer.hidden(
        torch.cat([tokens for tokens, _ in inputs]), torch.cat([positions for _, positions in inputs]), attend
    )
    parts = torch.split(hidden, sizes)
    selected = [group.select_for_logits(part) for group, part in zip(groups, parts, strict=True)]
    rows = torch.cat(selected)
    logits = transformer.logits(rows) if len(rows) else rows
    check_finite(logits)
    for group, part in zip(groups, torch.split(logits, [len(each) for each in selected]), strict=True):
        group.accept(part)


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
    positions = prompt_tokens + request.params.rows * (request.params.length - 1)
    return 2 * config.n_layer * config.n_embd * positions * _FLOAT32_BYTES
