"""Drafts change the time of samples and nothing else."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bot.gpt2.local.calibration import Durations
from bot.gpt2.local.drafting import LIKELY, MAX_DRAFTS, Drafter, _plan, make_draft_model
from bot.gpt2.local.sequences import MAX_LEAD, SequenceGroup, _joined, advance, draft
from bot.gpt2.model.attention import span_length
from bot.gpt2.model.linear import packing_works
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.throughput import Throughput
from tests.models import make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bot.gpt2.model.draft_model import DraftModel

pytestmark = pytest.mark.skipif(
    not (packing_works() and span_length()), reason="rows are not independent here, so nothing is drafted"
)

WEIGHTS_READ = Throughput(0.024, 0.0005).baseline_seconds
QUARTER_READ = Throughput(0.007, 0.0004).baseline_seconds


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """As wide as GPT-2 small, so that its products are shared by threads."""
    folder = tmp_path_factory.mktemp("models") / "wide-gpt2"
    return load(str(make_model(folder, layers=2, heads=12, width=768, context=1024)), device="cpu")


@pytest.fixture(scope="module")
def copy(wide: LoadedModel) -> DraftModel:
    model = make_draft_model(wide.transformer)
    assert model is not None
    return model


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def begin(loaded: LoadedModel, prompt: int, **settings: float) -> SequenceGroup:
    ids = random.Random(prompt).choices(range(loaded.info.vocabulary), k=prompt)
    request = ContinuationRequest("unused", SamplingParams(prompt, **settings))
    return SequenceGroup(loaded.transformer, ids, request, loaded.endings.tokens)


def run(
    loaded: LoadedModel,
    groups: list[SequenceGroup],
    guess: Callable[[list[SequenceGroup], int], None],
    threads: tuple[int, ...] = (1,),
) -> tuple[dict[tuple[int, int, int], torch.Tensor], int, int]:
    """Compute the groups; return the logits that each token was drawn from, and how many drafts were right or not."""
    logits_of: dict[tuple[int, int, int], torch.Tensor] = {}
    for number, group in enumerate(groups):
        group.accept = _noting(group, number, logits_of)  # type: ignore[method-assign]
    compared = equal = passes = 0
    while running := [group for group in groups if not group.done]:
        torch.set_num_threads(threads[passes % len(threads)])
        guess([group for group in running if not group.prefilling], passes)
        more = advance(loaded.transformer, running)
        compared, equal, passes = compared + more[0], equal + more[1], passes + 1
    return logits_of, compared, equal


def _noting(
    group: SequenceGroup, number: int, logits_of: dict[tuple[int, int, int], torch.Tensor]
) -> Callable[[torch.Tensor], tuple[int, int]]:
    accept = group.accept

    def note(logits: torch.Tensor) -> tuple[int, int]:
        before, active, depths = [len(tokens) for tokens in group.tokens], list(group._active), len(group.drafts[0]) + 1
        outcome = accept(logits)
        rows = logits.expand(depths * len(active), -1) if len(logits) else logits
        for sample, own in zip(active, rows.split(depths), strict=False):
            for step in range(before[sample], len(group.tokens[sample])):
                logits_of[number, sample, step] = own[step - before[sample]].clone()
        return outcome

    return note


def test_a_pass_over_several_positions_has_the_bits_of_as_many_passes(wide: LoadedModel, copy: DraftModel) -> None:
    """For one sample and several, prompts short and long, right drafts and wrong ones, on one thread and two."""
    shapes = [
        {"prompt": 7, "samples": 1, "length": 20},
        {"prompt": 300, "samples": 5, "length": 12, "temperature": 0.7},
        {"prompt": 700, "samples": 1, "length": 12, "temperature": 0.0},
        {"prompt": 3, "samples": 4, "length": 25, "top_k": 0, "temperature": 2.0},
    ]
    plain = [begin(wide, **shape) for shape in shapes]
    expected, none, _ = run(wide, plain, lambda *_: None)
    assert none == 0
    dice = random.Random(0)

    def guess(groups: list[SequenceGroup], passes: int) -> None:
        for _ in range(passes % 5 if groups else 0):
            draft(copy, groups)
        for group in groups:
            for drafts in group.drafts:
                if drafts and dice.random() < 0.3:
                    drafts[dice.randrange(len(drafts))] = 0

    drafted = [begin(wide, **shape) for shape in shapes]
    given, compared, equal = run(wide, drafted, guess, threads=(1, 2))
    assert [group.tokens for group in drafted] == [group.tokens for group in plain]
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[place], expected[place]) for place in expected)
    assert 0.3 * compared < equal < compared


@pytest.mark.parametrize(
    "shape", [{"prompt": 90, "samples": 1}, {"prompt": 4, "samples": 4}, {"prompt": 9, "samples": 5}]
)
@pytest.mark.parametrize("other", [{"prompt": 6, "samples": 2}, {"prompt": 600, "samples": 2}])
def test_drafts_are_drawn_from_about_the_logits_of_the_model(
    tmp_path: Path, shape: dict[str, float], other: dict[str, float]
) -> None:
    """Unless drafting sees other tokens or positions than the model, in one pass for both requests or in two."""
    folder = make_model(tmp_path / "gentle-gpt2", layers=2, heads=12, width=768, context=1024, deviation=0.05)
    model = load(str(folder), device="cpu")
    copy = make_draft_model(model.transformer)
    assert copy is not None
    groups = [begin(model, **shape, length=36, top_k=0), begin(model, **other, length=20, top_k=0)]
    for group in groups:
        group._end_tokens = ()

    guesses = [_guesses(group) for group in groups]

    def guess(decoding: list[SequenceGroup], _: int) -> None:
        for _ in range(3 if decoding else 0):
            draft(copy, decoding)

    logits_of, _, _ = run(model, groups, guess)
    errors = []
    for (number, sample, step), expected in logits_of.items():
        for text, logits in guesses[number].get((sample, step), ()):
            if text == groups[number].tokens[sample][:step]:
                errors.append(float((logits - expected).norm() / (expected - expected.mean()).norm()))
    assert len(errors) > 50
    assert max(errors) < 0.1


def _guesses(group: SequenceGroup) -> dict[tuple[int, int], list[tuple[list[int], torch.Tensor]]]:
    """Note what a group is told to guess from: texts and logits by the sample and the step."""
    noted = defaultdict(list)
    guess = group.guess

    def note(logits: torch.Tensor, keys_values: NDArray[np.float32]) -> None:
        for (sample, drafts), row in zip(group._drafted(), logits, strict=True):
            text = group.tokens[sample] + drafts
            noted[sample, len(text)].append((text, row))
        guess(logits, keys_values)

    group.guess = note  # type: ignore[method-assign]
    return noted


@given(st.lists(st.integers(1, 1100), min_size=1, max_size=20))
def test_requests_share_a_pass_of_drafts_while_they_are_short(places: list[int]) -> None:
    parts = [places[part] for part in _joined(places)]
    assert [count for part in parts for count in part] == places
    assert all(len(part) == 1 or sum(part) <= 512 for part in parts)
    assert all(sum(first) + second[0] > 512 for first, second in itertools.pairwise(parts))


def test_a_sample_whose_drafts_are_all_right_does_not_run_away(wide: LoadedModel) -> None:
    shape = {"prompt": 5, "samples": 2, "length": 35, "top_k": 0}
    known = begin(wide, **shape)
    run(wide, [known], lambda *_: None)
    leads = []

    def guess(groups: list[SequenceGroup], _: int) -> None:
        for group in groups:
            sizes = [len(tokens) for tokens in group.tokens]
            leads.append(max(sizes) - min(sizes))
            right = [(known.tokens[sample][sizes[sample] :] + [0] * 7)[:7] for sample in group._active]
            group.drafts = [right[0], [-1 % wide.info.vocabulary] * 7][: len(right)] if len(right) == 2 else right

    group = begin(wide, **shape)
    run(wide, [group], guess)
    assert group.tokens == known.tokens
    assert 8 < max(leads) <= MAX_LEAD


def test_a_draft_after_the_end_of_a_text_is_not_taken(wide: LoadedModel) -> None:
    shape = {"prompt": 5, "samples": 1, "length": 30, "temperature": 0.0}
    known = begin(wide, **shape)
    run(wide, [known], lambda *_: None)
    [tokens] = known.tokens
    group = begin(wide, **shape)
    group._end_tokens = (tokens[10],)

    def guess(groups: list[SequenceGroup], _: int) -> None:
        for each in groups:
            each.drafts = [tokens[len(each.tokens[0]) :][:6]]

    run(wide, [group], guess)
    assert group.tokens == [tokens[: tokens.index(tokens[10]) + 1]]


def known(drafter: Drafter) -> Drafter:
    """Have it measured a draft, as after any request."""
    drafter._cost.record(1, drafter._cost.seconds(1))
    return drafter


def depths(drafter: Drafter, samples: int, *, prompt_rows: int = 0, left: int = 200, requests: int = 1) -> int:
    return drafter._best_depth(samples, prompt_rows, left, samples // requests)


def test_as_many_are_drafted_as_pay(copy: DraftModel) -> None:
    drafter = known(Drafter(copy, QUARTER_READ, WEIGHTS_READ))
    assert depths(drafter, 1) >= 3
    assert depths(drafter, 1, left=3) == 2, "the pass gives a token of its own"
    assert depths(drafter, 1, left=1) == depths(drafter, 0, left=0) == 0
    assert 1 <= depths(drafter, 5) <= depths(drafter, 1)
    assert depths(Drafter(copy, QUARTER_READ, Throughput(0.02, 0.002).baseline_seconds), 80) == 0, (
        "a crowd is bound by arithmetic"
    )
    assert depths(known(Drafter(copy, WEIGHTS_READ, WEIGHTS_READ)), 1) == 0, (
        "a small model is bound by what is not a product"
    )


@pytest.mark.parametrize(("left", "passes"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_no_pass_is_left_over_for_the_last_token(left: int, passes: int) -> None:
    seconds = [20 + 6 * depth for depth in range(MAX_DRAFTS + 1)]
    assert _plan(seconds, left, 1.0)[1] == 20 * passes + 6 * (left - passes)


def test_a_request_waits_for_the_sample_with_the_worst_drafts(copy: DraftModel) -> None:
    drafter = known(
        Drafter(copy, Throughput(0.014, 0.0004).baseline_seconds, Throughput(0.0185, 0.0012).baseline_seconds)
    )
    assert depths(drafter, 1) >= 2
    assert depths(drafter, 4, left=20) == 0, "of four samples one has several wrong drafts"
    assert depths(drafter, 4, left=20, requests=4) > 0, "requests do not wait for each other"


@pytest.mark.parametrize(("seconds", "acceptance"), [((20, 27, 35, 43, 52), 0.9), ((20, 22, 60), 0.3), ((5, 9), 0.0)])
def test_a_plan_takes_as_long_as_it_says(seconds: tuple[float, ...], acceptance: float) -> None:
    """On average of many samples whose drafts are right at random."""
    dice, left, times = random.Random(0), 17, []
    for _ in range(4000):
        tokens, time = left, 0.0
        while tokens:
            depth, _ = _plan(seconds, tokens, acceptance)
            right = next((step for step in range(depth) if dice.random() >= acceptance), depth)
            tokens, time = tokens - right - 1, time + seconds[depth]
        times.append(time)
    assert _plan(seconds, left, acceptance)[1] == pytest.approx(sum(times) / len(times), rel=0.02)
    assert _plan(seconds, left, acceptance)[1] <= left * seconds[0]


def test_what_was_measured_at_the_start_counts_for_more_than_a_straight_line(copy: DraftModel) -> None:
    measured = Durations((4, 6, 8, 48), (0.018, 0.018, 0.03, 0.09))
    assert depths(Drafter(copy, QUARTER_READ, WEIGHTS_READ), 1) == MAX_DRAFTS
    assert depths(Drafter(copy, QUARTER_READ, measured), 1) == 5


def test_measured_passes_count_for_more_than_the_model_of_their_cost(copy: DraftModel) -> None:
    drafter = known(Drafter(copy, QUARTER_READ, WEIGHTS_READ))
    for depth in range(1, MAX_DRAFTS + 1):  # as if one thread computed, bound by arithmetic
        for _ in range(10):
            drafter.record(5 * (depth + 1), 0.012 * 5 * (depth + 1), compared=5 * depth, equal=5 * depth)
            drafter.record(5, 0.04, compared=0, equal=0)
    assert depths(drafter, 5) == 0
    assert depths(drafter, 1) > 0


def test_stalls_end_the_drafting_for_seconds_only(copy: DraftModel) -> None:
    now = 100.0
    drafter = Drafter(copy, QUARTER_READ, WEIGHTS_READ, clock=lambda: now)
    before = depths(drafter, 1)
    drafter._cost.record(1, 1.0)
    assert depths(drafter, 1) >= before - 1 > 0, "one pass means little"
    for _ in range(20):
        drafter._cost.record(1, 1.0)
    assert depths(drafter, 1) == 0
    now += 11
    drafter.record(1, WEIGHTS_READ(1), compared=0, equal=0)
    assert depths(drafter, 1) > 0


def test_a_busy_start_does_not_decide_for_good(copy: DraftModel) -> None:
    """What was measured beside other load heals, whichever of the two models it had slowed."""
    now = 0.0
    drafter = Drafter(copy, lambda rows: 4 * QUARTER_READ(rows), WEIGHTS_READ, clock=lambda: now)
    assert depths(drafter, 1) == 3, "a trial, as no draft was measured yet"
    for _ in range(3):
        drafter._cost.record(1, QUARTER_READ(1))
    drafter.record(4, WEIGHTS_READ(4), compared=3, equal=3)
    now += 3600
    assert depths(drafter, 1) >= 3
    assert drafter._cost.baseline_seconds(1) < 2.5 * QUARTER_READ(1)
    drafter = known(Drafter(copy, QUARTER_READ, lambda rows: 4 * WEIGHTS_READ(rows), clock=lambda: now))
    for _ in range(20):
        drafter._cost.record(5, QUARTER_READ(5))
        drafter.record(20, WEIGHTS_READ(20), compared=15, equal=15)
    now += 3600
    assert depths(drafter, 1) >= 3
    assert drafter._exact.seconds(12) == pytest.approx(WEIGHTS_READ(12), rel=0.1)


def test_wrong_drafts_end_the_drafting_and_time_brings_it_back(wide: LoadedModel, copy: DraftModel) -> None:
    drafter = known(Drafter(copy, QUARTER_READ, WEIGHTS_READ))
    for _ in range(30):
        drafter.record(6, WEIGHTS_READ(6), compared=5, equal=0)
    assert depths(drafter, 1) == 0
    group = begin(wide, 3, samples=1, length=5)
    advance(wide.transformer, [group])
    for _ in range(2000):
        drafter.propose([group])
        if group.drafts[0]:
            break
    assert group.drafts[0]
    assert drafter.acceptance < LIKELY


def test_nothing_is_drafted_where_the_copy_cannot_be_computed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "relu2-gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"activation_function": "relu2"}))
    model = load(str(folder), device="cpu")
    with capture_logs() as logs:
        assert make_draft_model(model.transformer) is None
    assert [entry["reason"] for entry in logs] == ["the copy has no activation_function 'relu2'"]


def test_nothing_is_drafted_where_words_would_change(
    wide: LoadedModel, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = load(str(tiny_model), device="cpu", precision="float16")
    assert make_draft_model(half.transformer) is None
    monkeypatch.setattr("bot.gpt2.local.drafting.span_length", lambda: 0)
    assert make_draft_model(wide.transformer) is None
