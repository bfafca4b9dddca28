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
import torch

from bot.gpt2.local.sequences import draft
from bot.gpt2.model.attention import span_length
from bot.gpt2.model.linear import packing_works, padded_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import GPT2Config

    from bot.gpt2.local.sequences import SequenceGroup
    from bot.gpt2.model.draft_model import DraftModel
    from bot.gpt2.model.transformer import Transformer

    Cost = Callable[[int], float]
    """The seconds of a pass by its rows, on an idle machine with all threads."""

MAX_DRAFTS: Final = 7
"""Drafts of a sample in one pass: with its newest token they make eight rows."""

LIKELY: Final = 0.95
"""The share of right drafts that is assumed before any was compared."""

_MAX_ROWS: Final = 48  # in a pass with drafts: with more, every row costs as much as a token is worth
_BETTER: Final = 1.02  # by which drafting must be expected to be faster to be used
_HORIZON: Final = 64  # tokens for which is planned: the last passes differ from the others
_WEIGHT: Final = 0.02  # of one compared draft in the running acceptance
_MEMORY_SECONDS: Final = 10.0  # for which a measured pace counts: the machine's load changes
_PACE_WEIGHT: Final = 0.3  # of the latest pass in the pace for its number of rows
_SLOWDOWN: Final = 1.5  # at which one pass counts: it may have stalled, or have been computed by fewer threads
_TRIAL: Final = 3  # drafts that are tried once although they do not promise to pay: what was measured may be wrong
_SHORT_TEXT: Final = 64  # places that a draft sees when its duration is measured
_RECOVERY: Final = 0.002  # of the way back to `LIKELY` in each pass without drafts, so that they are tried again

log = structlog.get_logger(__name__)


def make_draft_model(transformer: Transformer) -> DraftModel | None:
    """Return the int8 copy that drafts for a model, or None where drafts would change tokens or gain nothing."""
    if transformer.device.type != "cpu" or transformer.precision != "float32":
        return None
    if not (packing_works() and span_length()):
        return None
    try:
        from bot.gpt2.model.draft_model import DraftModel  # noqa: PLC0415 # has a compiled library that may not load

        return DraftModel(transformer, torch.get_num_threads())
    except Exception as error:  # noqa: BLE001 # ONNX Runtime's own have no class in common, and samples need no drafts
        log.warning("cannot compute an int8 copy of the model; the engine does not draft", reason=str(error))
        return None


def short_pass(model: DraftModel, config: GPT2Config) -> Callable[[int], None]:
    """Return what computes a draft of so many samples of a short text, to be measured."""
    past = np.ones((config.n_layer, 2, _SHORT_TEXT, config.n_embd), np.float32)

    @torch.inference_mode()
    def compute(rows: int) -> None:
        numbers = np.zeros(rows, np.int64)
        model(numbers, numbers, past, np.ones((rows, _SHORT_TEXT), np.bool_))

    return compute


class Drafter:
    """Drafts for groups of sequences, as many as are likely to pay.

    Attributes:
        acceptance: Running share of the compared drafts that were right.
    """

    def __init__(self, model: DraftModel, cost: Cost, exact: Cost, clock: Callable[[], float] = time.monotonic) -> None:
        """Make a drafter.

        Args:
            model: The int8 copy.
            cost: The durations of its passes, as measured at the start.
            exact: Those of the model's own.
            clock: A monotonic clock in seconds.
        """
        self.acceptance = LIKELY
        self._model = model
        self._exact = _Pace(exact, clock)
        self._cost = _Pace(cost, clock, self._exact)  # other load slows both models alike

    def propose(self, groups: Sequence[SequenceGroup]) -> float:
        """Draft for the groups that decode.

        Returns:
            The seconds that drafting would have taken on an idle machine with all threads.
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
        if compared:
            self.acceptance += min(_WEIGHT * compared, 1.0) * (equal / compared - self.acceptance)

    def exact_seconds(self, rows: int) -> float:
        """Return the seconds of an exact pass on an idle machine with all threads."""
        return self._exact.baseline_seconds(padded_rows(rows))

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
        if _BETTER * expected < left * seconds[0]:
            return depth
        return 0 if self._cost.known else min(deepest, _TRIAL)

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

    What was measured at the start may be wrong by a factor, as the machine may have been busy. The factor is learned
    from every pass: of the model by which all passes are slower or faster at present, of the copy by which its passes
    are so beside the model's.
    """

    def __init__(self, durations: Cost, clock: Callable[[], float], beside: _Pace | None = None) -> None:
        """Take the durations measured at the start, and the pace of passes that other load slows alike."""
        self._durations = durations
        self._clock = clock
        self._beside = beside
        self._factor = self._least = 1.0
        self._recorded_at = -math.inf
        self._measured: dict[int, tuple[float, float]] = {}  # by rows: seconds, and when they were measured

    @property
    def known(self) -> bool:
        """Return whether a pass was recorded."""
        return bool(self._measured)

    @property
    def scale(self) -> float:
        """Return the durations at present as a multiple of those measured at the start."""
        if not self._beside:
            return self._factor
        # The copy's are not measured while it does not pay; then the best is hoped for, so that it is tried again.
        return (self._factor if self._recent(self._recorded_at) else self._least) * self._beside.scale

    def baseline_seconds(self, rows: int) -> float:
        """Return the duration on an idle machine with all threads."""
        return self._durations(rows) * (self._least if self._beside else 1.0)

    def seconds(self, rows: int) -> float:
        """Return the expected duration."""
        seconds, measured_at = self._measured.get(rows, (0.0, -math.inf))
        return seconds if self._recent(measured_at) else self.scale * self._durations(rows)

    def record(self, rows: int, seconds: float) -> None:
        """Learn from a pass."""
        before, scale = self.seconds(rows), self.scale
        seconds = min(seconds, _SLOWDOWN * before)
        scale += _PACE_WEIGHT * (seconds / self._durations(rows) - scale)
        self._factor = scale / (self._beside.scale if self._beside else 1.0)
        self._least = min(self._least, self._factor)
        self._recorded_at = self._clock()
        self._measured[rows] = (before + _PACE_WEIGHT * (seconds - before), self._recorded_at)

    def _recent(self, moment: float) -> bool:
        return self._clock() - moment < _MEMORY_SECONDS
