"""The dispatcher over real engines in this process, which suffer a cluster's failures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bot.errors import UserError
from bot.gpt2.cluster import dispatcher as dispatch
from bot.gpt2.cluster import protocol
from bot.gpt2.cluster.dispatcher import Dispatcher, Frame, ReplicaLostError, Report
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, Progress, Queued, SamplingParams
from bot.gpt2.statistics import Statistics
from bot.gpt2.throughput import Throughput
from tests.models import seeded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

SHORT = ContinuationRequest("Hello", SamplingParams(42, samples=2, length=12))
LONG = ContinuationRequest("Hello", SamplingParams(1, samples=10, length=60, top_k=0))


class Engines:
    """A pool of engines, each of which can die (its streams break) or hang (it falls silent)."""

    def __init__(self, engines: list[LocalEngine]) -> None:
        self.engines = engines
        self.dead: set[int] = set()
        self.hung: set[int] = set()
        self.taken: list[tuple[int, str | None]] = []
        self.ended = 0
        self._turn = 0

    async def size(self) -> int:
        return len(self.engines) - len(self.dead)

    async def generate(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        number = self._choose()
        engine = self.engines[number]
        self.taken.append((number, owner))
        ticket = None
        try:
            ticket = await engine.submit(protocol.decode(request), owner=owner)
            async for update in ticket.updates():
                if number in self.hung:
                    await asyncio.Event().wait()
                if number in self.dead:
                    raise ReplicaLostError("killed")
                if isinstance(update, Progress):
                    samples = await engine.samples(update.token_ids)
                    yield self._frame(number, protocol.Output(1, samples, 0.0, update.seconds, done=False))
            answer = await ticket.result()
            yield self._frame(number, protocol.Output(answer.prompt_tokens, answer.samples, 0.0, 0.0, done=True))
        except UserError as error:
            yield self._frame(number, protocol.to_refusal(error))
        finally:
            self.ended += 1
            if ticket:
                ticket.abandon()

    async def call(self, method: str, message: bytes, owner: str | None) -> bytes:
        engine = self.engines[self._choose()]
        try:
            asked = protocol.decode(message)
            answer: object = await (engine.prompt_tokens(asked) if method == "count" else engine.read(asked))
        except UserError as error:
            answer = protocol.to_refusal(error)
        return protocol.encode(answer)

    async def reports(self) -> list[Report]:
        alive = [number for number in range(len(self.engines)) if number not in self.dead]
        return [Report(f"replica {n}", self.engines[n].throughput, self.engines[n].statistics) for n in alive]

    def _choose(self) -> int:
        alive = [number for number in range(len(self.engines)) if number not in self.dead | self.hung]
        if not alive:
            raise ReplicaLostError("no replica is left")
        self._turn += 1
        return alive[self._turn % len(alive)]

    def _frame(self, number: int, said: object) -> Frame:
        throughput = self.engines[number].throughput
        assert throughput
        done = isinstance(said, protocol.Refusal) or (isinstance(said, protocol.Output) and said.done)
        begun = isinstance(said, protocol.Output) and said.tokens > 0
        return Frame(protocol.encode(said), done, begun, 0 if done else 1000, f"replica {number}", throughput)


@pytest.fixture
async def pool(tiny_model: Path) -> AsyncIterator[Engines]:
    engines = [LocalEngine(str(tiny_model), device="cpu") for _ in range(2)]
    for engine in engines:
        await engine.start()
    yield Engines(engines)
    await asyncio.gather(*(engine.close() for engine in engines))


@pytest.fixture
async def dispatcher(pool: Engines) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(pool)
    dispatcher.start()
    async with asyncio.timeout(20):
        while not (dispatcher.replicas and dispatcher._throughputs):  # noqa: ASYNC110 # it has no event for this
            await asyncio.sleep(0.01)
    yield dispatcher
    await dispatcher.close()


async def said_to(
    dispatcher: Dispatcher, name: str, request: ContinuationRequest = SHORT, owner: str | None = None
) -> list[Any]:
    return [protocol.decode(each) async for each in dispatcher.listen(name, request, owner) if each]


async def whole(pool: Engines, request: ContinuationRequest) -> Any:
    return (await pool.engines[0].continuation(request)).samples


async def until(true: Any) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_request_is_accepted_and_answered_with_what_its_seed_gives(
    dispatcher: Dispatcher, pool: Engines
) -> None:
    said = await said_to(dispatcher, "a")
    assert said[0] == protocol.Accepted(len(pool.engines[0]._loaded.tokenizer("Hello")["input_ids"]))
    assert said[-1].done
    assert said[-1].samples == await whole(pool, SHORT)
    assert dispatcher.waiting == 0


async def test_both_replicas_take_their_part(dispatcher: Dispatcher, pool: Engines) -> None:
    answers = await asyncio.gather(*(said_to(dispatcher, str(seed), seeded(SHORT, seed)) for seed in range(8)))
    for seed, said in enumerate(answers):
        assert said[-1].samples == await whole(pool, seeded(SHORT, seed))
    assert {number for number, _ in pool.taken} == {0, 1}
    assert dispatcher.computing == ("replica 0", "replica 1")


async def test_what_each_replica_has_done_is_told(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "REPORT_INTERVAL_SECONDS", 0.1)
    answers = await asyncio.gather(*(said_to(dispatcher, str(seed), seeded(SHORT, seed)) for seed in range(4)))
    await until(
        lambda: sum(each.tokens for each in dispatcher.statistics.values()) == sum(s[-1].tokens for s in answers)
    )
    for number, engine in enumerate(pool.engines):
        told = dispatcher.statistics[f"replica {number}"]
        assert told.tokens == engine.statistics.tokens > 0
        assert told.rows == engine.statistics.rows
    waits = sum(dispatcher.statistics.values(), Statistics()).first_token_seconds
    assert sum(waits.counts) == len(answers)


async def test_who_waits_here_waits_for_the_first_token_too(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "REPORT_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(dispatch, "_RETRY_SECONDS", (0.01,))
    pool.dead = {0, 1}
    asked = asyncio.create_task(said_to(dispatcher, "a"))
    await asyncio.sleep(0.5)
    pool.dead = set()
    await asked
    await until(lambda: sum(dispatcher.statistics.values(), Statistics()).first_token_seconds.total > 0.5)


async def test_a_replica_that_has_work_and_says_nothing_more_is_stalled_and_forgotten(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "REPORT_INTERVAL_SECONDS", 0.1)
    statistics = replace(pool.engines[1].statistics, computing=2)
    reports = pool.reports

    async def those_that_answer() -> list[Report]:
        said = await reports()
        return said[:1] if pool.hung else [said[0], said[1]._replace(statistics=statistics)]

    monkeypatch.setattr(pool, "reports", those_that_answer)
    await until(lambda: dispatcher.statistics["replica 1"].computing == 2)
    pool.hung.add(1)
    await until(lambda: dispatcher.statistics["replica 1"].stalled_seconds > 0.3)
    assert dispatcher.statistics["replica 1"].computing == 0
    assert dispatcher.statistics["replica 0"].stalled_seconds == 0
    monkeypatch.setattr(dispatch, "_STALE_SECONDS", 1.0)
    await until(lambda: set(dispatcher.statistics) == {"replica 0"})


async def test_a_prompt_that_does_not_fit_is_refused_before_its_turn(dispatcher: Dispatcher, pool: Engines) -> None:
    (said,) = await said_to(dispatcher, "a", ContinuationRequest("\x01" * 119 + "x", SamplingParams(0, length=9)))
    assert "The prompt has 120 tokens" in str(protocol.to_error(said))
    assert pool.taken == []


async def test_what_a_dying_replica_began_another_writes_again_word_for_word(
    dispatcher: Dispatcher, pool: Engines
) -> None:
    said = []
    async for each in dispatcher.listen("a", LONG, None):
        said.append(protocol.decode(each))
        if isinstance(said[-1], protocol.Output) and said[-1].tokens and not pool.dead:
            pool.dead.add(pool.taken[0][0])
    assert [number for number, _ in pool.taken] in ([0, 1], [1, 0])
    assert said[-1].samples == await whole(pool, LONG)
    assert sum(isinstance(each, protocol.Output) and each.done for each in said) == 1


async def test_a_replica_that_says_nothing_more_is_given_up(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "REPLICA_TIMEOUT_SECONDS", 0.5)
    said = []
    async for each in dispatcher.listen("a", LONG, None):
        said.append(protocol.decode(each))
        if isinstance(said[-1], protocol.Output) and not pool.hung:
            pool.hung.add(pool.taken[0][0])
    assert len(pool.taken) == 2
    assert said[-1].samples == await whole(pool, LONG)


async def test_a_request_under_which_every_replica_dies_is_refused(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = pool.generate

    async def deadly(request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        async with contextlib.aclosing(generate(request, owner)) as frames:
            yield await anext(frames)
        raise ReplicaLostError("killed by this request")

    monkeypatch.setattr(pool, "generate", deadly)
    monkeypatch.setattr(dispatch, "_RETRY_SECONDS", (0.01,))
    said = await said_to(dispatcher, "a")
    assert "Something went wrong" in str(protocol.to_error(said[-1]))
    assert len(pool.taken) == dispatch.MAX_REPLICA_LOSSES


async def test_without_any_replica_requests_wait_for_one(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_RETRY_SECONDS", (0.01,))
    pool.dead = {0, 1}
    asked = asyncio.create_task(said_to(dispatcher, "a"))
    await asyncio.sleep(0.3)
    assert not asked.done()
    pool.dead = {1}
    assert (await asked)[-1].samples == await whole(pool, SHORT)


async def test_who_comes_back_finds_the_request_where_it_is(dispatcher: Dispatcher, pool: Engines) -> None:
    async with contextlib.aclosing(dispatcher.listen("a", LONG, None)) as stream:
        async for each in stream:
            if each and isinstance(protocol.decode(each), protocol.Output):
                break  # the network is gone
    said = await said_to(dispatcher, "a", LONG)
    assert said[-1].samples == await whole(pool, LONG)
    assert isinstance(said[0], protocol.Accepted)
    assert len(pool.taken) == 1, "it was not computed again"


async def test_who_does_not_come_back_is_forgotten(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "RECONNECT_SECONDS", 0.05)
    async with contextlib.aclosing(dispatcher.listen("a", LONG, None)) as stream:
        await anext(stream)
    await until(lambda: not dispatcher._entries)
    await until(lambda: pool.ended == len(pool.taken))
    await until(lambda: not any(engine.waiting for engine in pool.engines))


async def test_what_is_dropped_ends_at_once(dispatcher: Dispatcher, pool: Engines) -> None:
    listening = asyncio.create_task(said_to(dispatcher, "a", LONG))
    await until(lambda: pool.taken)
    dispatcher.cancel("a")
    dispatcher.cancel("never heard of")
    await until(lambda: pool.ended == 1)
    assert dispatcher.waiting == 0
    listening.cancel()


async def test_one_persons_share_holds_over_bots_and_replicas(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_REPLICA_ROWS", 10)
    many = [asyncio.create_task(said_to(dispatcher, f"greedy {n}", LONG, "greedy")) for n in range(6)]
    await until(lambda: len(dispatcher._queue) == 4)
    modest = asyncio.create_task(said_to(dispatcher, "modest", LONG, "modest"))
    await asyncio.gather(*many, modest)
    assert [owner for _, owner in pool.taken].index("modest") <= 3


async def test_who_waits_is_told_place_and_time(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_REPLICA_ROWS", 5)
    answers = await asyncio.gather(*(said_to(dispatcher, str(n), LONG, str(n)) for n in range(5)))
    places = [[each.position for each in said if isinstance(each, Queued)] for said in answers]
    assert max(map(max, filter(None, places))) >= 3
    for seen in places:
        assert seen == sorted(seen, reverse=True), "nobody is put back"
    assert all(each.seconds > 0 for said in answers for each in said if isinstance(each, Queued))


async def test_too_many_are_refused(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_WAITING", 2)
    running = [asyncio.create_task(said_to(dispatcher, str(n), LONG)) for n in range(2)]
    await until(lambda: dispatcher.waiting == 2)
    (said,) = await said_to(dispatcher, "c")
    assert "2 requests are waiting already" in str(protocol.to_error(said))
    await asyncio.gather(*running)
    assert (await said_to(dispatcher, "c"))[-1].done


async def test_a_wait_longer_than_an_interaction_lives_is_refused(dispatcher: Dispatcher) -> None:
    running = asyncio.create_task(said_to(dispatcher, "a", LONG))
    await until(lambda: dispatcher.waiting)
    dispatcher._throughputs["slow"] = (Throughput(10.0, 10.0), time.monotonic() + 60)  # heard of later than all others
    (said,) = await said_to(dispatcher, "b")
    assert "longer than Discord lets me answer" in str(protocol.to_error(said))
    await running


async def test_another_question_is_asked_again_where_its_replica_died(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, lost = pool.call, []

    async def once(method: str, message: bytes, owner: str | None) -> bytes:
        if not lost:
            lost.append(method)
            raise ReplicaLostError("killed")
        return await call(method, message, owner)

    monkeypatch.setattr(pool, "call", once)
    part = await pool.engines[0].select("wpe")
    (answer,) = [protocol.decode(each) async for each in dispatcher.call("read", protocol.encode(part), None) if each]
    assert lost == ["read"]
    assert (answer == await pool.engines[1].read(part)).all()


async def test_a_stream_with_nothing_to_say_says_that_it_is_there(
    dispatcher: Dispatcher, pool: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "KEEPALIVE_SECONDS", 0.02)
    pool.dead = {0, 1}
    async with contextlib.aclosing(dispatcher.listen("a", SHORT, None)) as stream:
        assert [each for each in [await anext(stream) for _ in range(4)] if not each]
    async with contextlib.aclosing(dispatcher.call("read", protocol.encode(None), None)) as stream:
        assert await anext(stream) == b""
