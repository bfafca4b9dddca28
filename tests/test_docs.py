"""README.md and docs/ tell the truth: links, files, commands, settings, exit codes, numbers, programs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from discord import app_commands

from bot import config, exhibits, figures
from bot.__main__ import _parser
from bot.cli.run import SHUTDOWN_NOTICE_SECONDS
from bot.client import GPT2Client
from bot.errors import ExitCode, ModelInvalidError
from bot.figures.renderer import CACHE_BYTES
from bot.gpt2 import model_info
from bot.gpt2.engine import MAX_WAIT_SECONDS, MAX_WAITING
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model import files
from bot.gpt2.model.folder import CONFIG
from bot.gpt2.requests import TUTORIAL_PROMPT, TUTORIAL_SEED, ContinuationRequest, SamplingParams
from bot.interactions.reply import PATIENCE_SECONDS
from bot.ui.locales import Catalogue
from cogs import COGS
from cogs.weights import DEFAULT_POSITIONS
from tests.cogs import test_weights
from tests.cogs.conftest import server as server  # noqa: PLC0414 # a fixture
from tests.command_line import ROOT, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot.figures import Renderer
    from tests.cogs.conftest import Server

README: Final = ROOT / "README.md"
COMMANDS: Final = ROOT / "docs" / "commands.md"
PAGES: Final = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
RESTART: Final = frozenset({ExitCode.CRASHED, ExitCode.UNREACHABLE})

# What `GPT2Config` cannot tell without the hub: layers, heads and width of OpenAI's models and of distilgpt2.
SIZES: Final = {
    "distilgpt2": (6, 12, 768),
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
VOCABULARY: Final = 50_257
CONTEXT: Final = 1024
FLOAT32_BYTES: Final = 4


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), flags=re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def section(page: Path, title: str) -> str:
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", read(page), flags=re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the table in a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def said(*folders: str) -> str:
    """Return the sources, with adjacent string literals joined."""
    sources = "\n".join(read(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", sources)


@pytest.fixture(scope="module")
def shipped() -> str:
    """Return the name of the model that ships with the bot; skip the test if its files are incomplete."""
    try:
        files.locate(files.SHIPPED)
    except ModelInvalidError as error:
        pytest.skip(f"the model that ships with the bot is not complete here: {error}")
    return files.SHIPPED


@pytest.fixture
async def commands(renderer: Renderer) -> dict[str, app_commands.Command[Any, ..., Any]]:
    """Return the slash commands by their qualified name."""
    client = GPT2Client(LocalEngine("none"), renderer, Catalogue.shipped(), COGS)
    for cog in COGS:
        await client.add_cog(cog(client))
    return {each.qualified_name: each for each in client.tree.walk_commands() if isinstance(each, app_commands.Command)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_links_and_images_exist(self, page: Path) -> None:
        text = prose(page)
        targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img src="([^"]+)"', text)
        for target in targets:
            name, _, anchor = target.partition("#")
            if not name.startswith(("https://", "http://")):
                file = page.parent / name if name else page
                assert file.is_file(), f"{page.name} names {target}"
                assert not anchor or anchor in anchors(file), f"{page.name} names {target}"

    def test_every_picture_is_described(self, page: Path) -> None:
        text = prose(page)
        described = re.findall(r"!\[[^\]]{20,}\]", text) + re.findall(r'<img [^>]*alt="[^"]{15,}"', text)
        assert len(described) == text.count("![") + text.count("<img ")

    def test_named_files_exist(self, page: Path) -> None:
        made_by_the_reader = set(re.findall(r"[Cc]reate\s+`([^`]+)`|`([^`]+\.py)`:$", read(page), flags=re.MULTILINE))
        to_be_made = {name for pair in made_by_the_reader for name in pair if name}
        for name in re.findall(r"`((?:bot|cogs|tests|tools|docs|\.ci|\.github)/[\w./*-]*)`", prose(page)):
            assert name in to_be_made or list(ROOT.glob(name.rstrip("/"))), f"{page.name} names {name}"

    def test_make_targets_exist(self, page: Path) -> None:
        targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), flags=re.MULTILINE))
        asked = set(re.findall(r"^\s*(?:\w+=\S+ )?make ([a-z-]+)", "\n".join(blocks(page, "sh")), flags=re.MULTILINE))
        asked |= set(re.findall(r"`make ([a-z-]+)[^`]*`", prose(page)))
        assert asked <= targets

    def test_commands_of_the_command_line_exist(self, page: Path) -> None:
        known = {"run", "setup", "demo", "check", "health", "invite", "gallery", "bench", "cluster"}
        for name in known:
            arguments = ["a prompt"] if name == "gallery" else []
            assert _parser().parse_args([name, *arguments]).command == name
        assert set(re.findall(r"python -m bot (\w+)", read(page))) <= known


class TestCommands:
    def test_the_table_lists_exactly_the_commands(
        self, commands: dict[str, app_commands.Command[Any, ..., Any]]
    ) -> None:
        listed = [code(name) for name, *_ in rows(read(COMMANDS))]
        assert listed == [[f"/{name}"] for name in commands]

    def test_the_table_lists_exactly_the_options(
        self, commands: dict[str, app_commands.Command[Any, ..., Any]]
    ) -> None:
        for name, what, _ in rows(read(COMMANDS)):
            _, _, options = what.partition("Options:")
            command = commands[code(name)[0].removeprefix("/")]
            assert code(options) == [option.name for option in command.parameters], name

    def test_the_table_has_ranges_and_defaults(self, commands: dict[str, app_commands.Command[Any, ..., Any]]) -> None:
        for name, what, _ in rows(read(COMMANDS)):
            for option in commands[code(name)[0].removeprefix("/")].parameters:
                meaning = re.search(rf"`{option.name}`([^`]*)", what)
                assert meaning, option.name
                if option.default is not None and not option.required:
                    default = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
                    assert re.search(rf"\({default}\b", meaning[1], flags=re.IGNORECASE), (name, option.name)
                if name == "`/continue`" and option.max_value is not None and option.name != "prompt":
                    assert f"{option.min_value:g} to {option.max_value:.10g}" in meaning[1], option.name
                if option.choices:
                    assert all(choice.name in what for choice in option.choices), (name, option.name)

    def test_the_table_has_the_default_windows(self) -> None:
        table = read(COMMANDS)
        assert table.count(f"(0:{model_info.DEFAULT_WINDOW}") == table.count("`rows`") + table.count("`columns`")
        assert f"lines: the first {DEFAULT_POSITIONS}" in table

    def test_named_commands_exist(self, commands: dict[str, app_commands.Command[Any, ..., Any]]) -> None:
        known = {f"/{name}" for name in commands}
        named = {each for page in (README, COMMANDS, ROOT / "docs" / "architecture.md") for each in code(prose(page))}
        for each in (each for each in named if re.match(r"/[a-z]", each)):
            assert any(each == name or each.startswith(f"{name} ") for name in known), each


class TestOperators:
    def test_the_settings_are_those_of_the_example(self) -> None:
        example = re.findall(r"^#?([A-Z0-9_]+)=(.*)$", read(ROOT / ".env.example"), flags=re.MULTILINE)
        listed = [
            (code(name)[0], (code(default) or [""])[0])
            for name, default, _ in rows(read(ROOT / "docs" / "settings.md"))
        ]
        assert listed == example
        assert config.parse(dict(listed)) == config.Settings()

    def test_the_exit_codes_are_those_of_the_program(self) -> None:
        table = rows(section(ROOT / "docs" / "troubleshooting.md", "Exit codes"))
        assert [int(number) for number, *_ in table] == list(ExitCode)
        for number, _, again in table:
            assert again.startswith("yes") == (int(number) in RESTART), number

    def test_the_sizes_of_models_are_right(self) -> None:
        table = {code(cells[0])[0]: cells[1:] for cells in rows(read(ROOT / "docs" / "models.md"))}
        assert [*table] == [files.SHIPPED, *SIZES]
        for name, (layers, heads, width) in SIZES.items():
            count = parameters(layers, width, VOCABULARY, CONTEXT)
            weights = count * FLOAT32_BYTES
            # OpenAI's files also hold each layer's causal mask, CONTEXT × CONTEXT in float32.
            download = weights + layers * CONTEXT**2 * FLOAT32_BYTES
            assert table[name][:4] == [
                f"{layers} × {heads}",
                f"{count / 1e6:,.1f} M",
                f"{download / 1e6:,.0f} MB",
                f"{weights / 1e6:,.0f} MB",
            ]

    def test_the_size_of_the_shipped_model_is_right(self, shipped: str) -> None:
        table = {code(cells[0])[0]: cells[1:] for cells in rows(read(ROOT / "docs" / "models.md"))}
        sizes = json.loads(read(files.locate(shipped) / CONFIG))
        count = parameters(sizes["n_layer"], sizes["n_embd"], sizes["vocab_size"], sizes["n_positions"])
        assert table[shipped][:4] == [
            f"{sizes['n_layer']} × {sizes['n_head']}",
            f"{count / 1e6:.1f} M",
            "none",
            f"{count * FLOAT32_BYTES / 1e6:.0f} MB",
        ]

    def test_numbers_are_those_of_the_code(self) -> None:
        hosting, architecture = (
            " ".join(read(ROOT / "docs" / name).split()) for name in ("hosting.md", "architecture.md")
        )
        assert f"At most {MAX_WAITING} requests" in hosting
        assert f"longer than {MAX_WAIT_SECONDS / 60:g} minutes" in hosting
        assert f"up to {SHUTDOWN_NOTICE_SECONDS:g} seconds" in hosting
        assert f"up to {SHUTDOWN_NOTICE_SECONDS:g} seconds" in architecture
        assert f"up to {CACHE_BYTES // 2**20} MiB" in hosting
        assert f"up to {CACHE_BYTES // 2**20} MiB" in architecture
        assert f"up to {PATIENCE_SECONDS:g} s" in architecture
        (pin,) = re.findall(r"^torch==(.*)$", read(ROOT / "constraints.txt"), flags=re.MULTILINE)
        assert f"torch=={pin} " in hosting

    @pytest.mark.parametrize(
        "words",
        [
            "Discord refused the token",
            "DISCORD_TOKEN is missing",
            "commands synced",
            "commands are up to date",
            "the model is ready",
            "could not be downloaded from the Hugging Face hub",
            "This command has changed",
        ],
    )
    def test_quoted_messages_are_the_programs(self, words: str) -> None:
        assert f'"{words}"' in read(ROOT / "docs" / "troubleshooting.md") + read(ROOT / "docs" / "hosting.md")
        assert words in said("bot", "cogs")


class TestSeeds:
    @staticmethod
    def program(page: Path) -> str:
        (found,) = (block for block in blocks(page, "python") if "pipeline(" in block)
        return found

    def test_the_two_programs_differ_in_the_model(self) -> None:
        assert self.program(README).replace("bot/gpt2/gpt2-mini", "gpt2") == self.program(ROOT / "docs" / "seeds.md")

    async def test_the_program_prints_the_bots_samples(
        self, shipped: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = LocalEngine(shipped, device="cpu")
        try:
            await engine.start()
            continuation = await engine.continuation(
                ContinuationRequest(TUTORIAL_PROMPT, SamplingParams(TUTORIAL_SEED))
            )
        finally:
            await engine.close()
        monkeypatch.chdir(ROOT)
        capsys.readouterr()
        with torch.random.fork_rng():
            exec(self.program(README), {})  # noqa: S102 # our own README
        expected = "\n\n".join(f"{TUTORIAL_PROMPT}{sample.text}" for sample in continuation.samples)
        assert capsys.readouterr().out == f"{expected}\n"
        card = read(files.SHIPPED_FOLDER / "README.md")
        assert all(f"{TUTORIAL_PROMPT}{sample.text}\n```" in card for sample in continuation.samples)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Strictly: a link or an anchor that leads nowhere is an error, and so is a page that the navigation lacks."""
    pytest.importorskip("mkdocs")
    process = run_python(
        "-m",
        "mkdocs",
        "build",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
        "--site-dir",
        str(tmp_path / "site"),
        folder=ROOT,
    )
    assert process.returncode == 0, process.stderr
    home = read(tmp_path / "site" / "index.html")
    assert 'src="pictures/continue.png"' in home
    assert 'href="running/"' in home


class TestDevelopment:
    def test_the_test_command_is_that_of_the_checks(self) -> None:
        assert "Tests: `make test`." in read(README)
        assert re.search(r"^make test\b", read(ROOT / ".ci" / "run"), flags=re.MULTILINE)

    def test_the_plan_shows_every_module(self) -> None:
        (plan,) = blocks(ROOT / "docs" / "architecture.md", "")
        assert list(rooms(plan)), "nothing was found in the plan"
        for name in rooms(plan):
            assert (ROOT / name).exists(), name
        drawn = set(rooms(plan))
        places = ("bot/*.py", "bot/cli/*.py", "bot/interactions/*.py", "bot/monitoring/*.py", "bot/gpt2/**/*.py")
        own = {path.relative_to(ROOT).as_posix() for place in places for path in ROOT.glob(place)}
        assert {name for name in own if not name.endswith("__init__.py")} <= drawn


class TestExamples:
    """docs/adding.md, followed word for word."""

    PAGE: Final = ROOT / "docs" / "adding.md"

    @pytest.fixture(autouse=True)
    def _skip_if_followed_here(self) -> None:
        if (ROOT / "cogs" / "context.py").exists() or (ROOT / "bot" / "figures" / "distributions.py").exists():
            pytest.skip("somebody has followed the examples in this very checkout")

    def example(self, beginning: str) -> str:
        (found,) = (block for block in blocks(self.PAGE, "python") if block.lstrip().startswith(beginning))
        return found

    @staticmethod
    def run(source: str, **given: object) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "an_example", **given}
        exec(compile(source, "docs/adding.md", "exec"), names)  # noqa: S102 # our own documentation
        return names

    @pytest.fixture
    def distribution(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        function = self.run(self.example('"""Histograms of a parameter'))["distribution"]
        monkeypatch.setattr(figures, "distribution", function, raising=False)
        exhibit = self.run(self.example("def distribution(part"), **vars(exhibits))["distribution"]
        monkeypatch.setattr(exhibits, "distribution", exhibit, raising=False)
        return function

    async def test_the_commands_own_test_passes(self, server: Server, simcord_bot: GPT2Client) -> None:
        cog = self.run(self.example('"""/context: how much'))["Context"]
        await simcord_bot.add_cog(cog(simcord_bot))
        await simcord_bot.command_sync.sync()
        await self.run(self.example('"""/context through'))["test_it_tells_how_much_the_model_sees"](server)

    def test_the_pictures_own_test_passes(self, distribution: Any) -> None:
        source = self.example('"""The distribution of')
        assert "from bot.figures import distribution\n" in source
        self.run(source)["test_alt_text_and_caption_give_the_numbers"]()

    async def test_the_test_through_the_command_passes(
        self, server: Server, simcord_bot: GPT2Client, distribution: Any
    ) -> None:
        cog = read(ROOT / "cogs" / "weights.py")
        completion = '    @matrix.autocomplete("name")\n'
        assert cog.count(completion) == 1
        method, both = self.example("@app_commands.command()"), self.example("@matrix.autocomplete")
        await simcord_bot.remove_cog("Weights")
        simcord_bot.tree.remove_command("weights")  # discord.py leaves the group of a cog that goes
        names = self.run(cog.replace(completion, f"{method}\n{both}"), __name__="cogs.weights")
        await simcord_bot.add_cog(names["Weights"](simcord_bot))
        await simcord_bot.command_sync.sync()
        test = self.run(self.example("async def test_the_distribution"), **vars(test_weights))
        await test["test_the_distribution_of_a_parameter_is_shown"](server)

    def test_the_line_with_the_cogs_adds_one(self) -> None:
        given = re.findall(r"\w+", self.example("COGS: Final").partition("=")[2])
        assert [name for name in given if name != "Context"] == [cog.__name__ for cog in COGS]


def parameters(layers: int, width: int, vocabulary: int, context: int) -> int:
    """Return the parameter count of a GPT-2: embeddings, blocks (attention, MLP, two norms), the last norm."""
    block = 12 * width**2 + 13 * width
    return (vocabulary + context) * width + layers * block + 2 * width


def rooms(plan: str) -> Iterator[str]:
    """Yield the paths of a tree drawn by indentation."""
    above: list[tuple[int, str]] = []
    for line in plan.splitlines():
        name = line.split()[0]
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        yield "".join(part for _, part in above) + name
        above.append((indent, name))
