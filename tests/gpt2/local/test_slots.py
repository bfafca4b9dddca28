"""Passes over slots, which a GPU replays as graphs, give Transformers' samples; here on the CPU, without the graphs."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from bot.errors import UnavailableError
from bot.gpt2.local import engine as engines
from bot.gpt2.local import slots
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.local.runner import PREFILL_CHUNK
from bot.gpt2.local.slot_table import MAX_ROWS, PASS_ROWS, SLOTS
from bot.gpt2.local.slots import SlotRunner
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from tests.gpt2.local.test_sequences import PROMPTS, SETTINGS, mixed_requests, transformers_own
from tests.models import make_model

if TYPE_CHECKING:
    from pathlib import Path

    from bot.gpt2.local.slot_group import SlotGroup

PLACES = 2000


@pytest.fixture
def runner(loaded: LoadedModel) -> SlotRunner:
    return SlotRunner(loaded.transformer, loaded.endings.tokens, PLACES)


def begin(runner: SlotRunner, loaded: LoadedModel, request: ContinuationRequest) -> SlotGroup:
    return runner.start(loaded.tokenizer(request.prompt)["input_ids"], request)


def finish(runner: SlotRunner, group: SlotGroup) -> list[list[int]]:
    for _ in range(len(group.prompt) + group.request.params.length + 1):
        runner.advance([group])
    assert group.done
    group.release()
    return group.tokens


@pytest.mark.usefixtures("keep_global_generator")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equal_to_generate(
    runner: SlotRunner, loaded: LoadedModel, reference: GPT2LMHeadModel, settings: dict[str, float]
) -> None:
    for seed, prompt in enumerate(PROMPTS[::2]):
        params = SamplingParams(seed * 1_000_003, **{"length": 10, **settings})
        request = ContinuationRequest(prompt, params)
        assert finish(runner, begin(runner, loaded, request)) == transformers_own(reference, loaded, request), prompt


@pytest.mark.usefixtures("keep_global_generator")
def test_requests_that_join_and_leave_change_nothing(
    runner: SlotRunner, loaded: LoadedModel, reference: GPT2LMHeadModel
) -> None:
    requests, draw = mixed_requests(random.Random(5), 20), random.Random(3)
    waiting, running, groups = list(requests), [], []
    while waiting or running:
        while waiting and len(running) < draw.randint(1, 9) and runner.fits(running, 60, waiting[0]):
            running.append(begin(runner, loaded, waiting.pop(0)))
            groups.append(running[-1])
        runner.advance(running)
        for group in [group for group in running if group.done]:
            running.remove(group)
            group.release()
    for request, group in zip(requests, groups, strict=True):
        assert group.tokens == transformers_own(reference, loaded, request)
    assert runner.fits([], PLACES - 11, ContinuationRequest("a", SamplingParams(0, 10, 1))), "all places are free again"


@pytest.mark.usefixtures("keep_global_generator")
def test_samples_that_end_early(runner: SlotRunner, loaded: LoadedModel, reference: GPT2LMHeadModel) -> None:
    """The host learns of an end one pass late; what was computed meanwhile is dropped."""
    request = ContinuationRequest("Hello", SamplingParams(0, samples=8, length=100, temperature=2.0, top_k=0))
    expected = transformers_own(reference, loaded, request)
    assert sum(len(row) < request.params.length for row in expected) >= 2, "or this test shows nothing"
    assert finish(runner, begin(runner, loaded, request)) == expected


@pytest.mark.usefixtures("keep_global_generator")
def test_a_prompt_of_many_chunks(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", context=1024)
    loaded, network = load(str(folder), device="cpu"), GPT2LMHeadModel.from_pretrained(folder)
    runner = SlotRunner(loaded.transformer, loaded.endings.tokens)
    for count in (1, PREFILL_CHUNK, PREFILL_CHUNK + 1, 3 * PREFILL_CHUNK + 7):
        request = ContinuationRequest("€" * count, SamplingParams(0, samples=3, length=8))
        assert finish(runner, begin(runner, loaded, request)) == transformers_own(network, loaded, request)


def test_tokens_are_read_one_pass_late(runner: SlotRunner, loaded: LoadedModel) -> None:
    """The next pass is launched before the host waits for the tokens of the one before."""
    group = begin(runner, loaded, ContinuationRequest("Hello", SamplingParams(0, samples=2, length=3, top_k=1)))
    seen = []
    for _ in range(4):
        rows = runner.advance([group]).rows
        seen.append((rows, group.drawn, len(group.tokens[0]), group.done))
    prompt = len(group.prompt)
    assert seen == [(prompt, 1, 0, False), (2, 2, 1, False), (2, 3, 2, False), (0, 3, 3, True)]


def test_a_full_pool_is_said_before_it_is_needed(runner: SlotRunner) -> None:
    request = ContinuationRequest("Hello", SamplingParams(0, samples=10, length=60))
    groups: list[SlotGroup] = []
    while runner.fits(groups, 5, request):
        groups.append(runner.start([1] * 5, request))
    assert len(groups) == PLACES // (10 * 60 + 5)
    with pytest.raises(MemoryError):
        runner.start([1] * 5, request)
    groups.pop(1).release()
    assert runner.fits(groups, 5, request)
    small = ContinuationRequest("Hello", SamplingParams(0, samples=1, length=1))
    for _ in range(SLOTS - 10 * len(groups)):
        assert runner.fits(groups, 1, small)
        groups.append(runner.start([1], small))
    assert not runner.fits(groups, 1, small), "there is a slot for each sample"


def test_released_memory_is_used_again_with_the_right_result(runner: SlotRunner, loaded: LoadedModel) -> None:
    request = ContinuationRequest("Hello", SamplingParams(4, samples=3, length=12))
    expected = finish(runner, begin(runner, loaded, request))
    stopped = begin(runner, loaded, ContinuationRequest("ROMEO:\n", SamplingParams(1, samples=9, length=40)))
    for _ in range(7):
        runner.advance([stopped])
    stopped.release()  # a pass with it is not read yet
    again = begin(runner, loaded, request)
    assert (again.places.start, again.slots.start) == (stopped.places.start, stopped.slots.start)
    tokens = [list(row) for row in stopped.tokens]
    assert finish(runner, again) == expected
    assert stopped.tokens == tokens


def test_a_pass_that_failed_can_be_repeated(
    runner: SlotRunner, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ContinuationRequest("Hello", SamplingParams(seed, samples=2, length=9)) for seed in range(2)]
    expected = [finish(runner, begin(runner, loaded, request)) for request in requests]
    groups = [begin(runner, loaded, request) for request in requests]
    for number in range(30):
        if number % 3 == 1:
            with monkeypatch.context() as patched:
                patched.setattr(runner, "_run", raise_out_of_memory)
                if not all(group.finished for group in groups):
                    with pytest.raises(torch.OutOfMemoryError):
                        runner.advance(groups)
        runner.advance(groups)
    assert [group.tokens for group in groups] == expected


def raise_out_of_memory(*_: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")


def test_a_draw_that_fails_ends_its_own_request_only(
    runner: SlotRunner, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its random numbers are used up, so it cannot be repeated."""
    requests = [ContinuationRequest("Hello", SamplingParams(seed, samples=2, length=9)) for seed in range(2)]
    expected = finish(runner, begin(runner, loaded, requests[0]))
    groups = [begin(runner, loaded, request) for request in requests]
    runner.advance(groups)
    drawn_from = slots.drawn_from
    monkeypatch.setattr(
        slots,
        "drawn_from",
        lambda logits, params: drawn_from(logits, params) if params.seed == 0 else raise_out_of_memory(),
    )
    runner.advance(groups)
    with pytest.raises(torch.OutOfMemoryError):
        runner.advance(groups)
    with pytest.raises(torch.OutOfMemoryError):
        runner.repeat(groups[1])
    assert finish(runner, groups[0]) == expected


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_numbers_that_are_not_finite_end_their_own_request_only(
    runner: SlotRunner, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, top_p: float
) -> None:
    requests = [ContinuationRequest("Hello", SamplingParams(seed, 2, 9, top_p=top_p)) for seed in range(2)]
    expected = finish(runner, begin(runner, loaded, requests[0]))
    groups = [begin(runner, loaded, request) for request in requests]
    runner.advance(groups)
    compute = runner._compute

    def broken(rows: int) -> None:
        compute(rows)
        runner.logits[3, 1] = torch.nan

    with monkeypatch.context() as patched:
        patched.setattr(runner, "_compute", broken)
        runner.advance(groups)
    runner.advance([groups[0]])
    assert groups[0].fault is None
    with pytest.raises(FloatingPointError):
        runner.advance(groups)
    assert len(groups[1].tokens[0]) == 1, "the tokens before stay"
    assert finish(runner, groups[0]) == expected


def test_every_number_of_rows_has_a_pass() -> None:
    assert sorted(PASS_ROWS) == list(PASS_ROWS)
    assert engines.Scheduler.__init__.__kwdefaults__["max_rows"] + 2 * PREFILL_CHUNK <= MAX_ROWS


def test_rows_that_fill_up_a_pass_write_to_nobodys_place(runner: SlotRunner, loaded: LoadedModel) -> None:
    runner._pool.fill_(torch.nan)
    runner._pool[:, 0] = 0
    request = ContinuationRequest("Hello", SamplingParams(0, samples=9, length=2))
    group = begin(runner, loaded, request)
    runner.advance([group])
    runner.advance([group])  # 9 rows in a pass of 10
    owned = np.arange(group.places.start, group.places.start + len(group.prompt) + 9)
    written = np.flatnonzero(runner._pool[0].isfinite().all(dim=1).numpy())
    assert written.tolist() == [0, *owned.tolist()]


def test_the_engine_serves_a_crowd_with_it(
    tiny_model: Path, loaded: LoadedModel, runner: SlotRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler admits, stops and answers as with the runner of the CPU."""
    requests = mixed_requests(random.Random(5), 24)
    expected = [finish(runner, begin(runner, loaded, request)) for request in requests]
    monkeypatch.setattr(
        engines, "_make_runner", lambda loaded, _: SlotRunner(loaded.transformer, loaded.endings.tokens)
    )

    async def scenario() -> None:
        engine = LocalEngine(str(tiny_model), device="cpu")
        await engine.start()
        assert isinstance(engine.runner, SlotRunner)
        longest = await engine.submit(ContinuationRequest("Hello", SamplingParams(9, 10, 100, top_k=1)), owner="stops")
        answers = await asyncio.gather(*(engine.continuation(each, owner=each.seed % 5) for each in requests))
        assert [[list(sample.token_ids) for sample in answer.samples] for answer in answers] == expected
        longest.stop()
        assert (await longest.result()).samples
        rest = [asyncio.create_task(engine.continuation(each)) for each in requests]
        await asyncio.sleep(0)
        await engine.close()
        for outcome in await asyncio.gather(*rest, return_exceptions=True):
            assert isinstance(outcome, UnavailableError)

    asyncio.run(scenario())
