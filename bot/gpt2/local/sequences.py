"""One request while it is computed: its cache of keys and values, its sampler, its tokens so far.

The prompt is computed once, in chunks, and its keys and values are shared by all samples; each of several keeps its own
for the tokens it adds. Attention is computed for each request by itself and over its true length, so that its result
depends on no other request and on no padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from bot.gpt2.local.sampling import Sampler
from bot.gpt2.model.attention import causal_shares, query_scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import GPT2Config

    from bot.gpt2.model.transformer import Transformer
    from bot.gpt2.requests import ContinuationRequest

PREFILL_CHUNK: Final = 64
"""Positions of a prompt computed in one pass: enough to be efficient, few enough not to stall who is writing."""

_FLOAT32_BYTES: Final = 4


class Generation:
    """The samples of one request, from the prompt's first position to the last token.

    `feed` gives the next rows to compute, `attend` is called for them in every layer, `wanted` says of which the logits
    are needed, and `accept` takes those. Until `accept`, nothing has happened: a pass that fails can be made again.
    """

    def __init__(
        self, transformer: Transformer, prompt_ids: Sequence[int], request: ContinuationRequest, end_of_text: int
    ) -> None:
        config, device = transformer.config, transformer.device
        layers, heads, size = config.n_layer, config.n_head, config.n_embd // config.n_head
        self.cache_bytes = cache_bytes(config, len(prompt_ids), request)
        self.request = request
        self.tokens: list[list[int]] = [[] for _ in range(request.params.rows)]
        self._end_of_text = end_of_text
        self._device = device
        self._prompt = torch.tensor(prompt_ids, device=device)
        self._heads = heads
        self._scales = query_scales(config)
        self._sampler = Sampler(request, config.vocab_size, device)
        self._going_on = list(range(request.params.rows))  # rows that have not ended
        self._prefilled = 0  # positions of the prompt whose keys and values are there
        self._fed = 0  # positions being computed
        self._drawing = False
        prompt, tail = len(prompt_ids), request.params.length - 1  # the last token is never fed
        # A sample by itself shares the prompt with nobody: its tokens go on where the prompt ends.
        self._alone = request.params.rows == 1
        if self._alone:
            prompt, tail = prompt + tail, 0
        self._prompt_keys = torch.empty(layers, heads, size, prompt, device=device)
        self._prompt_values = torch.empty(layers, heads, prompt, size, device=device)
        self._tail_keys = torch.empty(layers, request.params.rows, heads, size, tail, device=device)
        self._tail_values = torch.empty(layers, request.params.rows, heads, tail, size, device=device)

    @property
    def done(self) -> bool:
        """Whether every sample has ended or has its full length."""
        return not self._going_on or len(self.tokens[self._going_on[0]]) == self.request.params.length

    @property
    def rows(self) -> int:
        """How many rows it takes of a pass once its prompt is computed."""
        return len(self._going_on)

    @property
    def next_chunk(self) -> int:
        """Positions of the prompt that the next pass computes; 0 once it is there."""
        return min(PREFILL_CHUNK, self.prompt_left)

    @property
    def prompt_left(self) -> int:
        """Positions of the prompt that are not computed yet."""
        return len(self._prompt) - self._prefilled

    @property
    def prefilling(self) -> bool:
        """Whether the prompt is not computed yet."""
        return self._prefilled < len(self._prompt)

    def release(self) -> None:
        """Give back the cache, hundreds of megabytes for a large request; the tokens stay."""
        nothing = torch.empty(0)
        self._prompt_keys = self._prompt_values = self._tail_keys = self._tail_values = nothing

    def feed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and positions of the next rows, each int64 [rows].

        Raises:
            RuntimeError: A draw failed half-way; what came after it would not be what the seed gives.
        """
        if self._drawing:
            raise RuntimeError("the last draw was not finished")
        if self.prefilling:
            begin = self._prefilled
            tokens = self._prompt[begin : begin + PREFILL_CHUNK]
            self._fed = len(tokens)
            return tokens, torch.arange(begin, begin + len(tokens), device=self._device)
        last = torch.tensor([self.tokens[row][-1] for row in self._going_on], device=self._device)
        return last, torch.full_like(last, len(self._prompt) + self._written)

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """What each head reads, for the rows of the last `feed`.

        Args:
            layer: From 0.
            qkv: Queries, keys and values side by side, [rows, 3d].

        Returns:
            [rows, d].
        """
        queries, keys, values = (part.reshape(len(qkv), self._heads, -1) for part in qkv.chunk(3, dim=1))
        queries = queries * self._scales[layer]
        read = self._attend_in_prompt if self.prefilling or self._alone else self._attend_in_tail
        return read(layer, queries, keys, values).flatten(1)

    def wanted(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the rows of the last `feed`, those whose logits are wanted: none, the prompt's last, or all."""
        if not self.prefilling:
            return hidden
        whole = self._prefilled + self._fed == len(self._prompt)
        return hidden[-1:] if whole else hidden[:0]

    def accept(self, logits: torch.Tensor) -> None:
        """End the pass: add a token to every sample that goes on, once the prompt is there.

        Args:
            logits: float32 [0, 1 or rows, vocabulary], of the rows that `wanted` chose.
        """
        if self.prefilling:
            self._prefilled += self._fed
        if not len(logits):
            return
        self._drawing = True
        logits = logits.expand(len(self._going_on), -1)  # after the prompt one row stands for all
        for row, token in zip(self._going_on, self._sampler.next_tokens(logits, self._going_on), strict=True):
            self.tokens[row].append(token)
        self._drop_ended()
        self._drawing = False

    @property
    def _written(self) -> int:
        """Tokens of each sample whose keys and values are in the tail: all but the last."""
        return len(self.tokens[self._going_on[0]]) - 1

    def _drop_ended(self) -> None:
        kept = [index for index, row in enumerate(self._going_on) if self.tokens[row][-1] != self._end_of_text]
        if len(kept) == len(self._going_on):
            return
        self._going_on = [self._going_on[index] for index in kept]
        self._tail_keys = self._tail_keys[:, kept]
        self._tail_values = self._tail_values[:, kept]

    def _attend_in_prompt(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """A chunk of the prompt, or the newest token of a sample by itself: [n, heads, size] each, causal."""
        begin = self._prefilled if self.prefilling else self._prefilled + self._written
        end = begin + len(queries)
        self._prompt_keys[layer, :, :, begin:end] = keys.permute(1, 2, 0)
        self._prompt_values[layer, :, begin:end] = values.transpose(0, 1)
        shares = causal_shares(queries.transpose(0, 1), self._prompt_keys[layer, :, :, :end])
        return (shares @ self._prompt_values[layer, :, :end]).transpose(0, 1)

    def _attend_in_tail(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """The newest token of each sample: [rows, heads, size] each, over the prompt and the sample's own tokens."""
        now, prompt = self._written, self._prompt_values.shape[2]
        self._tail_keys[layer, ..., now] = keys
        self._tail_values[layer, :, :, now] = values
        own_keys = self._tail_keys[layer, ..., : now + 1]  # [rows, heads, size, t]
        own_values = self._tail_values[layer, :, :, : now + 1]  # [rows, heads, t, size]
        shared = (queries.transpose(0, 1) @ self._prompt_keys[layer]).transpose(0, 1)  # [rows, heads, prompt]
        own = (queries.unsqueeze(2) @ own_keys).squeeze(2)  # [rows, heads, t]
        shares = torch.cat([shared, own], dim=-1).softmax(dim=-1)
        from_prompt = shares[..., :prompt].transpose(0, 1) @ self._prompt_values[layer]  # [heads, rows, size]
        from_own = (shares[..., prompt:].unsqueeze(2) @ own_values).squeeze(2)
        return from_prompt.transpose(0, 1) + from_own


@torch.inference_mode()
def advance(transformer: Transformer, generations: Sequence[Generation]) -> None:
    """One pass of the model for all: a chunk of the prompt for some, a token for each sample of the others."""
    fed = [generation.feed() for generation in generations]
    sizes = [len(tokens) for tokens, _ in fed]

    def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
        parts = torch.split(qkv, sizes)
        return torch.cat([generation.attend(layer, part) for generation, part in zip(generations, parts, strict=True)])

    hidden = transformer.hidden(
        torch.cat([tokens for tokens, _ in fed]), torch.cat([positions for _, positions in fed]), attend
    )
    wanted = [generation.wanted(part) for generation, part in zip(generations, torch.split(hidden, sizes), strict=True)]
    rows = torch.cat(wanted)
    logits = transformer.logits(rows) if len(rows) else rows
    for generation, part in zip(generations, torch.split(logits, [len(each) for each in wanted]), strict=True):
        generation.accept(part)


def cache_bytes(config: GPT2Config, prompt_tokens: int, request: ContinuationRequest) -> int:
    """What the keys and values of a request take: the prompt's once, those of the new tokens for each sample."""
    positions = prompt_tokens + request.params.rows * (request.params.length - 1)
    return 2 * config.n_layer * config.n_embd * positions * _FLOAT32_BYTES
