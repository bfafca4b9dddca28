"""Residual streams and attention weights of a text, computed a chunk at a time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch

from bot.gpt2.model.attention import causal_attention, query_scales

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bot.gpt2.model.transformer import Transformer


class LayerActivations(NamedTuple):
    """Activations of a chunk's positions after the embeddings or after one block."""

    residual: torch.Tensor  # float32 [rows, d]
    attention: torch.Tensor  # float32 [heads, rows, positions so far], that block's; empty after the embeddings


class ActivationReader:
    """Reads one text through the model and holds its KV cache.

    Attributes:
        position: Positions read so far. Lower it to continue differently from there; later positions are discarded.
    """

    def __init__(self, transformer: Transformer, positions: int, silenced: Iterable[tuple[int, int]] = ()) -> None:
        """Allocate the KV cache for so many positions.

        Args:
            transformer: The model.
            positions: The length of the text.
            silenced: Layer and head, from 0, of heads whose outputs are zero.
        """
        config, device = transformer.config, transformer.device
        layers, heads, size = config.n_layer, config.n_head, config.n_embd // config.n_head
        self.position = 0
        self._transformer = transformer
        self._heads = heads
        self._scales = query_scales(config)
        self._silenced: dict[int, list[int]] = {}
        for layer, head in silenced:
            self._silenced.setdefault(layer, []).append(head)
        self._keys = torch.empty(layers, heads, size, positions, device=device)
        self._values = torch.empty(layers, heads, positions, size, device=device)

    @property
    def empty_residual(self) -> torch.Tensor:
        """The residual stream of no positions: [0, d]."""
        return torch.empty(0, self._transformer.config.n_embd, device=self._transformer.device)

    @torch.inference_mode()
    def layers(self, ids: Sequence[int], *, depth: int | None = None) -> Iterator[LayerActivations]:
        """Yield the activations after the embeddings, then after each layer; each is computed on demand.

        The chunk counts as read once the last activations have been taken.

        Args:
            ids: The next tokens. The attention of one layer takes heads × chunk × positions in memory.
            depth: How many layers to compute, the same for all chunks of a text; all if None.
        """
        device, begin = self._transformer.device, self.position
        attention = torch.empty(0, device=device)

        def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            nonlocal attention
            output, attention = self._attend(layer, qkv)
            return output

        positions = torch.arange(begin, begin + len(ids), device=device)
        residuals = self._transformer.residuals(torch.tensor(ids, device=device), positions, attend)
        for residual in itertools.islice(residuals, None if depth is None else depth + 1):
            yield LayerActivations(residual, attention)
        self.position = begin + len(ids)

    def _attend(self, layer: int, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the heads' outputs, [rows, d], and their attention weights, [heads, rows, positions]."""
        begin, end = self.position, self.position + len(qkv)
        queries, keys, values = (part.reshape(len(qkv), self._heads, -1) for part in qkv.chunk(3, dim=1))
        self._keys[layer, :, :, begin:end] = keys.permute(1, 2, 0)
        self._values[layer, :, begin:end] = values.transpose(0, 1)
        attention = causal_attention((queries * self._scales[layer]).transpose(0, 1), self._keys[layer, :, :, :end])
        outputs = attention @ self._values[layer, :, :end]
        if layer in self._silenced:
            outputs[self._silenced[layer]] = 0
        return outputs.transpose(0, 1).flatten(1), attention
