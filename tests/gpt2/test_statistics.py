"""The numbers that an engine gives of itself."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.statistics import Distribution, Histogram, Statistics

REQUEST = ContinuationRequest("Hello", SamplingParams(1, samples=4, length=6, top_k=0))


async def test_tokens_passes_and_first_tokens_are_counted(engine: LocalEngine) -> None:
    assert engine.statistics == Statistics()
    results = [await engine.continuation(REQUEST), await engine.continuation(REQUEST)]
    seen = engine.statistics
    assert seen.tokens == sum(result.new_tokens for result in results)
    assert seen.prompt_tokens == sum(result.prompt_tokens for result in results)
    # A prompt's one row gives the first token of every sample. Each pass after that counts one row a sample, from which
    # come the sample's next token and its right drafts, as many as the engine found worth drafting.
    firsts = sum(len(result.samples) for result in results)
    assert seen.rows.total == seen.prompt_tokens + seen.tokens - firsts - seen.accepted
    assert 0 <= seen.accepted <= seen.drafted
    assert sum(seen.first_token_seconds.counts) == len(results)
    assert 0 < seen.first_token_seconds.total < sum(result.seconds for result in results) + 1


async def test_a_worker_that_gives_no_sign_of_life_is_told_from_one_that_has_nothing_to_do(
    engine: LocalEngine,
) -> None:
    await engine.continuation(REQUEST)
    await asyncio.sleep(0.05)
    assert engine.statistics.stalled_seconds == 0
    gate = threading.Event()
    engine._worker.loader.submit(gate.wait)
    ticket = await engine.submit(REQUEST)
    while engine.statistics.stalled_seconds < 0.02:  # noqa: ASYNC110 # time itself is what is waited for
        await asyncio.sleep(0.01)
    gate.set()
    await ticket.result()
    while engine.statistics.stalled_seconds:  # noqa: ASYNC110 # the worker looks once more whether there is work
        await asyncio.sleep(0)


async def test_an_engine_that_was_not_started_has_done_nothing(tiny_model: object) -> None:
    engine = LocalEngine(str(tiny_model))
    assert engine.statistics == Statistics()
    await engine.close()


def test_a_value_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1, 2, 5))
    for value in (0.5, 1, 1.5, 5, 6):
        histogram.add(value)
    assert histogram.snapshot() == Distribution((1, 2, 5), (2, 1, 1, 1), 14)


def test_several_engines_are_counted_together() -> None:
    one, two = Distribution((1, 2), (1, 0, 4), 20), Distribution((1, 2), (0, 3, 0), 5)
    assert one + two == Distribution((1, 2), (1, 3, 4), 25)
    with pytest.raises(ValueError, match="different buckets"):
        one + Distribution.empty((1, 3))
