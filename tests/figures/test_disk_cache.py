"""The disk cache: pictures survive a restart, its size is bounded, and failures of the disk are harmless."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from structlog.testing import capture_logs

from bot.figures import DiskCache, Picture, Renderer, matrix
from bot.figures.disk_cache import SUFFIX
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Hashable

WHOLE = 1_000_000


def picture(number: int = 1, size: int = 100) -> Picture:
    inner = say("layer {layer}", layer=np.int64(number))
    alt = say("{place}, {share:.1f}%, {name}", place=inner, share=np.float32(12.5), name="日本語 ${x}\ud800")
    return Picture(bytes([number]) * size, alt, (inner, say("no value"), alt), f"picture-{number}.png")


def cache(folder: Path, max_bytes: int = WHOLE, version: str = "1.0") -> DiskCache:
    return DiskCache(folder / "pictures", max_bytes, version)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "pictures").iterdir())


def age(folder: Path) -> None:
    """Make all files older than those written from now on."""
    for path in files(folder):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))


def test_pictures_survive_a_restart(tmp_path: Path) -> None:
    cache(tmp_path).put(("wpe", range(3), "clear"), picture())
    found = cache(tmp_path).get(("wpe", range(3), "clear"))
    assert found == picture()
    assert found
    assert found.alt.in_language(lambda template: template.replace("layer ", "Schicht ")) == picture().alt.in_language(
        lambda template: template.replace("layer ", "Schicht ")
    )


def test_a_real_picture_keeps_its_words(tmp_path: Path) -> None:
    whole = range(2)
    eye = np.eye(2, dtype=np.float32)
    drawn = matrix(eye, name="wpe", rows=whole, columns=whole, shape=(2, 2), dtype="float32", style="clear")
    cache(tmp_path).put("eye", drawn)
    assert cache(tmp_path).get("eye") == drawn


@pytest.mark.parametrize("key", ["other", ("k",), ("k", 1)])
def test_keys_are_told_apart(tmp_path: Path, key: Hashable) -> None:
    cache(tmp_path).put("k", picture())
    assert cache(tmp_path).get(key) is None


def test_pictures_of_another_version_are_ignored(tmp_path: Path) -> None:
    cache(tmp_path).put("k", picture())
    assert cache(tmp_path, version="1.1").get("k") is None


def test_the_least_recently_used_is_evicted_first(tmp_path: Path) -> None:
    cache(tmp_path).put("a", picture(1))
    one = files(tmp_path)[0].stat().st_size
    small = cache(tmp_path, max_bytes=2 * one + 10)
    age(tmp_path)
    small.put("b", picture(2))
    age(tmp_path)
    assert small.get("a")  # used now, so b is the oldest
    small.put("c", picture(3))
    assert [small.get(key) is not None for key in "abc"] == [True, False, True]
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 2 * one + 10


def test_a_picture_larger_than_the_cache_evicts_nothing(tmp_path: Path) -> None:
    small = cache(tmp_path, max_bytes=1000)
    small.put("a", picture(1))
    small.put("b", picture(2, size=1001))
    assert small.get("a")
    assert small.get("b") is None


def test_unfinished_files_are_evicted_and_foreign_files_stay(tmp_path: Path) -> None:
    cache(tmp_path).put("a", picture(1))
    one = files(tmp_path)[0].stat().st_size
    (tmp_path / "pictures" / "left.unfinished").write_bytes(bytes(one))
    (tmp_path / "pictures" / "holiday.png").write_bytes(bytes(one))
    age(tmp_path)
    os.utime(tmp_path / "pictures" / "left.unfinished", ns=(0, 0))
    cache(tmp_path, max_bytes=2 * one + 10).put("b", picture(2))
    assert [path.suffix for path in files(tmp_path)].count(SUFFIX) == 2
    assert (tmp_path / "pictures" / "holiday.png").exists()
    assert not (tmp_path / "pictures" / "left.unfinished").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]\n", b"null\nx", b"\xff\xfe\n", b'{"png": [1, 2]}\nxyz'])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    cache(tmp_path).put("k", picture())
    (path,) = files(tmp_path)
    path.write_bytes(content)
    with capture_logs() as logs:
        assert cache(tmp_path).get("k") is None
    assert [entry["event"] for entry in logs] == ["a cached picture is damaged and will be drawn again"]
    cache(tmp_path).put("k", picture())
    assert cache(tmp_path).get("k") == picture()


def test_a_file_cut_short_or_changed_is_damaged(tmp_path: Path) -> None:
    cache(tmp_path).put("k", picture())
    (path,) = files(tmp_path)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"!"):
        path.write_bytes(damaged)
        assert cache(tmp_path).get("k") is None


def test_a_path_that_is_no_folder_is_logged_once(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_bytes(b"a file")
    kept = cache(tmp_path)
    with capture_logs() as logs:
        for key in "abc":
            kept.put(key, picture())
            assert kept.get(key) is None
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("cannot write the disk cache of pictures; drawing them again", "warning")
    ]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache(tmp_path)
    kept.put("a", picture())
    before = files(tmp_path)

    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with capture_logs() as logs:
        kept.put("b", picture(2))
        kept.put("c", picture(3))
    assert files(tmp_path) == before
    assert len(logs) == 1
    assert "No space left" in logs[0]["error"]
    assert kept.get("a") == picture()


def test_several_threads_may_share_it(tmp_path: Path) -> None:
    cache(tmp_path).put("k", picture(1))
    most = files(tmp_path)[0].stat().st_size * 3
    faults: list[object] = []

    def use(number: int) -> None:
        own = cache(tmp_path, max_bytes=most)
        for turn in range(60):
            key = (turn + number) % 5
            own.put(key, picture(key))
            found = own.get(key)
            if found is not None and found != picture(key):
                faults.append(found)

    with capture_logs() as logs:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults
    assert not logs


async def test_a_renderer_reads_what_another_drew(tmp_path: Path) -> None:
    made = []

    async def make() -> Picture:
        made.append(1)
        return await renderer.render(picture)

    for _ in range(2):
        renderer = Renderer(disk_cache=cache(tmp_path))
        assert await renderer.cached("k", make) == picture()
        renderer.close()
    assert len(made) == 1


async def test_a_renderer_that_closes_writes_what_it_has_drawn(tmp_path: Path) -> None:
    began, may_go_on = threading.Event(), threading.Event()

    def busy() -> Picture:
        began.set()
        assert may_go_on.wait(10)
        return picture()

    async def make() -> Picture:
        return picture()

    renderer = Renderer(disk_cache=cache(tmp_path))
    drawing = asyncio.create_task(renderer.render(busy))
    assert await asyncio.to_thread(began.wait, 10)
    await renderer.cached("k", make)
    closing = asyncio.create_task(asyncio.to_thread(renderer.close))
    may_go_on.set()
    await asyncio.gather(closing, drawing)
    assert cache(tmp_path).get("k") == picture()


async def test_a_renderer_works_with_pictures_that_cannot_be_cached(tmp_path: Path) -> None:
    strange = Picture(b"png", say("{value}", value=object()), (), "x.png")
    renderer = Renderer(disk_cache=cache(tmp_path))

    async def make() -> Picture:
        return strange

    with capture_logs() as logs:
        assert await renderer.cached("k", make) is strange
        renderer.close()
    assert [entry["event"] for entry in logs] == ["cannot serialize a picture; it is not cached"]
