"""The comparison with more engines, of those that are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import baselines, compare
from bot.cli import bench
from bot.cli.workloads import Workload

if TYPE_CHECKING:
    from pathlib import Path


def test_every_engine_has_a_builder() -> None:
    assert baselines.BUILDERS.keys() == compare.PACKAGES.keys()
    assert set(bench.ENGINES) <= set(compare.installed())


def test_an_unknown_engine_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--engines", "vlm"])
    assert "no engine vlm" in capsys.readouterr().err


def test_vllm_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "find_spec", lambda _: True)
    assert "vllm" not in compare.installed("cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert compare.installed("auto") == tuple(compare.PACKAGES)


@pytest.mark.slow
def test_it_prints_a_row_for_every_installed_engine(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "WORKLOADS", (Workload(1, 2, 3),))
    assert compare.main(["--model", str(tiny_model), "--rounds", "1", "--threads", "1", "--device", "cpu"]) == 0
    rows = capsys.readouterr().out.splitlines()[4:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {engine}" for engine in compare.installed()]
