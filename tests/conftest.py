"""Fixtures that several packages of tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from bot.client import GPT2Client
from bot.figures import Renderer
from bot.gpt2.local.engine import LocalEngine
from bot.ui.locales import Catalogue
from cogs import COGS
from tests.models import make_model
from tests.ray_cluster import RayCluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from xdist.remote import Producer


# Two threads on matrices this small only wait for one another, and for whatever else runs on the machine.
torch.set_num_threads(1)


class ByFile(LoadFileScheduling):
    """Where several processes share the tests (`make test`), what a file's tests have in common is made in one of them.

    The tests of a cluster are in two files, and have one in common: it takes most of a small machine.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return Path(file).name if file.endswith("/test_cluster.py") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of three layers and random weights."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="session")
def ray_cluster(tiny_model: Path) -> Iterator[RayCluster]:
    """Two nodes with a replica of the tiny model each; tests that hurt them leave them whole."""
    cluster = RayCluster(tiny_model)
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[LocalEngine]:
    """An engine that has loaded the tiny model."""
    engine = LocalEngine(str(tiny_model), device="cpu")
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.close()


@pytest.fixture
def simcord_bot(engine: LocalEngine, renderer: Renderer) -> GPT2Client:
    """The real client, for SimCord's own fixture `simcord_env`."""
    return GPT2Client(engine, renderer, Catalogue.shipped(), COGS, shard_count=1)


@pytest.fixture(autouse=True)
def _global_generator_is_never_touched() -> Iterator[None]:
    """Whatever the program draws, it draws from a generator of its own (or puts torch's back)."""
    torch.manual_seed(1234)
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before)
