"""Several models in one bot: loaded when asked for, dropped when idle, exact, and fair to each other."""

from __future__ import annotations

import asyncio
import shutil
import threading
from typing import TYPE_CHECKING

import pytest
import structlog

from bot.cli.models import measure
from bot.config import Settings
from bot.errors import InvalidInputError, ModelInvalidError, SettingsError, UnavailableError
from bot.gpt2 import models as models_module
from bot.gpt2.lazy_engine import LazyEngine
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.local.worker import Share, SharedWorker
from bot.gpt2.model_info import name_checksum
from bot.gpt2.models import Models
from bot.gpt2.questions import TokensQuestion
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from tests.models import make_model, several

if TYPE_CHECKING:
    from pathlib import Path

    from bot.gpt2.engine import Engine

PROMPT = "Hello, I'm a language model,"


def request(seed: int = 42, samples: int = 2, length: int = 12) -> ContinuationRequest:
    return ContinuationRequest(PROMPT, SamplingParams(seed, samples, length))


def size(folder: Path) -> int:
    return measure(Settings(), str(folder))


def lazy(models: Models, name: str) -> LazyEngine:
    engine = models.engines[name]
    assert isinstance(engine, LazyEngine)
    return engine


async def alone(folder: Path, *requests: ContinuationRequest) -> list[tuple[tuple[int, ...], ...]]:
    """Return the tokens that a model writes by itself."""
    engine = LocalEngine(str(folder), device="cpu", threads=1)
    try:
        await engine.start()
        return [await tokens(engine, each) for each in requests]
    finally:
        await engine.close()


async def tokens(engine: Engine, asked: ContinuationRequest) -> tuple[tuple[int, ...], ...]:
    return tuple(sample.token_ids for sample in (await engine.continuation(asked)).samples)


@pytest.fixture(scope="module")
def third_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "third-gpt2", layers=2, heads=2, width=48, seed=12)


async def test_each_writes_the_same_words_whatever_the_others_do(tiny_model: Path, other_model: Path) -> None:
    requests = [request(seed) for seed in range(10)]
    expected = [await alone(folder, *requests) for folder in (tiny_model, other_model)]
    async with several(tiny_model, other_model) as models:
        found = await asyncio.gather(*(tokens(engine, each) for each in requests for engine in models.engines.values()))
    assert [found[0::2], found[1::2]] == expected
    assert expected[0] != expected[1]


async def test_a_model_is_loaded_once_by_whoever_asks_first(tiny_model: Path, other_model: Path) -> None:
    async with several(tiny_model, other_model) as models:
        engine = lazy(models, "other-gpt2")
        assert not engine.ready
        assert await engine.complete_name("wte", 5) == ()
        with structlog.testing.capture_logs() as logged:
            await asyncio.gather(*(engine.introspect(TokensQuestion(PROMPT)) for _ in range(20)))
        assert [entry["event"] for entry in logged].count("loading the model") == 1
        assert engine.ready
        assert engine.idle


async def test_the_least_recently_used_idle_model_makes_room(
    tiny_model: Path, other_model: Path, third_model: Path
) -> None:
    budget = size(tiny_model) + size(other_model) + size(third_model) - 1
    async with several(tiny_model, other_model, third_model, budget=budget) as models:
        other, third = lazy(models, "other-gpt2"), lazy(models, "third-gpt2")
        first = await tokens(other, request())
        assert await tokens(third, request()) != first
        assert (other.ready, third.ready, models.default.ready) == (False, True, True)
        assert (await other.model()).layers == 2, "its description needs no loading"
        assert not other.ready
        assert await tokens(other, request()) == first
        assert (other.ready, third.ready) == (True, False)


async def test_running_work_keeps_a_model(tiny_model: Path, other_model: Path, third_model: Path) -> None:
    budget = size(tiny_model) + size(other_model)
    async with several(tiny_model, other_model, third_model, budget=budget) as models:
        other, third = lazy(models, "other-gpt2"), lazy(models, "third-gpt2")
        tickets = [await other.submit(request(seed, length=60)) for seed in range(8)]
        arrived = asyncio.create_task(tokens(third, request()))
        await asyncio.sleep(0)
        late = asyncio.create_task(tokens(other, request(3, length=60)))
        done, _ = await asyncio.wait(
            {asyncio.create_task(each.result()) for each in tickets} | {arrived}, return_when=asyncio.FIRST_COMPLETED
        )
        assert arrived not in done
        assert not third.ready
        results = [await each.result() for each in tickets]
        assert all(not each.stopped for each in results)
        assert await arrived
        assert await late == tuple(sample.token_ids for sample in results[3].samples), "it was loaded again"


async def test_a_busy_memory_refuses_with_a_sentence(
    tiny_model: Path, other_model: Path, third_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "GIVE_WAY_SECONDS", 0.0)
    budget = size(tiny_model) + size(other_model)
    async with several(tiny_model, other_model, third_model, budget=budget) as models:
        other = lazy(models, "other-gpt2")
        running = [await other.submit(request(seed, samples=5, length=90)) for seed in range(8)]
        refused, allowed = await asyncio.gather(
            tokens(models.engines["third-gpt2"], request()), tokens(other, request()), return_exceptions=True
        )
        assert str(refused).startswith("There is no memory for third-gpt2 while other models are busy.")
        assert not isinstance(allowed, BaseException), "it stays in use"
        assert not any([(await each.result()).stopped for each in running])
        monkeypatch.setattr(models_module, "GIVE_WAY_SECONDS", 10.0)
        assert await tokens(models.engines["third-gpt2"], request()), "the next request is another try"


async def test_a_model_that_never_fits_is_refused(tiny_model: Path, other_model: Path) -> None:
    async with several(tiny_model, other_model, budget=size(tiny_model) + size(other_model) - 1) as models:
        with pytest.raises(UnavailableError, match="other-gpt2 needs more memory than my operator gives"):
            await models.engines["other-gpt2"].model()
        assert await tokens(models.default, request())


async def test_a_failing_model_fails_alone_and_is_tried_again(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-gpt2"
    shutil.copytree(other_model, broken)
    config = (broken / "config.json").read_text()
    async with several(tiny_model, broken) as models:
        (broken / "config.json").write_text("{")
        with structlog.testing.capture_logs() as logged:
            refusals = await asyncio.gather(
                *(tokens(models.engines["broken-gpt2"], request()) for _ in range(3)), return_exceptions=True
            )
        assert {str(each).partition(".")[0] for each in refusals} == {"broken-gpt2 could not be loaded"}
        (line,) = [entry for entry in logged if entry["log_level"] == "error"]
        assert (line["event"], line["model"]) == ("a model could not be loaded", "broken-gpt2")
        assert "config.json cannot be read as JSON" in line["error"]
        assert await tokens(models.default, request())
        (broken / "config.json").write_text(config)
        assert await tokens(models.engines["broken-gpt2"], request()) == (await alone(other_model, request()))[0]


async def test_a_cancelled_caller_leaves_no_lease(tiny_model: Path, other_model: Path) -> None:
    async with several(tiny_model, other_model) as models:
        engine = lazy(models, "other-gpt2")
        callers = [asyncio.create_task(tokens(engine, request(samples=5, length=90))) for _ in range(4)]
        await asyncio.sleep(0)
        callers[0].cancel()
        await engine.start()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        async with asyncio.timeout(10):
            while not engine.idle:  # noqa: ASYNC110 # it announces nothing
                await asyncio.sleep(0.01)
        assert await engine.give_way(0)
        assert not engine.ready


async def test_closing_ends_what_waits_for_a_model(tiny_model: Path, other_model: Path) -> None:
    async with several(tiny_model, other_model) as models:
        waiting = asyncio.create_task(tokens(models.engines["other-gpt2"], request()))
        await asyncio.sleep(0)
        models.stop()
        with pytest.raises(UnavailableError, match="shutting down"):
            await waiting
        with pytest.raises(UnavailableError, match="shutting down"):
            await models.engines["other-gpt2"].model()


async def test_engines_that_share_a_thread_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.gpt2.local.worker.TURN_SECONDS", 0.0)
    turns: list[str] = []

    class Pass:
        def __init__(self, name: str, left: int) -> None:
            self.name, self.left = name, left

        def run(self, _: float) -> bool:
            turns.append(self.name)
            self.left -= 1
            return self.left > 0

    shared = SharedWorker()
    shares = Share(shared), Share(shared)
    running = [share.run(Pass(name, 5)) for share, name in zip(shares, "ab", strict=True)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert [share.sharers for share in shares] == [2, 2]
    await asyncio.gather(*running)
    assert "aa" not in "".join(turns)[1:-1]
    assert shared.sharers == 0
    for share in shares:
        share.close()
    shared.close()


async def test_the_thread_that_loaded_a_model_ends(tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
    """OpenMP counts its pool of threads as long as it lives, and waits less well with more threads than cores."""

    def threads() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if each.name.startswith("gpt2-loader")}

    before, shared = threads(), SharedWorker()
    engines = [LocalEngine(str(folder), device="cpu", shared=shared) for folder in (tiny_model, other_model, tmp_path)]
    for engine in engines[:2]:
        await engine.start()
    with pytest.raises(ModelInvalidError):
        await engines[2].start()
    for thread in threads() - before:
        await asyncio.to_thread(thread.join, 20)
        assert not thread.is_alive()
    for engine in engines:
        await engine.close()
    shared.close()


def test_names_find_their_models() -> None:
    engine = LocalEngine("none")
    models = Models(engine, "gpt2-mini", [])
    assert not models.several
    assert models.checksum(None) == 0
    assert models.of(0) is models.of(123) is engine


async def test_a_typed_name_is_taken_or_corrected(tiny_model: Path, other_model: Path) -> None:
    async with several(tiny_model, other_model) as models:
        assert models.names == ("tiny-gpt2", "other-gpt2")
        assert models.find(" Other-GPT2 ") == "other-gpt2"
        with pytest.raises(InvalidInputError, match=r"I have no model “othr-gpt”\. The nearest name is other-gpt2\."):
            models.find("othr-gpt")
        assert models.of(name_checksum("other-gpt2")) is models.engines["other-gpt2"]
        assert models.of(0) is models.default
        with pytest.raises(InvalidInputError, match=r"no longer have\. I have tiny-gpt2, other-gpt2"):
            models.of(name_checksum("gone-gpt2"))


async def test_folders_without_a_model_and_equal_names_are_refused(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelInvalidError, match=r"GPT2_MODELS is '.*/nowhere at all', which is neither a"):
        async with several(tiny_model, tmp_path / "nowhere at all"):
            pass
    same = tmp_path / other_model.name
    shutil.copytree(other_model, same)
    with pytest.raises(SettingsError, match="two models that people would know as 'other-gpt2'"):
        async with several(tiny_model, other_model, same):
            pass


def test_the_estimate_covers_the_weights(tiny_model: Path) -> None:
    weights = (tiny_model / "model.safetensors").stat().st_size
    assert weights < size(tiny_model) < weights + 64 * 2**20
