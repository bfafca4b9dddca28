"""The walls of the house: who may import whom. CONTRIBUTING.md and docs/architecture.md explain them.

Imports are read from the source, those inside functions too. An import under ``if TYPE_CHECKING:`` loads nothing, so
it may name any module of this project that the table lists as `for_types` (a cog's constructor takes the client that
imports the cog). It may not name a library from behind a wall: a signature with a ``torch.Tensor`` in it is as bound
to torch as a call.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from tests.command_line import ROOT, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAVY: Final = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "matplotlib", "discord", "PIL")


@dataclass(frozen=True)
class Wall:
    """What the modules of one part of the house may import, the standard library and their own part aside.

    Attributes:
        libraries: Top-level packages of others.
        modules: Modules of this project; a package stands for all that is in it.
        for_types: More of them, under TYPE_CHECKING only.
    """

    libraries: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    for_types: frozenset[str] = frozenset()


def wall(libraries: str = "", modules: str = "", for_types: str = "") -> Wall:
    return Wall(frozenset(libraries.split()), frozenset(modules.split()), frozenset(for_types.split()))


# From the ground up: a part may use those above it in this table, never those below.
WALLS: Final = {
    "bot.text": wall(),
    "bot.errors": wall(modules="bot.text"),
    "bot.config": wall("dotenv", "bot.errors"),
    "bot.gpt2": wall(
        "huggingface_hub numpy safetensors structlog torch tqdm transformers", "bot.errors bot.text", "bot.config"
    ),
    "bot.gpt2.engine": wall("numpy", "bot.gpt2.requests bot.gpt2.questions bot.gpt2.statistics"),
    "bot.gpt2.statistics": wall(),
    # Asking a cluster loads neither torch nor Ray; only what runs in the cluster knows Ray.
    "bot.gpt2.cluster.engine": wall(
        "aiohttp numpy structlog",
        "bot.errors bot.gpt2.requests bot.gpt2.engine bot.gpt2.parameter_names bot.gpt2.refusals bot.gpt2.statistics "
        "bot.gpt2.cluster.protocol",
        "bot.gpt2.questions",
    ),
    "bot.gpt2.cluster.dispatcher": wall(
        "structlog",
        "bot.errors bot.gpt2.engine bot.gpt2.fair_queue bot.gpt2.refusals bot.gpt2.requests bot.gpt2.statistics "
        "bot.gpt2.cluster.protocol",
        "bot.gpt2.throughput",
    ),
    "bot.gpt2.cluster.deployment": wall("ray starlette structlog", "bot.errors bot.gpt2", "bot.config"),
    "bot.gpt2.cluster.protocol": wall(
        "numpy", "bot.errors bot.text bot.gpt2.requests bot.gpt2.questions bot.gpt2.statistics"
    ),
    "bot.gpt2.parameter_names": wall(modules="bot.errors bot.text bot.gpt2.requests"),
    "bot.gpt2.refusals": wall(modules="bot.errors bot.text"),
    "bot.gpt2.requests": wall(modules="bot.errors bot.text"),
    "bot.gpt2.questions": wall("numpy", "bot.errors bot.text bot.gpt2.requests"),
    "bot.programs": wall(modules="bot.gpt2.requests bot.gpt2.questions"),
    "bot.figures": wall("matplotlib mpl_toolkits numpy PIL structlog", "bot.errors bot.text"),
    "bot.ui": wall(
        "aiohttp discord polib structlog",
        "bot.errors bot.text bot.gpt2.requests",
        "bot.gpt2.engine bot.gpt2.questions bot.figures numpy",
    ),
    "bot.exhibits": wall(
        "numpy", "bot.figures bot.gpt2.requests bot.programs bot.text", "bot.gpt2.engine bot.gpt2.questions"
    ),
    "cogs": wall(
        "discord numpy structlog",
        "bot.errors bot.text bot.ui bot.exhibits bot.figures bot.gpt2.requests bot.gpt2.engine bot.gpt2.questions "
        "bot.interactions.progress bot.programs",
        "bot.client",
    ),
    # The owners of what is opened. They may use everything in the house, but compute and draw nothing themselves.
    "bot.interactions.journal": wall("structlog"),
    "bot.interactions.retry": wall("aiohttp discord structlog"),
    "bot.interactions.reply": wall("discord", "bot.text bot.ui"),
    "bot.interactions.progress": wall(
        "discord structlog", for_types="bot.gpt2.engine bot.gpt2.requests bot.interactions.reply"
    ),
    "bot.interactions.pending": wall(
        "discord structlog", "bot.interactions.journal bot.interactions.reply bot.text", "bot.ui"
    ),
    "bot.interactions.gateway": wall("discord", "bot.interactions.pending"),
    "bot.interactions.request_log": wall("discord structlog"),
    "bot.monitoring.sentry": wall("sentry_sdk", "bot.errors", "bot.config"),
    "bot.interactions.moderation": wall(modules="bot.errors bot.gpt2.requests", for_types="bot.config bot.gpt2.engine"),
    "bot.interactions.quotas": wall("discord", "bot.errors bot.text"),
    "bot.client": wall(
        "discord structlog yarl",
        "bot.errors bot.figures bot.gpt2.engine bot.gpt2.refusals bot.interactions bot.text bot.ui cogs",
    ),
    "bot.monitoring.logs": wall("discord structlog", "bot.config"),
    "bot.monitoring.metrics": wall(
        "discord prometheus_client", for_types="bot.client bot.gpt2.statistics bot.interactions.request_log"
    ),
    "bot.monitoring.health": wall(
        "aiohttp prometheus_client structlog",
        "bot.errors bot.gpt2.engine bot.monitoring.metrics",
        "bot.client bot.config",
    ),
    "bot.cli.run": wall("aiohttp discord structlog", "bot cogs"),
    "bot.cli.gallery": wall("numpy", "bot.config bot.errors bot.exhibits bot.figures bot.gpt2 bot.programs"),
    "bot.cli.bench": wall(
        "torch tqdm", "bot.config bot.errors bot.cli.gallery bot.gpt2 bot.monitoring.logs bot.cli.bench_baselines"
    ),  # it measures torch's own
    "bot.cli.bench_baselines": wall("ctranslate2 gguf llama_cpp torch transformers", "bot.gpt2", "bot.config"),
    "bot.cli.check": wall(
        "discord",
        "bot.config bot.errors bot.gpt2.cluster.engine bot.gpt2.model.files bot.gpt2.model.loading "
        "bot.interactions.journal bot.interactions.moderation bot.monitoring.sentry bot.ui",
        "bot.gpt2.requests",
    ),
    "bot.cli.deploy_cluster": wall("ray", "bot.errors bot.gpt2.cluster.deployment", "bot.config"),
    "bot.cli.demo": wall("discord simcord structlog", "bot"),
    "bot.__main__": wall(modules="bot"),
    # bot/__init__.py, and those of the packages whose modules are all listed
    "bot": wall(),
    "bot.cli": wall(),
    "bot.interactions": wall(),
    "bot.monitoring": wall(),
}


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    module: str
    for_types: bool
    place: str


def sources() -> list[Path]:
    return sorted(path for folder in ("bot", "cogs") for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str | None:
    """The entry of the table that speaks for a module: the nearest one."""
    names = module.split(".")
    candidates = (".".join(names[:length]) for length in range(len(names), 0, -1))
    found = next((name for name in candidates if name in WALLS), None)
    return found if found != "bot" or module == "bot" else None


def imports(path: Path) -> Iterator[Import]:
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), path, for_types=False)


def _imports(node: ast.AST, path: Path, *, for_types: bool) -> Iterator[Import]:
    place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
    match node:
        case ast.Import():
            yield from (Import(alias.name, for_types, place) for alias in node.names)
        case ast.ImportFrom():
            assert node.level == 0, f"{place}: a relative import"
            assert node.module
            yield from (Import(_target(node.module, alias.name), for_types, place) for alias in node.names)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            for child in node.body:
                yield from _imports(child, path, for_types=True)
            for child in node.orelse:
                yield from _imports(child, path, for_types=for_types)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _imports(child, path, for_types=for_types)


def _target(package: str, name: str) -> str:
    """``from bot.monitoring import logs`` imports that module, ``from bot.text import say`` bot.text."""
    inside = ROOT.joinpath(*package.split("."), name)
    return f"{package}.{name}" if inside.with_suffix(".py").is_file() or inside.is_dir() else package


def is_within(module: str, names: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in names for length in range(1, len(parts) + 1))


def may_import(part: str, each: Import) -> bool:
    rules = WALLS[part]
    top = each.module.partition(".")[0]
    if top in sys.stdlib_module_names or is_within(each.module, frozenset({part}) - {"bot"}):
        return True
    allowed = rules.modules | rules.libraries | (rules.for_types if each.for_types else frozenset())
    return is_within(each.module, allowed)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_part_of_the_house_may(path: Path) -> None:
    part = part_of(name_of(path))
    assert part is not None, f"{path.relative_to(ROOT)} belongs to no part: give it one in WALLS"
    through = [f"{each.place} imports {each.module}" for each in imports(path) if not may_import(part, each)]
    assert not through, f"{part} may not: {through}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pyplot_is_used_nowhere(path: Path) -> None:
    assert not [each for each in imports(path) if each.module.startswith(("matplotlib.pyplot", "pylab"))]


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        (
            "cogs",
            "torch transformers matplotlib safetensors bot.gpt2.model.loading bot.gpt2.model.parameters bot.cli.run",
        ),
        ("bot.gpt2", "discord matplotlib bot.ui bot.figures bot.client cogs"),
        ("bot.figures", "discord torch transformers bot.ui bot.gpt2.requests bot.client cogs"),
        ("bot.ui", "torch transformers matplotlib bot.client cogs"),
        ("bot.client", "torch transformers matplotlib bot.gpt2.model.loading"),
        ("bot.text", "bot.errors discord torch numpy"),
        ("bot.gpt2", "ray starlette"),
        ("bot.gpt2.cluster.engine", "torch transformers ray bot.gpt2.local.engine bot.gpt2.cluster.deployment"),
    ],
)
def test_the_table_itself_forbids_what_the_design_forbids(part: str, forbidden: str) -> None:
    for module in forbidden.split():
        assert not may_import(part, Import(module, for_types=False, place="")), module


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch", [("torch", False)]),
        ("def f():\n    import torch.nn as nn", [("torch.nn", False)]),
        ("from bot.monitoring import logs, __version__", [("bot.monitoring.logs", False), ("bot.monitoring", False)]),
        ("from bot.text import say", [("bot.text", False)]),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import discord", [("torch", True), ("discord", False)]),
        ("try:\n    import torch\nexcept ImportError:\n    pass", [("torch", False)]),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, found: list[tuple[str, bool]]) -> None:
    assert [
        (each.module, each.for_types) for each in _imports(ast.parse(source), ROOT / "x.py", for_types=False)
    ] == found


def loaded_after(statement: str, folder: Path) -> set[str]:
    process = run_python("-c", f"{statement}; import sys; print(*sys.modules)", folder=folder)
    assert process.returncode == 0, process.stderr
    return {name.partition(".")[0] for name in process.stdout.split()}


def test_what_every_layer_uses_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded_after("import bot, bot.text, bot.errors, bot.config", tmp_path) & {*HEAVY, "numpy"}


def test_pictures_load_neither_discord_nor_torch(tmp_path: Path) -> None:
    assert not loaded_after("import bot.figures", tmp_path) & {"discord", "torch", "transformers", "aiohttp"}


def test_what_can_be_asked_of_the_model_loads_without_the_model(tmp_path: Path) -> None:
    assert not loaded_after("import bot.gpt2.requests, bot.gpt2.model.files", tmp_path) & {
        "torch",
        "transformers",
        "discord",
    }


def test_a_bot_that_asks_a_cluster_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    loaded = loaded_after("import bot.cli.run, bot.gpt2.cluster.engine", tmp_path)
    assert not loaded & {"torch", "transformers", "ray", "starlette"}


def test_nothing_of_ray_is_loaded_by_the_engine_on_this_machine(tmp_path: Path) -> None:
    assert not loaded_after("import bot.cli.run, bot.gpt2.local.engine, bot.cli.deploy_cluster", tmp_path) & {
        "ray",
        "starlette",
    }


def test_the_pictures_folder_is_found_without_torch(tmp_path: Path) -> None:
    """`huggingface_hub` loads its parts when they are asked for, and not all of them by name."""
    assert "torch" not in loaded_after("from bot.gpt2.model import files; files.assets()", tmp_path)
