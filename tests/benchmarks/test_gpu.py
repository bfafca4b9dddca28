"""The check of a GPU machine, tried on the CPU with tiny models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks import equality, gpu
from benchmarks.gpu_machine import QUICK, SMALL, Machine
from bot.gpt2.local.tokens import encode
from bot.gpt2.model.loading import load
from tests.command_line import ROOT, run_python
from tests.test_walls import top_imports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bot.cli.bench_baselines import Transformers
    from bot.gpt2.requests import ContinuationRequest

QUICKLY = ("--device", "cpu", "--quick", "--rounds", "1")


@pytest.fixture(autouse=True)
def _global_generator() -> Iterator[None]:
    """Put torch's generator back: Transformers draws from it."""
    with torch.random.fork_rng():
        yield


@pytest.mark.slow
def test_the_report_has_every_section_and_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(QUICKLY) == 0
    printed = capsys.readouterr().out
    assert re.findall("^## (.*)", printed, flags=re.MULTILINE) == [*map(str.capitalize, gpu.SECTIONS), "Verdict"]
    assert printed.count("are Transformers', token for token") == 4
    rows = [line for line in printed.splitlines() if line.startswith("| small | float32 |")]
    speed = r"\d+\.\d"
    for row in rows:
        assert re.fullmatch(rf"\| small \| float32 \| [^|]+ \| {speed} \| {speed} \| \d+\.\d\d× \|", row), row
    assert len(rows) == len(QUICK.workloads) + 1
    assert printed.endswith("No fault.\n")


def test_tokens_beside_others_are_compared_while_others_join_and_leave(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([*QUICKLY, "--only", "independence"]) == 0
    found = re.search(r"1 of 1 requests, 20 tokens, .* of whose requests (\d+) ended", capsys.readouterr().out)
    assert found
    assert int(found[1]) > 0


def test_a_different_token_is_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = equality.by_transformers

    def falsified(requests: Sequence[ContinuationRequest], transformers: Transformers) -> list[equality.Tokens]:
        expected = real(requests, transformers)
        expected[0][0][0] += 1
        return expected

    monkeypatch.setattr(equality, "by_transformers", falsified)
    assert gpu.main([*QUICKLY, "--only", "equality", "--requests", "1"]) == 1
    assert "small, alone: 1 differ from Transformers" in capsys.readouterr().out


def test_a_section_that_fails_is_a_fault_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing(_: Machine) -> list[str]:
        raise RuntimeError("no memory")

    monkeypatch.setitem(gpu.SECTIONS, "start", failing)
    assert gpu.main([*QUICKLY, "--only", "start,environment"]) == 1
    printed = capsys.readouterr().out
    assert "start failed: RuntimeError('no memory')" in printed
    assert "## Environment" in printed


def test_the_long_prompt_has_its_number_of_tokens(tmp_path: Path) -> None:
    machine = Machine(torch.device("cpu"), QUICK, 1, tmp_path)
    loaded = load(str(machine.model(SMALL)), device="cpu")
    assert len(encode(loaded, machine.long_prompt())) == QUICK.prompt
    assert loaded.info.vocabulary > len(loaded.tokenizer)  # so that tokens without a text are drawn, too


UNNEEDED = frozenset({"aiohttp", "discord", "matplotlib", "polib", "prometheus_client", "ray", "sentry_sdk"})


def test_its_modules_import_only_the_engines_packages() -> None:
    found = {"benchmarks.gpu"}
    left = [*found]
    while left:
        parts = left.pop().split(".")
        for length in range(1, len(parts) + 1):  # a module's packages are loaded before it
            path = ROOT.joinpath(*parts[:length])
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            new = {each.module for each in top_imports(path)} - found if path.is_file() else set()
            found |= new
            left += new
    assert {"torch", "bot.gpt2.local.engine", "bot.monitoring.logs"} <= found
    assert not {module.partition(".")[0] for module in found} & UNNEEDED


@pytest.mark.slow
def test_it_needs_only_the_engines_packages(tmp_path: Path) -> None:
    program = f"import sys, benchmarks.gpu; sys.exit(', '.join({set(UNNEEDED)} & sys.modules.keys()))"
    assert run_python("-c", program, folder=tmp_path).stderr.strip() == ""
