"""The engine on a real Ray cluster of two nodes gives the same words as a local one, whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import random
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.errors import InvalidInputError, UnavailableError, UnreachableError
from bot.gpt2.cluster import dispatcher
from bot.gpt2.cluster import engine as cluster_module
from bot.gpt2.cluster.engine import ClusterEngine, ClusterTicket
from bot.gpt2.engine import MAX_WAITING
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.questions import (
    AblationQuestion,
    AttentionQuestion,
    ComparisonQuestion,
    HeadQuestion,
    InsightsQuestion,
    LensQuestion,
    NextTokensQuestion,
    TokensQuestion,
)
from bot.gpt2.requests import Continuation, ContinuationRequest, Loading, Progress, Queued, Sample, SamplingParams
from bot.gpt2.writing import WritingQuestion
from tests.models import seeded
from tests.ray_cluster import REPLICAS, Network, RayCluster, free_port, needs_ray, stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

pytestmark = needs_ray

REPLICA = "ServeReplica:gpt2:Replica"

SHORT = ContinuationRequest("Hello", SamplingParams(42, samples=3, length=12))
CROWD = 8  # requests that reach both replicas
LONG = ContinuationRequest("Hello", SamplingParams(1, samples=10, length=120, top_k=0))


@pytest.fixture
async def far(ray_cluster: RayCluster) -> AsyncIterator[ClusterEngine]:
    """An engine connected to the cluster."""
    async with started(ray_cluster.url) as engine:
        yield engine


@pytest.fixture
async def network(ray_cluster: RayCluster) -> AsyncIterator[Network]:
    async with Network(ray_cluster.front_end_port) as way:
        yield way


@pytest.fixture(autouse=True)
def _a_test_does_not_wait_for_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "REQUEST_TIMEOUT_SECONDS", 150.0)
    monkeypatch.setattr(cluster_module, "STATUS_SECONDS", 0.2)


@contextlib.asynccontextmanager
async def started(*addresses: str) -> AsyncIterator[ClusterEngine]:
    engine = ClusterEngine(addresses)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def until(true: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 # a cluster has no event for this
            await asyncio.sleep(0.05)


def tokens(engine: ClusterEngine) -> dict[str, int]:
    """Return the tokens of each replica, including those lost within the last minute."""
    return {name: each.tokens for name, each in engine.workers.items()}


async def all_replicas_compute(far: ClusterEngine) -> None:
    """Submit requests, a few at a time, until every replica has begun to write one."""

    def first_tokens() -> dict[str, int]:  # not `tokens`, which a replica reports later
        return {name: sum(each.first_token_seconds.counts) for name, each in far.workers.items()}

    before, seed = first_tokens(), itertools.count()
    async with asyncio.timeout(60):
        while sum(count > before.get(name, 0) for name, count in first_tokens().items()) < REPLICAS:
            await asyncio.gather(*(far.continuation(seeded(SHORT, next(seed))) for _ in range(4)))
            await asyncio.sleep(0.2)


def seeds(count: int, request: ContinuationRequest = LONG) -> list[ContinuationRequest]:
    return [seeded(request, seed) for seed in range(count)]


async def watched(ticket: ClusterTicket) -> list[Any]:
    """Return all updates of a ticket; assert that none is withdrawn or repeated."""
    seen: list[Any] = [update async for update in ticket.updates()]
    lengths = [sum(map(len, update.token_ids)) for update in seen if isinstance(update, Progress)]
    assert lengths == sorted(lengths)
    kinds = [isinstance(update, Progress) for update in seen]
    assert kinds == sorted(kinds), "who has begun to write does not wait again"
    assert all(one != two for one, two in itertools.pairwise(seen))
    whole = (await ticket.result()).samples
    for update in seen:
        if isinstance(update, Progress):
            for part, sample in zip(update.token_ids, whole, strict=True):
                assert sample.token_ids[: len(part)] == part
    return seen


async def begun(*tickets: ClusterTicket) -> None:
    """Wait until one of them has tokens."""
    await until(lambda: any(ticket.partial().new_tokens for ticket in tickets))


_answers: dict[ContinuationRequest, tuple[Sample, ...]] = {}


async def assert_same_here(engine: LocalEngine, answers: Iterable[Continuation]) -> None:
    """Assert that the local engine gives the same samples; it computes each request once for all tests."""
    answers = list(answers)
    new = {each.request for each in answers} - _answers.keys()
    for here in await asyncio.gather(*map(engine.continuation, new)):
        _answers[here.request] = here.samples
    for there in answers:
        assert there.samples == _answers[there.request]


def same(one: Any, two: Any) -> bool:
    """Return whether two answers are equal, arrays bit for bit."""
    if isinstance(one, np.ndarray):
        return bool(one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(two) and all(same(getattr(one, name), getattr(two, name)) for name in names)
    if isinstance(one, Mapping):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


class TestInterface:
    async def test_a_seed_gives_the_same_tokens_here_and_on_every_replica(
        self, far: ClusterEngine, engine: LocalEngine
    ) -> None:
        await until(lambda: far._status and far._status.replicas == 2)
        before = tokens(far)
        requests = seeds(24, SHORT)
        there = await asyncio.gather(*(far.continuation(request) for request in requests))
        for request, continuation in zip(requests, there, strict=True):
            here = await engine.continuation(request)
            assert continuation.samples == here.samples
            assert (continuation.request, continuation.prompt_tokens) == (request, here.prompt_tokens)
            assert not continuation.stopped
        await until(lambda: sum(count > before.get(name, 0) for name, count in tokens(far).items()) == 2)
        assert far.tokens_per_second
        assert far.statistics.tokens >= sum(each.new_tokens for each in there)

    async def test_a_ticket_tells_how_it_is_getting_on(self, far: ClusterEngine) -> None:
        seen = await watched(await far.submit(LONG))
        assert any(isinstance(update, Progress) for update in seen)

    @pytest.mark.slow
    async def test_who_waits_knows_the_place_in_the_queue(self, far: ClusterEngine, ray_cluster: RayCluster) -> None:
        request = ContinuationRequest("Hello", SamplingParams(1, samples=10, length=12))
        at_once = REPLICAS * dispatcher.MAX_REPLICA_ROWS // request.params.samples
        requests = seeds(at_once + 5, request)
        places: set[int] = set()

        async def watch(ticket: ClusterTicket) -> None:
            async for update in ticket.updates():
                if isinstance(update, Queued):
                    places.add(update.position)

        with stopped(*ray_cluster.pids("ServeReplica:gpt2:Replica")):  # or the queue may be gone before it is seen
            tickets = await asyncio.gather(*(far.submit(request, owner=request.seed) for request in requests))
            watching = [asyncio.create_task(watch(ticket)) for ticket in tickets]
            await until(lambda: places >= {1, 2, 3, 4, 5})
        await asyncio.gather(*watching)

    async def test_stop_keeps_what_is_there(self, far: ClusterEngine, engine: LocalEngine) -> None:
        ticket = await far.submit(LONG)
        await begun(ticket)
        ticket.stop()
        result, whole = await ticket.result(), await engine.continuation(LONG)
        assert result.stopped
        assert result.prompt_tokens == whole.prompt_tokens
        for part, sample in zip(result.samples, whole.samples, strict=True):
            assert sample.token_ids[: len(part.token_ids)] == part.token_ids
            assert part.text == engine._loaded.tokenizer.decode(part.token_ids, skip_special_tokens=True)
        await until(lambda: far._status and far._status.waiting == 0)

    async def test_a_cancelled_request_frees_the_cluster(self, far: ClusterEngine) -> None:
        running = [asyncio.create_task(far.continuation(request)) for request in seeds(6)]
        await asyncio.sleep(0.2)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await until(lambda: far._status and far._status.waiting == 0 and far.waiting == 0, seconds=8)

    async def test_what_does_not_fit_the_context_is_refused_with_the_numbers(self, far: ClusterEngine) -> None:
        with pytest.raises(InvalidInputError, match=r"has 120 tokens.*length of 9, at most 119 fit into"):
            await far.submit(ContinuationRequest("\x01" * 119 + "x", SamplingParams(0, length=9)))

    async def test_parameters_are_those_of_the_model(self, far: ClusterEngine, engine: LocalEngine) -> None:
        assert await far.model() == await engine.model()
        assert await far.parameters() == await engine.parameters()
        assert await far.complete_name("c_attn", 3) == await engine.complete_name("c_attn", 3)
        part = await far.select("wpe", "3:9", ":5")
        values = await far.read(part)
        assert values.dtype == "float32"
        assert (values == await engine.read(part)).all()
        with pytest.raises(InvalidInputError, match="There is no parameter"):
            await far.select("nope")

    @pytest.mark.parametrize(
        "question",
        [
            TokensQuestion("Hello, “world” 🦙"),
            AttentionQuestion("Hello, I'm a language model,"),
            NextTokensQuestion(
                "Hello", SamplingParams(5, temperature=0.7, top_k=20), written=(b",", b"\xf0"), draw=True
            ),
            LensQuestion("Hello there", 3, until=4),
            ComparisonQuestion("Hello", "I'm a model"),
            AblationQuestion("Hello there", ((1, 2), (2, 1))),
            WritingQuestion(ContinuationRequest("Hello", SamplingParams(42, 2, 6)), 2),
            InsightsQuestion("Hello", (" there", (1, 2, 3))),
        ],
        ids=lambda question: type(question).__name__,
    )
    async def test_what_the_model_does_inside_is_the_same(
        self, far: ClusterEngine, engine: LocalEngine, question: Any
    ) -> None:
        assert same(await far.introspect(question, owner=1), await engine.introspect(question, owner=1))

    async def test_a_question_that_cannot_be_is_refused_as_here(self, far: ClusterEngine) -> None:
        with pytest.raises(InvalidInputError, match="There is no layer 99"):
            await far.introspect(HeadQuestion("Hello", 99, 1))

    @pytest.mark.slow
    async def test_many_at_once_are_refused_and_those_given_up_leave_no_replica_idle(
        self, far: ClusterEngine, ray_cluster: RayCluster
    ) -> None:
        tickets, refused = [], []
        with stopped(*ray_cluster.pids(REPLICA)):  # or each that is done in the meantime lets in one more
            asked = (far.submit(request, owner=request.seed) for request in seeds(MAX_WAITING + 20, SHORT))
            for each in await asyncio.gather(*asked, return_exceptions=True):
                (refused if isinstance(each, BaseException) else tickets).append(each)
            for ticket in tickets:
                ticket.abandon()
            await until(lambda: far._status and far._status.waiting == 0)
        assert len(refused) == 20
        assert all("requests are waiting already" in str(each) for each in refused), refused[:1]
        await all_replicas_compute(far)

    async def test_closing_tells_who_waits(self, ray_cluster: RayCluster) -> None:
        async with started(ray_cluster.url) as engine:
            with stopped(*ray_cluster.pids(REPLICA)):  # or a fast machine has answered them
                running = [asyncio.create_task(engine.continuation(request)) for request in seeds(3)]
                await until(lambda: engine.waiting == len(running))
                engine.stop()
                for result in await asyncio.gather(*running, return_exceptions=True):
                    assert "shutting down" in str(result)
            with pytest.raises(UnavailableError, match="shutting down"):
                await engine.submit(SHORT)


class TestFailures:
    @pytest.mark.slow
    async def test_replicas_killed_in_mid_generation(
        self, far: ClusterEngine, engine: LocalEngine, ray_cluster: RayCluster
    ) -> None:
        victim = ray_cluster.pids(REPLICA)[0]  # looked up before, as it may take as long as the generation
        tickets = await asyncio.gather(*(far.submit(request) for request in seeds(CROWD)))
        watching = [asyncio.create_task(watched(ticket)) for ticket in tickets]
        await begun(*tickets)
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*watching)
        await assert_same_here(engine, [await ticket.result() for ticket in tickets])
        await self.whole(far, ray_cluster)

    @pytest.mark.slow
    async def test_a_replica_that_hangs_in_mid_generation_and_goes_on_later(
        self, far: ClusterEngine, engine: LocalEngine, ray_cluster: RayCluster
    ) -> None:
        victim = ray_cluster.pids(REPLICA)[0]  # looked up before, as it may take as long as the generation
        # So many that a fast machine has not computed them all before one replica hangs.
        tickets = await asyncio.gather(*(far.submit(request) for request in seeds(3 * CROWD)))
        watching = [asyncio.create_task(watched(ticket)) for ticket in tickets]
        await begun(*tickets)
        os.kill(victim, signal.SIGSTOP)
        began = time.monotonic()
        try:
            async with asyncio.timeout(3 * dispatcher.REPLICA_TIMEOUT_SECONDS):
                await asyncio.gather(*watching)
            assert time.monotonic() - began > dispatcher.REPLICA_TIMEOUT_SECONDS / 2, "it had nothing to do"
            # What comes while it still hangs does not wait for it for ever, either.
            request = seeded(SHORT, 77)
            async with asyncio.timeout(3 * dispatcher.REPLICA_TIMEOUT_SECONDS):
                assert (await far.continuation(request)).samples == (await engine.continuation(request)).samples
        finally:
            with contextlib.suppress(ProcessLookupError):  # Ray Serve may have replaced it
                os.kill(victim, signal.SIGCONT)
        await assert_same_here(engine, [await ticket.result() for ticket in tickets])
        await self.whole(far, ray_cluster)
        # It has dropped its requests, which others have finished.
        await until(lambda: not far.statistics.computing and far._status and not far._status.waiting)

    @pytest.mark.slow
    async def test_the_front_end_killed_in_mid_generation(
        self, far: ClusterEngine, engine: LocalEngine, ray_cluster: RayCluster
    ) -> None:
        victim = ray_cluster.pids("ServeReplica:gpt2:FrontEnd")[0]
        tickets = await asyncio.gather(*(far.submit(request) for request in seeds(CROWD)))
        watching = [asyncio.create_task(watched(ticket)) for ticket in tickets]
        await begun(*tickets)
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*watching)
        await assert_same_here(engine, [await ticket.result() for ticket in tickets])
        await self.whole(far, ray_cluster)

    @pytest.mark.slow
    async def test_the_head_killed_and_started_again(
        self, far: ClusterEngine, engine: LocalEngine, ray_cluster: RayCluster
    ) -> None:
        tickets = await asyncio.gather(*(far.submit(request) for request in seeds(CROWD)))
        watching = [asyncio.create_task(watched(ticket)) for ticket in tickets]
        await begun(*tickets)
        await asyncio.to_thread(ray_cluster.restart)
        await asyncio.gather(*watching)
        await assert_same_here(engine, [await ticket.result() for ticket in tickets])
        await self.whole(far, ray_cluster)

    @staticmethod
    async def whole(far: ClusterEngine, ray_cluster: RayCluster) -> None:
        """Wait until Ray Serve has restored everything."""
        await until(lambda: len(ray_cluster.pids(REPLICA)) == 2)
        await until(lambda: far.ready and far._status and far._status.replicas == 2)


class TestScaling:
    @pytest.mark.slow
    async def test_a_new_version_and_the_coming_and_going_of_a_replica_lose_no_request(
        self, far: ClusterEngine, engine: LocalEngine, ray_cluster: RayCluster
    ) -> None:
        updated, many, few = asyncio.Event(), asyncio.Event(), asyncio.Event()
        numbers = itertools.count()
        answered: list[Continuation] = []

        async def asking(end: asyncio.Event, request: ContinuationRequest = LONG) -> None:
            while not end.is_set():
                number = next(numbers)
                answered.append(await far.continuation(seeded(request, number), owner=number))

        def replicas() -> int:
            return far._status.replicas if far._status else 0

        old = set(ray_cluster.pids(REPLICA))
        tasks = [asyncio.create_task(asking(updated, SHORT))]
        try:
            await asyncio.to_thread(ray_cluster.deploy, "--replicas", "1-2")
            await until(lambda: replicas() == 1 == len(ray_cluster.pids(REPLICA)))
            meanwhile, before = len(answered), tokens(far)
            assert meanwhile
            assert not old & set(ray_cluster.pids(REPLICA))
            updated.set()
            # Ray Serve sees what the front end dispatches: with a queue, more than the target of one replica.
            with stopped(*ray_cluster.pids(REPLICA)):  # or it would slow the start of the other one
                tasks += [asyncio.create_task(asking(many)) for _ in range(10)]
                tasks += [asyncio.create_task(asking(few)) for _ in range(2)]
                await until(lambda: replicas() == 2)
            await until(lambda: sum(count > before.get(name, 0) for name, count in tokens(far).items()) == 2)
            many.set()
            # One is enough for the two who go on, and the other one goes in the midst of what it has of theirs.
            await until(lambda: replicas() == 1 == len(ray_cluster.pids(REPLICA)))
        finally:
            for event in (updated, many, few):
                event.set()
            await asyncio.gather(*tasks)
            await asyncio.to_thread(ray_cluster.deploy)
        assert sorted(each.request.seed for each in answered) == list(range(next(numbers)))
        for some in (answered[:meanwhile], answered[meanwhile:]):
            await assert_same_here(engine, random.Random(1).sample(some, min(len(some), 8)))
        await TestFailures.whole(far, ray_cluster)


class TestNetwork:
    @pytest.mark.slow
    async def test_a_network_that_is_gone_for_a_while(
        self, network: Network, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster_module, "READ_TIMEOUT_SECONDS", 6.0)
        async with started(network.url) as far:
            tickets = [await far.submit(request) for request in seeds(4)]
            watching = [asyncio.create_task(watched(ticket)) for ticket in tickets]
            await begun(*tickets)
            network.swallow()
            await until(lambda: not far.ready, seconds=20)
            network.restore()
            await asyncio.gather(*watching)
            await assert_same_here(engine, [await ticket.result() for ticket in tickets])

    async def test_connections_that_break_again_and_again(self, network: Network, engine: LocalEngine) -> None:
        async with started(network.url) as far:
            ticket = await far.submit(LONG)
            watching = asyncio.create_task(watched(ticket))
            for _ in range(3):
                await asyncio.sleep(0.15)
                network.cut()
            await watching
            assert (await ticket.result()).samples == (await engine.continuation(LONG)).samples

    async def test_a_cluster_that_is_long_gone_refuses_what_is_new_and_gives_up_what_is_old_in_time(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster_module, "UNREACHABLE_SECONDS", 1.0)
        monkeypatch.setattr(cluster_module, "CONNECT_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr(cluster_module, "READ_TIMEOUT_SECONDS", 0.5)
        async with started(network.url) as far:
            network.swallow()
            network.cut()
            monkeypatch.setattr(cluster_module, "REQUEST_TIMEOUT_SECONDS", 3.0)
            ticket = await far.submit(SHORT)
            assert Loading() in [update async for update in ticket.updates()]
            with pytest.raises(UnavailableError, match="did not answer in time"):
                await ticket.result()
            with pytest.raises(UnavailableError, match="can't reach the machines"):
                await far.submit(SHORT)
            network.restore()
            await until(lambda: far.ready)
            monkeypatch.setattr(cluster_module, "REQUEST_TIMEOUT_SECONDS", 60.0)
            assert (await far.continuation(SHORT)).new_tokens

    async def test_a_second_address_is_taken_where_the_first_does_not_answer(self, ray_cluster: RayCluster) -> None:
        async with started(f"http://127.0.0.1:{free_port()}", ray_cluster.url) as far:
            assert (await far.continuation(SHORT)).new_tokens

    async def test_no_cluster_at_all_is_told_to_the_host_and_to_who_waits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster_module, "START_TIMEOUT_SECONDS", 0.5)
        engine = ClusterEngine([f"http://127.0.0.1:{free_port()}"])
        waiting = asyncio.create_task(engine.model())
        with pytest.raises(UnreachableError, match="python -m bot cluster"):
            await engine.start()
        with pytest.raises(UnavailableError, match="could not be loaded"):
            await waiting
        await engine.close()
