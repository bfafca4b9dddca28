"""Scores computed from arrays: the behaviours of heads, the similarity of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def head_scores(weights: NDArray[np.float32], ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """Score each head for several known behaviours, averaged over the tokens where each can occur.

    The first token can attend only to itself and is excluded.

    Args:
        weights: [layers, heads, tokens, tokens].
        ids: The tokens.

    Returns:
        [layers, heads] each, NaN if it can occur nowhere. "previous": attention on the previous token. "first": on the
        first token, the sink. "same": on the token itself. "induction": on the token after the latest earlier
        occurrence of the current one.
    """
    cells: dict[str, list[tuple[int, int]]] = {"previous": [], "first": [], "same": [], "induction": []}
    after_latest: dict[int, int] = {}
    for now, token in enumerate(ids):
        if now:
            cells["previous"].append((now, now - 1))
            cells["first"].append((now, 0))
            cells["same"].append((now, now))
        if after_latest.get(token, now) < now:
            cells["induction"].append((now, after_latest[token]))
        after_latest[token] = now + 1
    return {name: _mean_attention(weights, places) for name, places in cells.items()}


def similarity(samples: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Compute the Jaccard similarity of the token sets of each two samples: [samples, samples]."""
    sets = [set(sample) for sample in samples]
    shares = [[len(one & other) / len(one | other) if one | other else math.nan for other in sets] for one in sets]
    return np.array(shares, dtype=np.float32)


def _mean_attention(weights: NDArray[np.float32], cells: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Average over some cells, each a row and a column: [layers, heads]; NaN without cells."""
    if not cells:
        return np.full(weights.shape[:2], math.nan, dtype=np.float32)
    rows, columns = zip(*cells, strict=True)
    mean: NDArray[np.float32] = weights[:, :, rows, columns].mean(axis=-1)
    return mean
