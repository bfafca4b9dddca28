"""The bench measures what it says, with the real engines in processes of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.cli import bench, gallery
from bot.cli.workloads import Workload
from bot.config import Settings
from bot.errors import ExitCode, ModelInvalidError


@pytest.mark.slow
def test_it_prints_a_table_of_every_engine_and_workload(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "WORKLOADS", (Workload(1, 1, 3), Workload(2, 3, 4)))
    assert bench.bench(Settings(gpt2_model=str(tiny_model), gpt2_device="cpu", gpt2_threads=1), rounds=1) == ExitCode.OK
    title, _, heading, _, *rows = capsys.readouterr().out.splitlines()
    assert "median of 1 interleaved rounds" in title
    assert heading == "| engine | 1 × 3 | 2 users × 3 × 4 | peak RSS |"
    assert [row.split(" | ")[0] for row in rows] == ["| transformers", "| bot"]
    speed = r"[\d.]+ \([\d.]+×(, \d+% of drafts)?\)"  # whether drafts pay is measured, too
    for row in rows:
        assert re.fullmatch(rf"\| [\w.]+ \| {speed} \| {speed} \| \d+ MiB \|", row), row
    assert "drafts" not in rows[0]
    assert rows[0].count("(1.00×)") == 2


def test_the_table_of_a_gpu_names_it_and_has_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(gpt2_device="cuda", gpt2_precision="float16")
    engines = ["transformers", "llama.cpp", "bot"]
    assert bench.bench(settings, rounds=1, engines=engines, process="tests.cli.stub_engine") == ExitCode.OK
    title, _, heading, _, *rows = capsys.readouterr().out.splitlines()
    assert "the GPU of cuda in float16, " in title
    assert heading.endswith("| peak RSS | peak GPU memory |")
    assert [row.split(" | ")[-2:] for row in rows] == [
        ["100 MiB", "2048 MiB |"],
        ["100 MiB", "– |"],  # it does not use PyTorch's allocator
        ["100 MiB", "2048 MiB |"],
    ]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_only_this_engine_gets_what_the_bot_tells_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    for engine, expected in (("transformers", False), ("bot", True)):
        process = bench.EngineProcess(engine, Settings(gpt2_device="cuda"), "tests.cli.stub_engine")
        process.wait_until_ready()
        environment = Path(f"/proc/{process._process.pid}/environ").read_bytes()
        process.close()
        assert (b"GOMP_SPINCOUNT=" in environment) is expected


@pytest.mark.slow
def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalidError, match="python -m bot check"):
        bench.bench(Settings(gpt2_model=str(tmp_path), gpt2_device="cpu", gpt2_threads=1), rounds=1, engines=["bot"])


async def test_it_times_every_picture(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    all_pieces = gallery.pieces  # 16, as the gallery's own test counts
    monkeypatch.setattr(gallery, "pieces", lambda *given: all_pieces(*given)[:3])
    settings = Settings(gpt2_model=str(tiny_model), gpt2_device="cpu")
    assert await bench.bench_pictures(settings, rounds=1) is ExitCode.OK
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("20")]  # no log lines
    title, _, heading, _, *rows, _, summary = printed
    assert "1 rounds after one to warm up" in title
    assert heading == "| picture | median | worst | size |"
    assert len(rows) == 3
    for row in rows:
        assert re.fullmatch(r"\| [\w-]+ \| \d+\.\d\d s \| \d+\.\d\d s \| \d+ KB \|", row), row
    assert summary.startswith("The median picture takes ")
