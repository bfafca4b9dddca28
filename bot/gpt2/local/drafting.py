"""Speculative drafting: a cheap copy of the model guesses tokens, and one exact pass checks several of them.

A pass for one sample takes as long as reading all weights, and about as long for six rows. So an int8 copy, which
reads a quarter, guesses the next k tokens one after another, and the model computes all k + 1 positions in one pass
(Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding").

Here no rejection sampling is needed. The random numbers of every step depend on the seed alone, so the copy draws with
the very numbers that the model will draw with, and mostly gets the same token. The model draws from its own logits at
each position; as long as its token is the draft, the next position was computed from the right text and counts too.
A row has the same bits whatever rows are beside it (`linear`, `attention`), so this gives exactly the tokens of one
pass a token. Drafts decide nothing but the time. Exact keys and values are written over theirs.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from bot.gpt2.local import calibration
from bot.gpt2.local.sequences import draft
from bot.gpt2.model.attention import span_length
from bot.gpt2.model.linear import packing_works, padded_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bot.gpt2.local.sequences import SequenceGroup
    from bot.gpt2.model.transformer import Transformer
    from bot.gpt2.throughput import Throughput

MAX_DRAFTS: Final = 7
"""Drafts of a sample in one pass: with its newest token they make eight rows."""

LIKELY: Final = 0.95
"""The share of right drafts that is assumed before any was compared."""

_MAX_ROWS: Final = 48  # in a pass with drafts: with more, every row costs as much as a token is worth
_KNOWN_ROWS: Final = (4, 6, 8, 12, 16, 24, _MAX_ROWS)  # oneDNN computes 6 at a time: 8 take a fifth longer than 6
_BETTER: Final = 1.02  # by which drafting must be expected to be faster to be used
_HORIZON: Final = 64  # tokens for which is planned: the last passes differ from the others
_WEIGHT: Final = 0.02  # of one compared draft in the running acceptance
_MEMORY_SECONDS: Final = 10.0  # for which a measured pace counts: the machine's load changes
_PACE_WEIGHT: Final = 0.3  # of the latest pass in the pace for its number of rows
_SLOWDOWN: Final = 1.5  # at which one pass counts: it may have stalled, or have been computed by fewer threads
_RECOVERY: Final = 0.002  # of the way back to `LIKELY` in each pass without drafts, so that they are tried again


log = structlog.get_logger(__name__)


def make_drafter(model: Transformer, exact: Throughput) -> Drafter | None:
    """Return a drafter for a model and its measured cost, or None where drafts would change tokens.

    Takes a second for GPT-2 small on two cores.
    """
    if model.device.type != "cpu" or model.precision != "float32":
        return None
    if not (packing_works() and span_length()):
        return None
    try:
        copy = model.quantized()
        cost = calibration.measure(lambda rows: calibration.compute(copy, rows))
        known = calibration.measure_each(lambda rows: calibration.compute(model, rows), _KNOWN_ROWS)
        return Drafter(copy, cost, exact, known)
    except RuntimeError as error:
        log.warning("cannot compute an int8 copy of the model; the engine does not draft", reason=str(error))
        return None


class Drafter:
    """Drafts for groups of sequences, as many as are likely to pay.

    Attributes:
        acceptance: Running share of the compared drafts that were right.
    """

    def __init__(
        self,
        model: Transformer,
        cost: Throughput,
        exact: Throughput,
        known: Mapping[int, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a drafter.

        Args:
            model: The int8 copy.
            cost: Its measured cost.
            exact: The model's own.
            known: Measured seconds of the model's passes by their rows, in ascending order.
            clock: A monotonic clock in seconds.
        """
        self.acceptance = LIKELY
        self._model = model
        self._cost = _Pace(cost, {}, clock)
        self._exact = _Pace(exact, known or {}, clock)

    def propose(self, groups: Sequence[SequenceGroup]) -> float:
        """Draft for the groups that decode.

        Returns:
            The seconds that it would have taken on an idle machine with all threads.
        """
        decoding = [group for group in groups if not group.prefilling]
        samples = sum(group.rows for group in decoding)
        prompt_rows = sum(group.next_chunk for group in groups)
        left = max((group.tokens_left for group in decoding), default=0)
        together = max((group.rows for group in decoding), default=0)
        depth = self._best_depth(samples, prompt_rows, left, together)
        if not depth:
            self.acceptance += _RECOVERY * (LIKELY - self.acceptance)
        for _ in range(depth):
            began = time.perf_counter()
            draft(self._model, decoding)
            self._cost.record(samples, time.perf_counter() - began)
        return depth * self._cost.baseline_seconds(samples)

    def record(self, rows: int, seconds: float, compared: int, equal: int) -> None:
        """Learn from an exact pass over `rows` rows: its duration, and how many of its drafts were right."""
        self._exact.record(padded_rows(rows), seconds)
        # Other load slows both models alike, and this one is measured when nothing is drafted, too.
        self._cost.scale = self._exact.scale
        if compared:
            self.acceptance += min(_WEIGHT * compared, 1.0) * (equal / compared - self.acceptance)

    def _best_depth(self, samples: int, prompt_rows: int, left: int, together: int) -> int:
        """Return the number of drafts of each sample in the next pass with which the last token is expected first.

        Args:
            samples: How many decode.
            prompt_rows: Prompt positions in the pass.
            left: The most tokens that a sample lacks.
            together: The most samples of one request.
        """
        deepest = min(MAX_DRAFTS, (_MAX_ROWS - prompt_rows) // samples - 1, left - 1) if samples else 0
        if deepest < 1:
            return 0
        seconds = [
            depth * self._cost.seconds(samples) + self._exact.seconds(padded_rows(prompt_rows + samples * (depth + 1)))
            for depth in range(deepest + 1)
        ]
        left = min(left, _HORIZON)
        depth, expected = _plan(seconds, left, self._acceptance_together(together, left))
        return depth if _BETTER * expected < left * seconds[0] else 0

    def _acceptance_together(self, samples: int, left: int) -> float:
        """Return the share of right drafts for which a request of several samples takes as long as one sample.

        It waits for the sample with the most wrong drafts: of n samples, each with a mean of m, about m + √(2m·ln n).
        But then few others are left, so that the passes it waits for take half as long.
        """
        wrong = 1.0 - self.acceptance
        return max(1.0 - wrong - math.sqrt(2 * wrong * math.log(samples) / left) / 2, 0.0)


def _plan(seconds: Sequence[float], left: int, acceptance: float) -> tuple[int, float]:
    """Return the number of drafts for the next pass of a sample, and the seconds expected until its end.

    Args:
        seconds: The duration of a pass by its number of drafts, and of drafting them.
        left: The tokens that the sample lacks, at least one.
        acceptance: The probability that a draft is right.
    """
    plans = [(0, 0.0)]  # by tokens left
    for tokens in range(1, left + 1):
        best, least = 0, math.inf
        wrong, reached = 0.0, 1.0  # the time after passes whose drafts fail earlier, and the probability of the others
        for depth in range(min(len(seconds), tokens)):
            expected = seconds[depth] + wrong + reached * plans[tokens - depth - 1][1]
            if expected < least:
                best, least = depth, expected
            wrong += reached * (1.0 - acceptance) * plans[tokens - depth - 1][1]
            reached *= acceptance
        plans.append((best, least))
    return plans[left]


class _Pace:
    """The duration of a pass by its number of rows: as lately measured, or else as measured at the start.

    A linear model alone would not do: with more rows, or fewer threads, arithmetic takes over from memory.
    """

    def __init__(self, model: Throughput, known: Mapping[int, float], clock: Callable[[], float]) -> None:
        self.scale = 1.0  # of what was measured at the start, by the latest passes
        self._model = model
        self._known = list(known), list(known.values())
        self._clock = clock
        self._measured: dict[int, tuple[float, float]] = {}  # by rows: seconds, and when they were measured

    def baseline_seconds(self, rows: int) -> float:
        """Return the duration on an idle machine with all threads."""
        numbers, seconds = self._known
        if numbers and rows <= numbers[-1]:
            return float(np.interp(rows, numbers, seconds))
        return self._model.baseline_seconds(rows)

    def seconds(self, rows: int) -> float:
        """Return the expected duration."""
        seconds, measured_at = self._measured.get(rows, (0.0, -math.inf))
        recent = self._clock() - measured_at < _MEMORY_SECONDS
        return seconds if recent else self.scale * self.baseline_seconds(rows)

    def record(self, rows: int, seconds: float) -> None:
        """Learn from a pass."""
        before = self.seconds(rows)
        seconds = min(seconds, _SLOWDOWN * before)
        self._measured[rows] = (before + _PACE_WEIGHT * (seconds - before), self._clock())
        self.scale += _PACE_WEIGHT * (seconds / self.baseline_seconds(rows) - self.scale)
