"""An estimate of the memory that a model takes, from its files, before it is loaded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bot.gpt2.local.eager import CACHE_BYTES
from bot.gpt2.local.scheduler import MAX_ROWS
from bot.gpt2.model import files
from bot.gpt2.model.loading import EMBEDDING, OUTPUT, read_config
from bot.gpt2.model.shapes import position_bytes, state_dict_shapes

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from bot.config import Draft, Precision


def footprint(
    name: str,
    *,
    precision: Precision = "float32",
    draft: Draft = "auto",
    cache: Path | None = None,
    stopped: threading.Event | None = None,
) -> int:
    """Estimate the bytes of the model called `name`; download it first if it is on the hub.

    Its weights, its token embedding once more where it is not read from the output matrix, the copy that drafts
    tokens, and the largest KV caches.

    Raises:
        ModelInvalidError: There is no such model, or its config cannot be used.
        UnreachableError: The hub is unreachable and the files are not in the cache.
    """
    config = read_config(files.locate(name, cache, stopped))
    sizes = {entry: math.prod(shape) for entry, shape in state_dict_shapes(config).items() if entry != OUTPUT}
    values, exact = sum(sizes.values()), precision == "float32"
    drafting = values * 9 // 8 if draft == "auto" and exact else 0  # a byte a value, and scales
    caches: int = min(CACHE_BYTES, MAX_ROWS * config.n_positions * position_bytes(config))
    # Read from the output matrix, unless oneDNN does not pack it; that is tested by a thread that computes only.
    embedding = 0 if exact and config.tie_word_embeddings else 4 * sizes[EMBEDDING]
    return values * (4 if exact else 2) + embedding + drafting + caches
