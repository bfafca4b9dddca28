"""Programs that reproduce the bot's answers on the reader's machine, with Transformers and matplotlib.

Each function takes a request and returns the source text of a complete program. User text becomes a string literal
that shows every character that could mislead. Nothing here knows of Discord or torch.
"""

from __future__ import annotations

from bot.programs.insides import (
    ablation,
    attention_grid,
    attention_head,
    compare,
    induction,
    insights,
    lens,
    next_tokens,
    surprise,
    token_split,
)
from bot.programs.models import model_comparison
from bot.programs.samples import continuation
from bot.programs.weights import (
    attention_heads,
    attention_slice,
    matrix,
    parameters,
    positional_heatmap,
    positional_helix,
    positional_lines,
    positional_similarity,
)
from bot.programs.writing import writing

__all__ = [
    "ablation",
    "attention_grid",
    "attention_head",
    "attention_heads",
    "attention_slice",
    "compare",
    "continuation",
    "induction",
    "insights",
    "lens",
    "matrix",
    "model_comparison",
    "next_tokens",
    "parameters",
    "positional_heatmap",
    "positional_helix",
    "positional_lines",
    "positional_similarity",
    "surprise",
    "token_split",
    "writing",
]
