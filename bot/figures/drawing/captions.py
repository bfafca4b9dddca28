"""Sentences that several captions share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing.wording import by, number
from bot.text import Text, say

if TYPE_CHECKING:
    from bot.figures.drawing.picture import Slice
    from bot.figures.drawing.summary import Summary


def origin(part: Slice) -> Text:
    """Name the parameter, the slice shown of it, its shape and its type."""
    if (len(part.rows), len(part.columns)) == part.shape:
        return say(
            "{name}: the whole matrix, {shape}, {dtype}.",
            name=part.name,
            shape=by(*part.shape),
            dtype=part.dtype,
        )
    return say(
        "{name}{bracket}: {shown} of a matrix of {shape}, {dtype}.",
        name=part.name,
        bracket=part.bracket,
        shown=by(len(part.rows), len(part.columns)),
        shape=by(*part.shape),
        dtype=part.dtype,
    )


def value_range(summary: Summary) -> Text:
    """Return the range of the values."""
    if np.isnan(summary.low):
        return say("no finite value")
    if summary.is_constant:
        return say("all {value}", value=number(summary.low))
    return say("from {low} to {high}", low=number(summary.low), high=number(summary.high))


def extremes(summary: Summary, low_at: Text, high_at: Text) -> Text:
    """Return the true extremes with their places."""
    if np.isnan(summary.low) or summary.is_constant:
        return say("Values: {reach}.", reach=value_range(summary))
    return say(
        "Values: from {low} ({low_at}) to {high} ({high_at}).",
        low=number(summary.low),
        low_at=low_at,
        high=number(summary.high),
        high_at=high_at,
    )


def missing(summary: Summary, drawn: Text) -> tuple[Text, ...]:
    """Count the values that are NaN or infinite, if any; `drawn` says how they are drawn."""
    if not summary.missing:
        return ()
    return (
        say(
            "NaN or infinite, {drawn}: {missing} of {size} values.",
            drawn=drawn,
            missing=summary.missing,
            size=summary.size,
        ),
    )
