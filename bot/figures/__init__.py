"""Pictures of weights and of a model's activations: arrays in, PNG out.

Each family of pictures is one function of arrays and their origin (a parameter's name and slice, or a text's tokens as
bytes). It returns a `Picture`: an opaque PNG, alt text made from the numbers, and a caption with the colour scale, the
clipping and the true extremes. The functions are pure and draw on their own `Figure`; a `Renderer` runs them on its one
thread and caches pictures. Nothing here knows of Discord, torch or requests.
"""

from __future__ import annotations

from bot.figures import defaults  # noqa: F401 # imported first, for its effect on matplotlib
from bot.figures.ablation import ablation
from bot.figures.attention import attention_slice
from bot.figures.attention_grid import attention_grid
from bot.figures.attention_head import attention_head
from bot.figures.attention_maps import MAX_HEAD_TOKENS, Notable, Sink, strongest_heads
from bot.figures.comparison import compare
from bot.figures.disk_cache import DiskCache
from bot.figures.drawing.picture import Drawing, Picture, Style
from bot.figures.drawing.tokens import token_label
from bot.figures.induction import induction
from bot.figures.insights import insights
from bot.figures.lens import lens
from bot.figures.lines import positional_lines
from bot.figures.model_comparison import compare_models
from bot.figures.next_tokens import next_tokens
from bot.figures.positional import positional_heatmap
from bot.figures.positional_geometry import positional_helix, positional_similarity
from bot.figures.qkv import attention_heads
from bot.figures.renderer import Renderer
from bot.figures.surprise import surprise
from bot.figures.token_split import token_split
from bot.figures.vectors import vector
from bot.figures.weights import matrix
from bot.figures.writing import writing

__all__ = [
    "MAX_HEAD_TOKENS",
    "DiskCache",
    "Drawing",
    "Notable",
    "Picture",
    "Renderer",
    "Sink",
    "Style",
    "ablation",
    "attention_grid",
    "attention_head",
    "attention_heads",
    "attention_slice",
    "compare",
    "compare_models",
    "induction",
    "insights",
    "lens",
    "matrix",
    "next_tokens",
    "positional_heatmap",
    "positional_helix",
    "positional_lines",
    "positional_similarity",
    "strongest_heads",
    "surprise",
    "token_label",
    "token_split",
    "vector",
    "writing",
]
