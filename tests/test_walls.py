"""The walls of the house: who may import whom, and no circles. CONTRIBUTING.md and docs/architecture.md explain them.

Imports are read from the source, those inside functions too. An import under ``if TYPE_CHECKING:`` loads nothing, so
it may name any module of this project that the table lists as `for_types` (a cog's constructor takes the client that
imports the cog). It may not name a library from behind a wall: a signature with a ``torch.Tensor`` in it is as bound
to torch as a call.
"""

from __future__ import annotations

import ast
import functools
import sys
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

import pytest

from tests.command_line import ROOT, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAVY: Final = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "matplotlib", "discord", "PIL")


@dataclass(frozen=True)
class Wall:
    """What the modules of one room may import, the standard library and their own room aside.

    Attributes:
        libraries: Top-level packages of others.
        modules: Rooms and modules of this project; `bot` and `cogs` stand for all that is in them.
        for_types: More of them, under TYPE_CHECKING only.
    """

    libraries: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    for_types: frozenset[str] = frozenset()


def wall(libraries: str = "", modules: str = "", for_types: str = "") -> Wall:
    return Wall(frozenset(libraries.split()), frozenset(modules.split()), frozenset(for_types.split()))


# From the ground up: a room may use those above it in this table, never those below.
PLAIN: Final = "bot.text bot.tasks bot.errors bot.config bot.installation"
ASKING: Final = (
    "bot.gpt2.requests bot.gpt2.questions bot.gpt2.model_info bot.gpt2.validation bot.gpt2.refusals bot.gpt2.engine "
    "bot.gpt2.statistics bot.gpt2.writing bot.gpt2.prediction"
)
WALLS: Final = {
    "bot": wall(),  # bot/__init__.py
    "bot.text": wall(),
    "bot.tasks": wall(),
    "bot.errors": wall(modules="bot.text"),
    "bot.setting_parsers": wall(),
    "bot.installation": wall(),
    "bot.config": wall("dotenv", "bot.errors bot.installation bot.setting_parsers"),
    # What can be asked of a model, by whom it is answered, and fairness among those who ask: no torch.
    "bot.gpt2": wall("numpy structlog", PLAIN),
    "bot.gpt2.model": wall(
        "cuda huggingface_hub numpy onnx onnxruntime safetensors structlog torch tqdm transformers",
        f"{PLAIN} bot.gpt2",
    ),
    "bot.gpt2.local": wall("numpy structlog torch transformers", f"{PLAIN} bot.gpt2 bot.gpt2.model"),
    # Asking a cluster loads neither torch nor Ray; only what runs in the cluster knows both.
    "bot.gpt2.cluster": wall("aiohttp numpy structlog", f"{PLAIN} bot.gpt2"),
    "bot.gpt2.cluster.deployment": wall(
        "ray starlette structlog", f"{PLAIN} bot.gpt2 bot.gpt2.model bot.gpt2.local bot.gpt2.cluster"
    ),
    "bot.figures.drawing": wall("matplotlib mpl_toolkits numpy PIL structlog", "bot.errors bot.text"),
    "bot.figures": wall("matplotlib mpl_toolkits numpy PIL structlog", "bot.errors bot.text bot.figures.drawing"),
    "bot.programs": wall(modules=ASKING, for_types="bot.figures"),
    "bot.exhibits": wall("numpy", f"bot.text bot.figures bot.programs {ASKING}"),
    "bot.ui": wall("aiohttp discord polib structlog", f"bot.errors bot.text {ASKING}", "bot.figures numpy"),
    "bot.interactions": wall("aiohttp discord structlog", f"{PLAIN} bot.ui {ASKING}"),
    "bot.command_sync": wall("discord structlog", "bot.interactions.retry"),
    "bot.client": wall(
        "discord structlog yarl",
        "bot.command_sync bot.errors bot.gpt2.models bot.gpt2.recent_answers bot.interactions bot.tasks bot.text "
        f"bot.ui {ASKING}",
        "bot.figures",
    ),
    "cogs": wall(
        "discord numpy structlog",
        "bot.config bot.errors bot.text bot.exhibits bot.figures bot.interactions bot.monitoring.logs bot.programs "
        f"bot.ui {ASKING}",
        "bot.client",
    ),
    "bot.monitoring": wall(
        "aiohttp discord packaging prometheus_client sentry_sdk structlog",
        f"{PLAIN} {ASKING}",
        "bot.client bot.interactions",
    ),
    # Who opens and closes things may use everything in the house, but computes and draws nothing.
    "bot.cli": wall("aiohttp discord structlog", "bot cogs"),
    "bot.cli.bench": wall("tqdm", "bot"),
    "bot.cli.bench_baselines": wall(  # it measures torch's own
        "torch transformers",
        "bot.cli.workloads bot.config bot.errors bot.gpt2 bot.gpt2.local bot.gpt2.model bot.monitoring",
    ),
    "bot.cli.deploy_cluster": wall("ray", "bot.config bot.errors bot.gpt2.cluster.deployment bot.installation"),
    "bot.cli.demo": wall("discord simcord structlog", "bot"),
    "bot.cli.gallery": wall("numpy", "bot"),
    "bot.cli.setup": wall("dotenv", "bot"),
    "bot.__main__": wall(modules="bot"),
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


def room_of(module: str) -> str | None:
    """Return the entry of the table that speaks for a module: the nearest one."""
    names = module.split(".")
    candidates = (".".join(names[:length]) for length in range(len(names), 0, -1))
    found = next((name for name in candidates if name in WALLS), None)
    return found if found != "bot" or module == "bot" else None


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what holds statements in a node, and not the expressions, which are most of its nodes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    return tuple(_imports(parsed(path), path, for_types=False))


def top_imports(path: Path) -> list[Import]:
    """Return what a module imports while it is itself imported: not in functions, and not for types."""
    outside = [node for node in parsed(path).body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [each for node in outside for each in _imports(node, path, for_types=False) if not each.for_types]


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
            for child in statements(node):
                yield from _imports(child, path, for_types=for_types)


def _target(package: str, name: str) -> str:
    """``from bot.monitoring import logs`` imports that module, ``from bot.text import say`` bot.text."""
    inside = ROOT.joinpath(*package.split("."), name)
    return f"{package}.{name}" if inside.with_suffix(".py").is_file() or inside.is_dir() else package


def may_import(room: str, each: Import) -> bool:
    rules = WALLS[room]
    top = each.module.partition(".")[0]
    if top not in ("bot", "cogs"):
        return top in rules.libraries | sys.stdlib_module_names
    allowed = rules.modules | (rules.for_types if each.for_types else frozenset())
    return bool({each.module, room_of(each.module), top} & (allowed | {room}))


def test_modules_import_what_their_room_may() -> None:
    rooms = {path: room_of(name_of(path)) for path in sources()}
    homeless = [str(path.relative_to(ROOT)) for path, room in rooms.items() if room is None]
    assert not homeless, f"these belong to no room, give them one in WALLS: {homeless}"
    through = [
        f"{each.place} imports {each.module}, which {room} may not"
        for path, room in rooms.items()
        for each in imports(path)
        if room and not may_import(room, each)
    ]
    assert not through


def test_no_imports_go_in_circles() -> None:
    """Imports for types count too: a reader of one module has to know them."""
    arrows = {name_of(path): {each.module for each in imports(path)} for path in sources()}
    rooms: dict[str | None, set[str | None]] = {}
    for module, targets in arrows.items():
        rooms.setdefault(room_of(module), set()).update(room_of(each) for each in targets if each in arrows)
    for graph in (arrows, {room: targets - {room} for room, targets in rooms.items()}):
        TopologicalSorter(graph).prepare()


def test_pyplot_is_used_nowhere() -> None:
    found = [each for path in sources() for each in imports(path)]
    assert not [each.place for each in found if each.module.startswith(("matplotlib.pyplot", "pylab"))]


def test_nothing_but_the_reply_touches_extras() -> None:
    touching = {
        name_of(path)
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr == "extras"
    }
    assert touching == {"bot.interactions.reply"}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        (
            "cogs",
            "torch transformers matplotlib safetensors bot.gpt2.model.loading bot.gpt2.model.parameters bot.cli.run",
        ),
        ("bot.gpt2", "torch discord matplotlib bot.gpt2.local.engine bot.ui bot.figures bot.client cogs"),
        ("bot.figures", "discord torch transformers bot.ui bot.gpt2.requests bot.client cogs"),
        ("bot.ui", "torch transformers matplotlib bot.client cogs"),
        ("bot.client", "torch transformers matplotlib bot.gpt2.model.loading"),
        ("bot.text", "bot.errors discord torch numpy"),
        ("bot.gpt2", "ray starlette"),
        ("bot.gpt2.cluster", "torch transformers ray bot.gpt2.local.engine bot.gpt2.cluster.deployment"),
        ("bot.gpt2.local", "bot.gpt2.cluster.protocol"),
        ("bot.gpt2.model", "bot.gpt2.local.engine bot.gpt2.cluster.protocol"),
        ("bot.figures.drawing", "bot.figures bot.figures.renderer"),
    ],
)
def test_the_table_itself_forbids_what_the_design_forbids(room: str, forbidden: str) -> None:
    for module in forbidden.split():
        assert not may_import(room, Import(module, for_types=False, place="")), module


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


def test_the_pictures_folder_is_found_without_torch(tmp_path: Path) -> None:
    """`huggingface_hub` loads its parts when they are asked for, and not all of them by name."""
    assert "torch" not in loaded_after("from bot.gpt2.model import files; files.assets()", tmp_path)
