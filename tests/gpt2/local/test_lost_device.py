"""An engine whose GPU is lost fails everything at once and says so; one whose GPU is full fails one request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import torch
from structlog.testing import capture_logs

from bot.errors import DeviceLostError, UnavailableError
from bot.gpt2.lazy_engine import LazyEngine
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.local.sequences import SequenceGroup
from bot.gpt2.model.transformer import Transformer
from bot.gpt2.questions import AttentionQuestion
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from tests.loopback.losing import ERROR
from tests.models import several

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def request(seed: int = 1) -> ContinuationRequest:
    return ContinuationRequest("Hello", SamplingParams(seed, samples=2, length=60))


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, seed: int | None = None) -> None:
    """Have the passes of one request fail, or all of them."""
    attend = SequenceGroup.attend

    def sabotaged(self: SequenceGroup, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        if seed in (None, self.request.seed):
            raise error
        return attend(self, layer, qkv)

    monkeypatch.setattr(SequenceGroup, "attend", sabotaged)


def fail(error: Exception) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


async def check_lost(engine: LocalEngine) -> None:
    """Check that the engine computes nothing any more, and says why."""
    async with asyncio.timeout(5):
        with pytest.raises(DeviceLostError, match="illegal memory access") as caught:
            await engine.watch()
    assert engine.fault is caught.value
    assert "\n" not in str(caught.value)
    for call in (engine.continuation(request()), engine.introspect(AttentionQuestion("Hello"))):
        with pytest.raises(DeviceLostError):
            await call
    assert engine.waiting == 0
    if engine._computing:
        await asyncio.wait({engine._computing})
    assert not engine.statistics.stalled_seconds


async def test_a_lost_gpu_fails_every_request(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, RuntimeError(ERROR), seed=2)
    with capture_logs() as logs:
        results = await asyncio.gather(
            *(engine.continuation(request(seed)) for seed in (1, 2, 3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [DeviceLostError] * 3
        await check_lost(engine)
    (line,) = [line for line in logs if line["log_level"] in ("error", "warning")]
    assert line["event"] == "the GPU is lost; a restart is needed"
    assert "exc_info" not in line


async def test_a_question_notices_a_lost_gpu(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transformer, "residuals", fail(torch.AcceleratorError(ERROR)))
    with pytest.raises(DeviceLostError):
        await engine.introspect(AttentionQuestion("Hello world"))
    await check_lost(engine)


async def test_a_gpu_lost_while_a_request_begins_is_noticed(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SequenceGroup, "__init__", fail(RuntimeError(ERROR)))
    with pytest.raises(DeviceLostError):
        await engine.continuation(request())
    await check_lost(engine)


async def test_a_full_gpu_fails_one_request(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (await engine.continuation(request(1))).samples
    failing(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), seed=2)
    results = await asyncio.gather(*(engine.continuation(request(seed)) for seed in (1, 2)), return_exceptions=True)
    assert not isinstance(results[0], BaseException)
    assert results[0].samples == expected
    assert isinstance(results[1], UnavailableError)
    assert "more memory than I have" in str(results[1])
    assert engine.fault is None


async def test_watching_ends_with_the_engine(engine: LocalEngine) -> None:
    watching = asyncio.create_task(engine.watch())
    await engine.continuation(request())
    assert not watching.done()
    engine.stop()
    await watching


@pytest.mark.parametrize("lost", [0, 1])
async def test_every_model_of_several_is_watched(
    tiny_model: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    async with several(tiny_model, other_model) as models:
        watching = asyncio.create_task(models.watch())
        engines = list(models.engines.values())
        assert isinstance(engines[1], LazyEngine)
        for engine in engines:
            await engine.continuation(request())
        assert not watching.done()
        failing(monkeypatch, RuntimeError(ERROR))
        with pytest.raises(DeviceLostError):
            await engines[lost].continuation(request())
        async with asyncio.timeout(5):
            with pytest.raises(DeviceLostError):
                await watching
