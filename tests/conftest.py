"""Fixtures that several packages of tests share."""

from __future__ import annotations

import functools
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from bot.gpt2.local.threads import limit_spinning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from xdist.remote import Producer

    from bot.client import GPT2Client
    from bot.figures import Renderer
    from bot.gpt2.local.engine import LocalEngine
    from tests.ray_cluster import RayCluster

# The process that hands the tests to workers reads this file, too, and runs none of them. So what takes seconds to
# import is imported where it is used.

limit_spinning(os.environ)  # as `python -m bot` does, before anything imports PyTorch

# Files whose tests start processes of their own and share nothing worth keeping: any worker may take any of them.
APART: Final = (
    "tests/test_restart.py",
    "tests/test_moving.py",
    "tests/test_several_models.py",
    "tests/test_shards.py",
    "tests/test_bad_machine.py",
    "tests/benchmarks/test_soak.py",
)
RAY: Final = "a Ray cluster"  # the tests in two files share one, but for classes that need none
WITH_RAY: Final = ("tests/gpt2/cluster/test_engine.py", "tests/cli/test_deploy_cluster.py")
WITHOUT_RAY: Final = ("TestCommand", "TestDeploy")
CLUSTER: Final = pytest.StashKey["RayCluster"]()
# The longest first, so that no worker is left alone with them at the end; the others follow in random order.
LONGEST: Final = (
    *WITH_RAY,
    *APART,
    "tests/test_conversation.py",
    "tests/cli/test_demo.py",
    "tests/test_bad_days.py",
    "tests/cli/test_run.py",
    "tests/cogs/test_moving.py",
    "tests/gpt2/local/test_sequences.py",
    "tests/figures/test_pictures.py",
    "tests/cogs/test_insides.py",
    "tests/test_main.py",
    "tests/gpt2/model/test_files.py",
    "tests/test_deploy.py",
    "tests/gpt2/cluster/test_dispatcher.py",
    "tests/test_project.py",
    "tests/gpt2/local/test_engine.py",
    "tests/cogs/test_weights.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, for `-n auto`: tests wait now and then. More would get into each other's way."""
    return min((os.cpu_count() or 1) + 1, 4)


class Together(LoadScopeScheduling):
    """Hands tests to workers (`make test`) by file: what a file's tests share is made in one worker alone."""

    def _split_scope(self, nodeid: str) -> str:
        file, *names = nodeid.split("::")
        if file in WITH_RAY:
            return f"{file}::{names[0]}" if names[0] in WITHOUT_RAY else RAY
        return nodeid if file in APART else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    config.option.loadscopereorder = False  # not the most tests first, but the longest
    return Together(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        rank = {file: number for number, file in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.nodeid.split("::")[0], len(rank)))
    items.sort(key=_uses_cluster, reverse=True)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Close the Ray cluster after the last test that uses it: even idle, it takes a sixth of a core."""
    if CLUSTER in item.config.stash and not (nextitem and _uses_cluster(nextitem)):
        item.config.stash[CLUSTER].close()
        del item.config.stash[CLUSTER]


def _uses_cluster(item: pytest.Item) -> bool:
    return "ray_cluster" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of three layers and random weights."""
    from tests.models import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with another GPT-2, of two layers, that writes other words."""
    from tests.models import make_model

    return make_model(tmp_path_factory.mktemp("models") / "other-gpt2", layers=2, heads=2, width=48, seed=11)


@pytest.fixture
def ray_cluster(tiny_model: Path, pytestconfig: pytest.Config) -> RayCluster:
    """Two nodes with a replica of the tiny model each, which tests share; those that hurt them leave them whole."""
    from tests.ray_cluster import RayCluster

    if CLUSTER not in pytestconfig.stash:
        cluster = RayCluster(tiny_model)
        pytestconfig.add_cleanup(cluster.close)  # where Ctrl-C leaves no teardown
        pytestconfig.stash[CLUSTER] = cluster.start()
    return pytestconfig.stash[CLUSTER]


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[LocalEngine]:
    """An engine that has loaded the tiny model."""
    from bot.gpt2.local.engine import LocalEngine

    engine = LocalEngine(str(tiny_model), device="cpu")
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    from bot.figures import Renderer

    renderer = Renderer()
    yield renderer
    renderer.close()


@pytest.fixture(scope="session")
def translated_once() -> Iterator[None]:
    """Translate a command into Discord's 34 languages once, not for every client: that is half of what one costs."""
    from discord import app_commands

    known: dict[tuple[Any, str], str] = {}

    def cached(translate: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[..., Awaitable[dict[str, Any]]]:
        @functools.wraps(translate)
        async def payload(command: Any, tree: Any, translator: Any) -> dict[str, Any]:
            key = translator._catalogue, json.dumps(command.to_dict(tree))  # so that a change of either is seen
            if key not in known:
                known[key] = json.dumps(await translate(command, tree, translator))
            copy: dict[str, Any] = json.loads(known[key])
            return copy

        return payload

    with pytest.MonkeyPatch.context() as patch:
        for kind in (app_commands.Command, app_commands.Group, app_commands.ContextMenu):
            patch.setattr(kind, "get_translated_payload", cached(kind.get_translated_payload))
        yield


@pytest.fixture
def simcord_bot(engine: LocalEngine, renderer: Renderer, translated_once: None) -> GPT2Client:
    """The real client, for SimCord's own fixture `simcord_env`."""
    from bot.client import GPT2Client
    from bot.ui.locales import Catalogue
    from cogs import COGS

    return GPT2Client(engine, renderer, Catalogue.shipped(), COGS, shard_count=1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two on matrices this small only wait for one another, and for whatever else runs on the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _global_generator_is_never_touched() -> Iterator[None]:
    """Whatever the program draws, it draws from a generator of its own (or puts torch's back)."""
    import torch

    torch.manual_seed(1234)
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture(autouse=True)
def _the_log_is_left_as_it_was() -> Iterator[None]:
    """Commands of the command line, called here in this process, configure the log of all of it."""
    import structlog

    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.reset_defaults()
