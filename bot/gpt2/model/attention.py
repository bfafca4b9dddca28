"""Causal self-attention: the arithmetic of Transformers' eager attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import GPT2Config


def causal_attention(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the attention weights of the last n positions of a text on all positions; each row sums to 1.

    Args:
        queries: Of the last n positions, scaled by `query_scales`: [heads, n, size].
        keys: Of all positions: [heads, size, positions].

    Returns:
        float32 [heads, n, positions], 0 for future positions.
    """
    scores = queries @ keys
    n, positions = scores.shape[1:]
    if n == 1:
        return scores.softmax(dim=-1)  # the last position has no future
    future = torch.ones(n, positions, dtype=torch.bool, device=scores.device).triu(positions - n + 1)
    return scores.masked_fill_(future, -math.inf).softmax(dim=-1)


def query_scales(config: GPT2Config) -> list[float]:
    """Return each layer's factor for its queries (GPT2Attention.scaling in Transformers)."""
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return [scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale for layer in range(config.n_layer)]
