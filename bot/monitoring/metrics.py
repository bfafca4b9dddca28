"""Metrics for Prometheus: requests counted as they end; engine, gateway and process read at each scrape."""

from __future__ import annotations

import asyncio
import math
from importlib import metadata
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from bot.client import GPT2Client
    from bot.gpt2.statistics import Distribution, Statistics
    from bot.interactions.request_log import LogEntry

LOOP_SECONDS: Final = 0.5
"""Between two measurements of the event loop's delay."""

_REQUEST_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_LOOP_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)  # Discord's deadline is 3 s


class Metrics:
    """The metrics of one bot, in their own registry."""

    def __init__(self, client: GPT2Client) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gpt2_requests", "Completed requests by outcome.", ["command", "outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "gpt2_request_seconds",
            "Time from the arrival of a request to its complete answer.",
            ["command"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._loop_delay = Histogram(
            "gpt2_event_loop_delay_seconds",
            "How late the event loop resumes a timer.",
            buckets=_LOOP_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_Gauges(client))
        ProcessCollector(registry=self.registry)  # memory, CPU, file descriptors; on Linux
        PlatformCollector(registry=self.registry)
        client.pipeline.request_log.observers.append(self._count)

    async def watch_event_loop(self) -> None:
        """Measure the event loop's delay until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(LOOP_SECONDS)
            self._loop_delay.observe(max(loop.time() - began - LOOP_SECONDS, 0.0))

    def _count(self, entry: LogEntry) -> None:
        self._requests.labels(entry.command, entry.outcome.value).inc()
        self._seconds.labels(entry.command).observe(entry.seconds)


class _Gauges(Collector):
    """Metrics that are read at each scrape rather than counted as they happen."""

    def __init__(self, client: GPT2Client) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        yield from self._engine()
        yield from self._gateway()

    def _engine(self) -> Iterator[Metric]:
        models, default = self._client.models, self._client.engine
        # With one model nothing is labelled with it but the info, so that its series go on.
        engines = models.engines if models.several else {default.model_name: default}
        by = ("model",) if models.several else ()
        info = GaugeMetricFamily("gpt2_info", "Always 1; version and model as labels.", labels=["version", "model"])
        flying = GaugeMetricFamily("gpt2_requests_in_flight", "Continuations accepted and not yet answered.", labels=by)
        computing = GaugeMetricFamily("gpt2_requests_computing", "Continuations being computed.", labels=by)
        queue = GaugeMetricFamily("gpt2_queue_depth", "Continuations waiting.", labels=by)
        loaded = GaugeMetricFamily("gpt2_model_loaded", "Whether each of several models is loaded.", labels=["model"])
        for name, engine in engines.items():
            label, running = [name] if by else [], engine.statistics.computing
            info.add_metric([metadata.version("gpt2-for-discord"), name], 1)
            flying.add_metric(label, engine.waiting)
            computing.add_metric(label, running)
            queue.add_metric(label, max(engine.waiting - running, 0))
            loaded.add_metric([name], engine.ready)
        yield from (info, flying, computing, queue, *([loaded] if by else []))
        yield GaugeMetricFamily("gpt2_model_ready", "Whether the (default) model is loaded.", value=default.ready)
        if by:
            # One thread computes for all of them.
            yield from _workers({name: engine.statistics for name, engine in engines.items()}, by, 1)
        else:
            workers = default.workers
            yield from _workers(workers, () if set(workers) == {""} else ("replica",), len(workers))

    def _gateway(self) -> Iterator[Metric]:
        shards = self._client.shards
        connected = GaugeMetricFamily("gpt2_gateway_connected", "Whether the shard is connected.", labels=["shard"])
        latency = GaugeMetricFamily(
            "gpt2_gateway_latency_seconds", "Time from heartbeat to acknowledgement.", labels=["shard"]
        )
        for number, shard in shards.items():
            connected.add_metric([str(number)], not shard.is_closed())
            if math.isfinite(shard.latency):
                latency.add_metric([str(number)], shard.latency)
        yield connected
        yield latency
        yield GaugeMetricFamily("gpt2_servers", "Servers the bot is in.", value=len(self._client.guilds))


def _workers(workers: Mapping[str, Statistics], by: tuple[str, ...], count: int) -> Iterator[Metric]:
    """Yield the statistics of each worker.

    Replicas and models are labelled, because a sum would fall when one is removed.
    """
    tokens = CounterMetricFamily("gpt2_tokens", "New tokens computed.", labels=by)
    prompts = CounterMetricFamily("gpt2_prompt_tokens", "Prompt tokens computed.", labels=by)
    rows = HistogramMetricFamily("gpt2_pass_rows", "Rows (sample and prompt tokens) in one pass.", labels=by)
    firsts = HistogramMetricFamily(
        "gpt2_first_token_seconds", "Time from accepting a request to its first token.", labels=by
    )
    stalled = GaugeMetricFamily(
        "gpt2_worker_stalled_seconds", "Time since a busy worker last made progress.", labels=by
    )
    drafted = CounterMetricFamily("gpt2_drafted_tokens", "Drafted tokens compared with the model's own.", labels=by)
    accepted = CounterMetricFamily("gpt2_accepted_tokens", "Drafted tokens that were right.", labels=by)
    for name, statistics in sorted(workers.items()):
        label = [name] if by else []
        tokens.add_metric(label, statistics.tokens)
        prompts.add_metric(label, statistics.prompt_tokens)
        drafted.add_metric(label, statistics.drafted)
        accepted.add_metric(label, statistics.accepted)
        rows.add_metric(label, _buckets(statistics.rows), statistics.rows.total)
        firsts.add_metric(label, _buckets(statistics.first_token_seconds), statistics.first_token_seconds.total)
        stalled.add_metric(label, statistics.stalled_seconds)
    yield from (tokens, prompts, drafted, accepted, rows, firsts, stalled)
    yield GaugeMetricFamily("gpt2_workers", "Workers, or reachable replicas of a cluster.", value=count)


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in distribution.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(distribution.counts)), strict=True))
