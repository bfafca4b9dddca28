"""The local engine: readiness, fair turns, stops within a token, and a free event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import shutil
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from bot.errors import InvalidInputError, ModelInvalidError, ModelNotLoadedError, UnavailableError
from bot.gpt2.local import engine as engine_module
from bot.gpt2.local import introspection
from bot.gpt2.local.activations import ActivationReader
from bot.gpt2.local.engine import LocalEngine, LocalTicket
from bot.gpt2.local.scheduler import MAX_PROMPT_ROWS, Scheduler
from bot.gpt2.local.sequences import SequenceGroup, cache_bytes
from bot.gpt2.model.loading import LoadedModel
from bot.gpt2.model.transformer import Transformer
from bot.gpt2.questions import (
    AttentionQuestion,
    InsightsQuestion,
    LensQuestion,
    NextTokensQuestion,
    Question,
    SurpriseQuestion,
    TokensQuestion,
)
from bot.gpt2.requests import ContinuationRequest, Loading, Progress, Queued, SamplingParams
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import torch

LONG = ContinuationRequest("Hello", SamplingParams(1, samples=10, length=100))


async def test_a_request_made_before_the_model_is_there_waits_for_it(tiny_model: Path) -> None:
    engine = LocalEngine(str(tiny_model), device="cpu")
    asked = asyncio.create_task(
        engine.continuation(ContinuationRequest("Hello", SamplingParams(42, samples=2, length=3)))
    )
    await asyncio.sleep(0)
    assert not engine.ready
    await engine.start()
    continuation = await asked
    assert [len(sample.token_ids) for sample in continuation.samples] == [3, 3]
    await engine.close()


async def test_a_model_that_cannot_be_loaded_is_told_to_the_host_and_to_who_waits(tmp_path: Path) -> None:
    engine = LocalEngine(str(tmp_path), device="cpu")
    asked = asyncio.create_task(engine.continuation(LONG))
    with pytest.raises(ModelInvalidError, match=r"config\.json"):
        await engine.start()
    with pytest.raises(ModelNotLoadedError):
        await asked
    await engine.close()


async def test_requests_at_once_give_what_each_gives_alone(engine: LocalEngine) -> None:
    requests = [
        ContinuationRequest(prompt, SamplingParams(seed, samples=3, length=8)) for seed, prompt in enumerate("abcdefgh")
    ]
    alone = [await engine.continuation(request) for request in requests]
    together = await asyncio.gather(*(engine.continuation(request) for request in reversed(requests)))
    assert [result.samples for result in reversed(together)] == [result.samples for result in alone]


async def test_text_is_what_the_tokens_say(engine: LocalEngine) -> None:
    result = await engine.continuation(ContinuationRequest("Hello", SamplingParams(5, samples=4, length=50, top_k=0)))
    assert result.prompt_tokens == len(engine._loaded.tokenizer("Hello")["input_ids"])
    for sample in result.samples:
        assert sample.text == engine._loaded.tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        assert sample.ended == (sample.token_ids[-1] in engine._loaded.endings.tokens)
    assert result.new_tokens == sum(len(sample.token_ids) for sample in result.samples)


async def test_the_event_loop_goes_on_while_the_model_computes(engine: LocalEngine) -> None:
    running = asyncio.create_task(engine.continuation(LONG))
    turns = 0
    while not running.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    await running


async def test_what_does_not_fit_the_context_is_refused_with_the_numbers(engine: LocalEngine) -> None:
    with pytest.raises(InvalidInputError, match=r"has 120 tokens.*length of 9, at most 119 fit into .* context of 128"):
        await engine.submit(ContinuationRequest("\x01" * 119 + "x", SamplingParams(0, length=9)))
    (await engine.submit(ContinuationRequest("\x01" * 119 + "x", SamplingParams(0, length=8)))).abandon()
    with pytest.raises(InvalidInputError, match="at most 0 fit"):
        await engine.continuation(ContinuationRequest("x", SamplingParams(0, length=200)))


async def test_numbers_beyond_all_limits_end_only_their_own_request(tiny_model: Path, tmp_path: Path) -> None:
    """The weights are finite, but a text with a tilde makes the model's activations overflow."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    (tilde,) = AutoTokenizer.from_pretrained(folder)("~")["input_ids"]
    weights["transformer.wte.weight"][tilde] = 3e38
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    engine = LocalEngine(str(folder), device="cpu")
    await engine.start()
    try:
        greedy = SamplingParams(1, length=3, temperature=0.0)
        good, bad = ContinuationRequest("Hello", greedy), ContinuationRequest("a ~", greedy)
        async with held(engine):
            together = [asyncio.create_task(engine.continuation(request)) for request in (good, bad, good)]
            await queued(engine, 3)
        first, refused, last = await asyncio.gather(*together, return_exceptions=True)
        alone = await engine.continuation(good)
        assert first.samples == last.samples == alone.samples
        assert "grow beyond all limits" in str(refused)
        questions = (
            NextTokensQuestion("a ~"),
            AttentionQuestion("a ~ b"),
            SurpriseQuestion("a ~"),
            LensQuestion("a ~"),
        )
        for question in questions:
            with pytest.raises(UnavailableError, match="grow beyond all limits"):
                await engine.introspect(question)
    finally:
        await engine.close()


async def test_a_cancelled_request_frees_the_worker(engine: LocalEngine) -> None:
    running = [asyncio.create_task(engine.continuation(LONG)) for _ in range(5)]
    await asyncio.sleep(0.02)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    began = time.monotonic()
    await engine.continuation(ContinuationRequest("a", SamplingParams(1, samples=1, length=1)))
    assert engine.waiting == 0
    assert time.monotonic() - began < 5, "cancelled work should not be in the way"


async def test_a_ticket_tells_how_it_is_getting_on(engine: LocalEngine) -> None:
    ticket = await engine.submit(ContinuationRequest("Hello", SamplingParams(1, samples=2, length=60, top_k=0)))
    seen = [update async for update in ticket.updates()]
    result = await ticket.result()
    assert seen
    assert all(isinstance(update, Progress) for update in seen)
    for update in seen:
        assert update.seconds >= 0
        for partial, text, sample in zip(update.token_ids, update.texts, result.samples, strict=True):
            assert sample.token_ids[: len(partial)] == partial
            assert sample.text.startswith(text)
    lengths = [sum(map(len, update.token_ids)) for update in seen]
    assert lengths == sorted(lengths)


async def test_half_a_character_is_not_shown(engine: LocalEngine) -> None:
    """The tiny model knows hardly more than bytes, so its text is full of characters that are never finished."""
    ticket = await engine.submit(ContinuationRequest("日本", SamplingParams(3, samples=4, length=60, top_k=0)))
    async for update in ticket.updates():
        assert isinstance(update, Progress)
        assert not any(text.endswith("\ufffd") for text in update.texts)


async def test_who_asks_while_the_model_is_loaded_is_told_so(tiny_model: Path) -> None:
    engine = LocalEngine(str(tiny_model), device="cpu")
    ticket = await engine.submit(ContinuationRequest("Hello", SamplingParams(42, samples=2, length=3)))
    updates = ticket.updates()
    assert await anext(updates) == Loading()
    await engine.start()
    assert all(not isinstance(update, Loading) for update in [update async for update in updates])
    assert len((await ticket.result()).samples) == 2
    await engine.close()


@contextlib.asynccontextmanager
async def held(engine: LocalEngine) -> AsyncIterator[None]:
    """Hold the worker during the body, so that everything submitted in it arrives at once."""
    gate = threading.Event()
    engine._worker.loader.submit(gate.wait)
    try:
        yield
    finally:
        gate.set()


async def queued(engine: LocalEngine, count: int) -> None:
    """Wait until so many requests are queued."""
    async with asyncio.timeout(20):
        while len(engine._scheduler.queue()) < count:  # noqa: ASYNC110 # the scheduler has no event for this
            await asyncio.sleep(0.01)


async def test_who_waits_knows_the_place_in_the_queue(engine: LocalEngine) -> None:
    engine._scheduler._max_rows = 10
    async with held(engine):
        tickets = [await engine.submit(LONG, owner=owner) for owner in range(4)]
        await queued(engine, 4)
    places: list[list[int]] = []

    async def watch(ticket: LocalTicket) -> None:
        places.append([update.position async for update in ticket.updates() if isinstance(update, Queued)])

    await asyncio.gather(*map(watch, tickets))
    assert min(places, key=len) == []
    assert max(map(max, filter(None, places))) == 3
    for seen in places:
        assert seen == sorted(seen, reverse=True), "nobody is put back"


async def test_nobody_is_starved_by_someone_with_many_requests(engine: LocalEngine) -> None:
    engine._scheduler._max_rows = 10
    order: list[str] = []

    async def ask(owner: str) -> None:
        await engine.continuation(ContinuationRequest("Hello", SamplingParams(1, samples=10, length=20)), owner=owner)
        order.append(owner)

    async with held(engine):
        greedy = [asyncio.create_task(ask("greedy")) for _ in range(6)]
        await queued(engine, 6)
        modest = asyncio.create_task(ask("modest"))
        await queued(engine, 7)
    await asyncio.gather(*greedy, modest)
    assert order.index("modest") == 1, order


async def test_many_long_prompts_do_not_hold_up_who_is_writing(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    hidden = Transformer.hidden

    def counted(self: Transformer, tokens: torch.Tensor, *others: Any) -> torch.Tensor:
        passes.append(len(tokens))
        return hidden(self, tokens, *others)

    monkeypatch.setattr(Transformer, "hidden", counted)
    requests = [ContinuationRequest("€" * 40, SamplingParams(seed, samples=1, length=5)) for seed in range(30)]
    results = await asyncio.gather(*(engine.continuation(request, owner=request.seed) for request in requests))
    assert all(len(result.samples[0].token_ids) <= 5 for result in results)
    assert max(passes) <= MAX_PROMPT_ROWS + len(requests)
    assert sum(passes) >= 30 * 120


async def test_stop_keeps_what_is_there(engine: LocalEngine) -> None:
    ticket = await engine.submit(LONG)
    async for update in ticket.updates():
        if isinstance(update, Progress) and update.token_ids[0]:
            ticket.stop()
    result = await ticket.result()
    assert result.stopped
    whole = await engine.continuation(LONG)
    for part, sample in zip(result.samples, whole.samples, strict=True):
        assert len(part.token_ids) < LONG.params.length
        assert sample.token_ids[: len(part.token_ids)] == part.token_ids


async def test_stopped_before_its_turn_it_has_empty_samples(engine: LocalEngine) -> None:
    async with held(engine):
        ticket = await engine.submit(LONG)
        await queued(engine, 1)
        ticket.stop()
    result = await ticket.result()
    assert result.stopped
    assert [sample.text for sample in result.samples] == [""] * LONG.params.samples
    assert (result.new_tokens, result.seconds) == (0, 0)


async def test_what_runs_at_one_time_stays_within_the_memory_for_it(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ContinuationRequest("Hello", SamplingParams(seed, samples=2, length=20)) for seed in range(6)]
    alone = [(await engine.continuation(request)).samples for request in requests]
    at_once: list[int] = []
    run = Scheduler._run_pass

    def counted(self: Scheduler) -> None:
        at_once.append(len(self._running))
        run(self)

    monkeypatch.setattr(Scheduler, "_run_pass", counted)
    tokens = len(engine._loaded.tokenizer("Hello")["input_ids"])
    engine._scheduler.runner.memory = 2 * cache_bytes(engine._loaded.transformer.config, tokens, requests[0])
    results = await asyncio.gather(*(engine.continuation(request) for request in requests))
    assert max(at_once) == 2
    assert [result.samples for result in results] == alone
    at_once.clear()
    engine._scheduler.runner.memory = 1
    assert (await engine.continuation(requests[0])).samples == alone[0], "one alone is always computed"


async def test_an_error_in_one_request_fails_that_one_alone(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = SequenceGroup.attend

    def sabotaged(self: SequenceGroup, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        if self.request.seed == 13:
            raise RuntimeError("out of memory, say")
        return attend(self, layer, qkv)

    monkeypatch.setattr(SequenceGroup, "attend", sabotaged)
    requests = [ContinuationRequest("Hello", SamplingParams(seed, samples=2, length=10)) for seed in (12, 13, 14)]
    results = await asyncio.gather(*(engine.continuation(request) for request in requests), return_exceptions=True)
    assert isinstance(results[1], UnavailableError)
    assert "more memory than I have" in str(results[1])
    monkeypatch.undo()
    assert [results[0].samples, results[2].samples] == [
        (await engine.continuation(request)).samples for request in (requests[0], requests[2])
    ]


async def test_a_fault_of_the_worker_fails_all_in_flight_and_the_worker_starts_again(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler, "_run_pass", lambda _: (_ for _ in ()).throw(SystemError("broken")))
    results = await asyncio.gather(*(engine.continuation(LONG) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results), results
    monkeypatch.undo()
    assert (await engine.continuation(ContinuationRequest("a", SamplingParams(1, samples=1, length=2)))).new_tokens


async def test_nothing_is_left_after_many_requests(engine: LocalEngine) -> None:
    for _ in range(5):
        await asyncio.gather(
            *(
                engine.continuation(ContinuationRequest("a", SamplingParams(seed, samples=2, length=3)))
                for seed in range(40)
            )
        )
    assert engine.waiting == 0
    await engine._run_on(
        engine._worker.loader, lambda: None
    )  # the worker is free again only when the scheduler has left it
    assert not engine._scheduler._running
    assert not engine._scheduler._waiting
    assert not engine._scheduler._active


async def test_a_finished_request_gives_its_memory_back_at_once(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the garbage collector, which hardly comes where most of the memory is tensors."""
    alive: weakref.WeakSet[SequenceGroup] = weakref.WeakSet()
    begin = SequenceGroup.__init__

    def counted(self: SequenceGroup, *arguments: Any) -> None:
        begin(self, *arguments)
        alive.add(self)

    monkeypatch.setattr(SequenceGroup, "__init__", counted)
    gc.disable()
    try:
        for seed in range(5):
            await engine.continuation(ContinuationRequest("Hello", SamplingParams(seed, samples=2, length=5)))
        await engine._run_on(engine._worker.loader, lambda: None)
        assert len(alive) == 0
    finally:
        gc.enable()


async def test_a_wait_longer_than_an_interaction_lives_is_refused(engine: LocalEngine) -> None:
    async with held(engine):
        engine._scheduler.throughput.scale = 1e6
        running = await engine.submit(LONG)
        await queued(engine, 1)
        with pytest.raises(UnavailableError, match="longer than Discord lets me answer"):
            await engine.submit(LONG)
        running.abandon()


@dataclasses.dataclass(frozen=True)
class Threads(Question[str]):
    """Asks who answers, and may fail."""

    error: Exception | None = None


@introspection.answer.register
def _(question: Threads, _: LoadedModel) -> introspection.Steps[str]:
    yield
    if question.error:
        raise question.error
    return threading.current_thread().name


async def test_questions_are_answered_on_the_workers_thread(engine: LocalEngine) -> None:
    assert (await engine.introspect(Threads())).startswith("gpt2-worker")


async def test_questions_are_interleaved_with_continuations(engine: LocalEngine) -> None:
    writing = asyncio.create_task(engine.continuation(LONG))
    for _ in range(3):
        await engine.introspect(Threads())
    assert not writing.done(), "nobody had to be finished first"
    await writing
    await engine._run_on(engine._worker.loader, lambda: None)
    assert not engine._scheduler._active


async def test_nobodys_questions_keep_those_of_others_waiting(engine: LocalEngine) -> None:
    order = []

    async def ask(owner: str) -> None:
        await engine.introspect(Threads(), owner=owner)
        order.append(owner)

    async with held(engine):
        greedy = [asyncio.create_task(ask("greedy")) for _ in range(6)]
        await sent(engine, 6)
        modest = asyncio.create_task(ask("modest"))
        await sent(engine, 7)
    await asyncio.gather(*greedy, modest)
    assert order.index("modest") <= 1, order


async def test_a_question_that_fails_disturbs_nobody(engine: LocalEngine) -> None:
    alone = (await engine.continuation(LONG)).samples
    writing = asyncio.create_task(engine.continuation(LONG))
    with pytest.raises(UnavailableError, match="Something went wrong"):
        await engine.introspect(Threads(error=ZeroDivisionError("secret")))
    with pytest.raises(UnavailableError, match="more memory than I have"):
        await engine.introspect(Threads(error=MemoryError()))
    with pytest.raises(InvalidInputError, match="empty"):
        await engine.introspect(Threads(error=InvalidInputError(say("The prompt is empty."))))
    assert (await writing).samples == alone


async def test_a_question_that_nobody_waits_for_any_more_is_not_answered(engine: LocalEngine) -> None:
    async with held(engine):
        first = asyncio.create_task(engine.introspect(Threads()))
        second = asyncio.create_task(engine.introspect(Threads(error=AssertionError("must not be asked"))))
        await sent(engine, 2)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert (await first).startswith("gpt2-worker")
    assert (await engine.introspect(Threads())).startswith("gpt2-worker")
    assert engine._scheduler.tasks_waiting == 0


async def test_a_full_queue_refuses_at_once(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_WAITING", 2)
    async with held(engine):
        running = [asyncio.create_task((await engine.submit(LONG)).result()) for _ in range(2)]
        await queued(engine, 2)
        with pytest.raises(UnavailableError, match="2 requests are waiting"):
            await engine.continuation(LONG)
    await asyncio.gather(*running)
    await engine.continuation(ContinuationRequest("a", SamplingParams(1, samples=1, length=1)))


async def test_stopping_refuses_what_runs_and_what_comes(engine: LocalEngine) -> None:
    running = [asyncio.create_task(engine.continuation(LONG)) for _ in range(3)]
    await asyncio.sleep(0.02)
    engine.stop()
    for result in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(result, UnavailableError)
        assert "shutting down" in str(result)
    with pytest.raises(UnavailableError, match="shutting down"):
        await engine.select("wpe")


async def test_closing_refuses_what_waits_for_the_reader(engine: LocalEngine) -> None:
    """Its executor drops the call, which is no cancellation of the request."""
    reading = threading.Event()
    engine._reader.submit(reading.wait)
    asked = asyncio.create_task(engine.continuation(LONG))
    cancelled = asyncio.create_task(engine.continuation(LONG))
    while engine._reader._work_queue.qsize() < 2:  # noqa: ASYNC110 # the executor has no event for this
        await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close())
    while not engine._reader._shutdown:  # noqa: ASYNC110
        await asyncio.sleep(0)
    cancelled.cancel()
    reading.set()
    with pytest.raises(UnavailableError):
        await asked
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await closing


async def test_closing_an_engine_that_never_started_is_fine(tiny_model: Path) -> None:
    await LocalEngine(str(tiny_model)).close()


async def test_a_question_is_answered_while_others_are_served(engine: LocalEngine) -> None:
    running = asyncio.create_task(engine.continuation(LONG))
    answers = await asyncio.gather(*(engine.introspect(AttentionQuestion("Hello world"), owner=1) for _ in range(5)))
    assert all(answer.weights.shape[:2] == (3, 4) for answer in answers)
    assert (await running).samples == (await engine.continuation(LONG)).samples


async def test_a_bad_question_is_refused_and_a_light_one_answered_while_the_worker_is_busy(engine: LocalEngine) -> None:
    async with held(engine):
        with pytest.raises(InvalidInputError, match="single token"):
            await engine.introspect(AttentionQuestion("a"))
        assert (await engine.introspect(TokensQuestion("ab"))).pieces == (b"a", b"b")


async def test_a_long_question_lets_others_have_their_turn(engine: LocalEngine) -> None:
    order: list[str] = []

    async def ask(owner: str, question: Question[Any]) -> None:
        await engine.introspect(question, owner=owner)
        order.append(owner)

    long = InsightsQuestion("Hello", (" theatre" * 10,) * 10)  # 21 steps
    async with held(engine):
        tasks = [asyncio.create_task(ask(owner, long)) for owner in ("one", "two")]
        await sent(engine, 2)
        tasks.append(asyncio.create_task(ask("three", SurpriseQuestion("Hello world"))))
        await sent(engine, 3)
    await asyncio.gather(*tasks)
    assert order[0] == "three"


async def test_a_question_that_nobody_waits_for_takes_no_more_steps(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    layers = ActivationReader.layers

    def counted(self: ActivationReader, ids: Sequence[int], **options: Any) -> Iterator[Any]:
        read.append(len(ids))
        return layers(self, ids, **options)

    monkeypatch.setattr(ActivationReader, "layers", counted)
    async with held(engine):
        asked = asyncio.create_task(engine.introspect(AttentionQuestion("Hello world")))
        await sent(engine, 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    await engine.introspect(SurpriseQuestion("Hello world"))
    assert len(read) == 1


async def test_a_question_that_fails_is_told_to_who_asked(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transformer, "residuals", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(UnavailableError, match="more memory than I have"):
        await engine.introspect(AttentionQuestion("Hello world"))
    monkeypatch.undo()
    await engine.introspect(AttentionQuestion("Hello world"))


async def test_stopping_refuses_questions_that_wait(engine: LocalEngine) -> None:
    async with held(engine):
        asked = asyncio.create_task(engine.introspect(AttentionQuestion("Hello world")))
        await sent(engine, 1)
        engine.stop()
    with pytest.raises(UnavailableError, match="shutting down"):
        await asked
    with pytest.raises(UnavailableError, match="shutting down"):
        await engine.introspect(TokensQuestion("Hello"))


async def test_too_many_questions_are_refused(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_WAITING", 2)
    async with held(engine):
        waiting = [asyncio.create_task(engine.introspect(AttentionQuestion("Hello world"))) for _ in range(2)]
        await sent(engine, 2)
        with pytest.raises(UnavailableError, match="2 requests are waiting"):
            await engine.introspect(AttentionQuestion("Hello world"))
    await asyncio.gather(*waiting)


async def sent(engine: LocalEngine, count: int) -> None:
    """Wait until so many questions are queued."""
    async with asyncio.timeout(20):
        while engine._scheduler.tasks_waiting < count:  # noqa: ASYNC110 # the scheduler has no event for this
            await asyncio.sleep(0.01)
