"""Reading a text through the model a chunk at a time, with everything in sight that happens on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from bot.gpt2.model.attention import causal_shares, query_scales

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot.gpt2.model.transformer import Transformer


class Stage(NamedTuple):
    """The state of the positions of a chunk after the embeddings or after one block."""

    residual: torch.Tensor  # float32 [rows, d]
    shares: torch.Tensor  # float32 [heads, rows, positions read]: that block's attention; empty after the embeddings


class Reading:
    """The keys and values of one text, as far as it was read."""

    def __init__(self, transformer: Transformer, positions: int) -> None:
        """Make room for so many positions."""
        config, device = transformer.config, transformer.device
        layers, heads, size = config.n_layer, config.n_head, config.n_embd // config.n_head
        self.position = 0
        """Positions read. Set it back to read on from there in another way: what came after is forgotten."""
        self._transformer = transformer
        self._heads = heads
        self._scales = query_scales(config)
        self._keys = torch.empty(layers, heads, size, positions, device=device)
        self._values = torch.empty(layers, heads, positions, size, device=device)

    @property
    def nothing(self) -> torch.Tensor:
        """The residual stream of no positions at all: [0, d]."""
        return torch.empty(0, self._transformer.config.n_embd, device=self._transformer.device)

    @torch.inference_mode()
    def stages(self, ids: Sequence[int]) -> Iterator[Stage]:
        """Read on: the stage after the embeddings, then one after each layer, computed as it is asked for.

        The chunk counts as read when the last stage has been taken.

        Args:
            ids: A chunk: the attention of one layer takes heads × chunk × positions in memory.
        """
        device, begin = self._transformer.device, self.position
        shares = torch.empty(0, device=device)

        def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            nonlocal shares
            read, shares = self._attend(layer, qkv)
            return read

        positions = torch.arange(begin, begin + len(ids), device=device)
        for residual in self._transformer.residuals(torch.tensor(ids, device=device), positions, attend):
            yield Stage(residual, shares)
        self.position = begin + len(ids)

    def _attend(self, layer: int, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the heads read, [rows, d], and their attention, [heads, rows, positions]."""
        begin, end = self.position, self.position + len(qkv)
        queries, keys, values = (part.reshape(len(qkv), self._heads, -1) for part in qkv.chunk(3, dim=1))
        self._keys[layer, :, :, begin:end] = keys.permute(1, 2, 0)
        self._values[layer, :, begin:end] = values.transpose(0, 1)
        shares = causal_shares((queries * self._scales[layer]).transpose(0, 1), self._keys[layer, :, :, :end])
        return (shares @ self._values[layer, :, :end]).transpose(0, 1).flatten(1), shares
