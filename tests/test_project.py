"""Packaging, locked versions and tracked files."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bot
from bot.figures.drawing import fonts
from tests import test_walls
from tests.command_line import ROOT, run_python
from tools import lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MEGABYTE: Final = 1_000_000
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: Final[dict[str, list[str]]] = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[Requirement]:
    """Return the requirements in pyproject.toml, without the project itself."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    return [each for each in map(Requirement, lines) if each.name != PROJECT["name"]]


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(each.name) for each in requirements}


def locked() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def tracked() -> list[Path]:
    """Return the tracked files and those that git does not ignore."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


class TestLock:
    def test_every_pin_is_one_exact_version(self) -> None:
        for each in locked():
            (specifier,) = each.specifier
            assert specifier.operator == "==", each
            assert "*" not in specifier.version, each
            assert "+" not in specifier.version, f"{each}: a local version shuts out every other build"

    def test_no_package_is_pinned_twice(self) -> None:
        assert len(names(locked())) == len(locked())

    def test_every_dependency_is_pinned_within_its_range(self) -> None:
        pins = {canonicalize_name(each.name): next(iter(each.specifier)).version for each in locked()}
        for each in requirements(*EXTRAS):
            assert pins.get(canonicalize_name(each.name)) in each.specifier, each

    def test_indirect_dependencies_are_pinned(self) -> None:
        needed = {canonicalize_name(pin.partition("==")[0]) for pin in lock.pins(PROJECT["name"])}
        assert needed <= names(locked()), "run `make lock`"


OURS: Final = frozenset({"bot", "cogs", "tests", "tools", "benchmarks"})
# What `benchmarks.compare` measures if a developer has installed it; nothing of the bot needs it.
PEERS: Final = frozenset({"ctranslate2", "gguf", "llama_cpp", "vllm"})
# PyTorch's build for CUDA brings it; without it the program does without its kernels.
OF_TORCH: Final = frozenset({"cuda"})


class TestHashes:
    """requirements.txt: what running the bot needs, each file checked, but for PyTorch."""

    @staticmethod
    def entries() -> dict[str, str]:
        text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {canonicalize_name(Requirement(line.partition("--hash")[0]).name): line for line in lines}

    def test_every_package_has_the_hashes_of_its_files(self) -> None:
        for line in self.entries().values():
            assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line

    def test_its_versions_are_the_locked_ones(self) -> None:
        pins = {canonicalize_name(each.name): each.specifier for each in locked()}
        for name, line in self.entries().items():
            if name in pins:  # a package that only an exotic system needs may not be
                assert Requirement(line.partition("--hash")[0]).specifier == pins[name], name
        assert len(self.entries().keys() & pins.keys()) > 50

    def test_it_has_the_dependencies_without_torch_and_cuda(self) -> None:
        assert names(requirements(*lock.RUNNING)) - self.entries().keys() == {"torch"}
        assert not [name for name in self.entries() if name.startswith(("nvidia-", "cuda-", "triton"))]


@functools.cache
def distributions_of_modules() -> Mapping[str, list[str]]:
    """Return the distributions that have each top-level module; reading all of them takes more than a second."""
    return metadata.packages_distributions()


class TestImports:
    """Every imported package is a declared dependency, not one that another package happens to bring."""

    @staticmethod
    def imported(*folders: str) -> dict[str, str]:
        """Distribution to the place of an import of it."""
        owners = distributions_of_modules()
        return {
            canonicalize_name(owners.get(top, [top])[0]): each.place
            for folder in folders
            for path in (ROOT / folder).rglob("*.py")
            for each in test_walls.imports(path)
            if (top := each.module.partition(".")[0]) not in sys.stdlib_module_names | OURS | PEERS | OF_TORCH
        }

    def test_the_program_depends_on_its_imports(self) -> None:
        used = self.imported("bot", "cogs")
        assert not used.keys() - names(requirements("demo", "cluster", "safety", "sentry")), used

    def test_tests_and_tools_depend_on_their_imports(self) -> None:
        used = self.imported("tests", "tools", "benchmarks")
        assert not used.keys() - names(requirements(*EXTRAS)), used

    def test_the_program_has_no_other_dependency(self) -> None:
        fonts_alone = {canonicalize_name(name) for name in fonts.PACKAGES}  # read as files
        assert names(requirements()) - fonts_alone <= self.imported("bot", "cogs").keys()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wheel and a source distribution, built from a copy, which building litters."""
    folder = tmp_path_factory.mktemp("distributions")
    for path in tracked():
        copy = folder / "checkout" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    program = "from setuptools import build_meta as b; b.build_sdist('..'); b.build_wheel('..')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=folder / "checkout")
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


class TestSourceDistribution:
    def test_it_is_the_checkout(self, distributions: Path) -> None:
        (path,) = distributions.glob("*.tar.gz")
        with tarfile.open(path) as opened:
            packed = {name.partition("/")[2] for name in opened.getnames()}
        at_the_server = re.compile(r"\.git(hub/|ignore|attributes)")
        assert {
            name for each in tracked() if not at_the_server.match(name := each.relative_to(ROOT).as_posix())
        } <= packed


class TestWheel:
    def test_it_holds_exactly_the_program_and_its_data(self, wheel: zipfile.ZipFile) -> None:
        program = [path.relative_to(ROOT).as_posix() for path in tracked()]
        expected = {name for name in program if name.startswith("bot/")}
        expected |= {f"bot/_installed/{name}" for name in program if name.startswith("cogs/")}
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert packed == expected

    def test_it_runs_beside_another_bots_cogs(self, wheel: zipfile.ZipFile, tmp_path: Path) -> None:
        wheel.extractall(tmp_path)  # noqa: S202 # our own
        (tmp_path / "cogs").mkdir()
        (tmp_path / "cogs" / "__init__.py").write_text("raise SystemExit('the other bot')")
        program = (
            "from bot.cli.run import COGS\n"
            "from bot.installation import install_command\n"
            "print(COGS[0].__module__, install_command('demo'))"
        )
        process = run_python("-c", program, folder=tmp_path, environment={"PYTHONPATH": str(tmp_path)})
        assert process.stdout == 'cogs.continuations python -m pip install "gpt2-for-discord[demo]"\n', process.stderr

    def test_it_has_entry_point_license_and_version(self, wheel: zipfile.ZipFile) -> None:
        information = f"gpt2_for_discord-{PROJECT['version']}.dist-info"
        scripts = wheel.read(f"{information}/entry_points.txt").decode()
        assert "gpt2-for-discord = bot.__main__:main" in scripts
        assert f"{information}/licenses/LICENSE" in wheel.namelist()
        assert f"Version: {PROJECT['version']}\n" in wheel.read(f"{information}/METADATA").decode()

    def test_it_is_small(self, wheel: zipfile.ZipFile) -> None:
        assert sum(info.compress_size for info in wheel.infolist()) < 42 * MEGABYTE, (
            "the weights of gpt2-mini are 39.5 of it"
        )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMake:
    @staticmethod
    def lines(*variables: str) -> list[str]:
        """Return what `make setup` would run on a fresh clone."""
        command = ["make", "--dry-run", "--always-make", "setup", *variables]
        clean = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "TORCH_INDEX"}}
        said = subprocess.run(command, cwd=ROOT, env=clean, check=True, capture_output=True, text=True)
        return [line for line in said.stdout.splitlines() if "pip install" in line]

    def test_a_machine_without_a_gpu_gets_the_cpu_build_of_pytorch(self) -> None:
        torch, rest = self.lines("GPU=", "TORCH_INDEX=https://an.index")
        assert torch.endswith(" --no-deps --retries 1 --extra-index-url https://an.index torch")
        assert rest.endswith(" --editable '.[dev]'")

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's build is a CPU build")
    def test_a_machine_with_a_driver_and_one_who_says_so_get_pypis(self) -> None:
        assert any("--extra-index-url" in line for line in self.lines("GPU="))
        for variables in (["GPU=/dev/nvidia0"], ["GPU=", "TORCH_INDEX="]):
            assert len(self.lines(*variables)) == 1


class TestVersion:
    def test_the_program_has_the_projects_version(self) -> None:
        assert bot.__version__ == PROJECT["version"], "the installed metadata is old: run `make setup`"

    def test_the_changelog_has_headings_for_versions(self) -> None:
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
        assert headings
        assert headings[0] == "[Unreleased]"
        for heading in headings[1:]:
            assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading), heading


class TestRepository:
    def test_no_file_but_the_weights_is_larger_than_a_megabyte(self) -> None:
        large = [path.name for path in tracked() if path.stat().st_size > MEGABYTE]
        assert large == ["model.safetensors"]

    def test_no_secret_and_no_build_product_is_tracked(self) -> None:
        unwanted = re.compile(r"(^|/)(\.env|\.venv|__pycache__|build|dist|[^/]*\.egg-info)(/|$)|\.pyc$")
        assert not [path for path in tracked() if unwanted.search(path.relative_to(ROOT).as_posix())]

    def test_git_ignores_the_files_with_the_token(self) -> None:
        assert {".env", "/discord_token"} <= set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())

    def test_the_checks_can_be_run(self) -> None:
        script = ROOT / ".ci" / "run"
        assert os.access(script, os.X_OK)
        workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
        assert "run: .ci/run" in workflow, "the public CI runs the same script"
