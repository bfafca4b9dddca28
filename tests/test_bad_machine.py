"""A machine in trouble: a full disk, read-only caches, a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bot.errors import ExitCode
from bot.figures.disk_cache import SUFFIX
from tests.answers import answered
from tests.gpt2.hub import COMMIT, Hub, Repository
from tests.loopback import BotProcess, LoopbackDiscord
from tests.loopback.wandering import FILE, JUMPED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.loopback import Interaction, Message

# A process takes seconds to start, so each test shows all that one can show.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and capabilities are Linux's"),
]

SHORT = {"prompt": "Hello", "samples": 1, "length": 2}
LONG = {"prompt": "Hello, I'm a language model,", "samples": 10, "length": 100}
HOUR = 3600


@pytest_asyncio.fixture(loop_scope="module")
async def discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


def settings(model: Path, **more: str) -> dict[str, str]:
    return {"GPT2_MODEL": str(model), "GPT2_THREADS": "1", **more}


async def drawn(discord: LoopbackDiscord, positions: int) -> Message:
    """Ask for a new picture, which the cache keeps."""
    interaction = await discord.slash("weights positional", {"positions": str(positions)})
    await interaction.until(lambda each: each.original is not None and each.original.attachments, what="a picture")
    assert interaction.original is not None
    return interaction.original


def said(bot: BotProcess, words: str) -> int:
    return sum(words in line for line in bot.stderr)


async def until(condition: Callable[[], object], what: str) -> None:
    """Poll until a condition is true."""
    try:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not within 60 s: {what}")


class FileSizeLimit:
    """A limit of the kernel (RLIMIT_FSIZE) under which no file of the process can grow; it needs no privilege."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, bot: BotProcess) -> None:
        self._limit(bot, 0)

    def make_room(self, bot: BotProcess) -> None:
        self._limit(bot, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(bot: BotProcess, size: int) -> None:
        _, most = resource.prlimit(bot.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(bot.pid, resource.RLIMIT_FSIZE, (size, most))


class SmallDisk:
    """A small disk, filled by a file. Mounting it needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", self.folder], check=True, capture_output=True)
        self._filling = self.folder / "filling"

    def fill(self, _: BotProcess) -> None:
        with self._filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(512)):
                pass

    def make_room(self, _: BotProcess) -> None:
        self._filling.unlink()


@pytest.fixture(
    params=[
        pytest.param(FileSizeLimit, id="limit"),
        pytest.param(SmallDisk, id="disk", marks=pytest.mark.slow),
    ]
)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param is FileSizeLimit:
        yield FileSizeLimit(tmp_path)
        return
    try:
        disk = SmallDisk(tmp_path)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk.folder], check=True)


def owed(journal: Path) -> set[int]:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        return {number for (number,) in connection.execute("SELECT id FROM owed")}


@pytest.mark.slow
async def test_a_full_disk_stops_no_request(
    discord: LoopbackDiscord, tiny_model: Path, disk: FileSizeLimit | SmallDisk
) -> None:
    journal = disk.folder / "journal"
    env = settings(tiny_model, JOURNAL=str(journal), GPT2_CACHE=str(disk.folder / "cache"))

    def kept() -> int:
        return len(list((disk.folder / "cache").rglob(f"*{SUFFIX}")))

    async with BotProcess(discord, env=env, entry="tests.loopback.hurried:main") as bot:
        await bot.loaded()
        await drawn(discord, 10)
        await until(lambda: kept() == 1, "a picture on disk")
        before = [await discord.slash("continue", LONG) for _ in range(8)]
        await asyncio.gather(*(interaction.acknowledged() for interaction in before))
        assert len(owed(journal)) > 3, "it was filled too late to show anything"
        disk.fill(bot)
        for interaction in before:
            await answered(interaction)
        for positions in range(11, 14):
            await answered(await discord.slash("continue", SHORT))
            await drawn(discord, positions)
        await bot.logged("cannot write the disk cache of pictures")
        assert said(bot, "cannot write the journal") == 1
        assert said(bot, "cannot write the disk cache of pictures") == 1
        assert kept() == 1
        left = owed(journal)
        assert left, "they were answered after the disk was full, so their rows could not be deleted"
        assert left <= {interaction.id for interaction in before}
        disk.make_room(bot)
        await bot.logged("the journal is writable again", within=60)
        await until(lambda: not owed(journal), "the rows of what was answered long ago gone")
        await drawn(discord, 14)
        await until(lambda: kept() == 2, "pictures kept again")
        await bot.logged("the disk cache of pictures works again")
        asked = [await discord.slash("continue", LONG) for _ in range(12)]
        await asyncio.gather(*(interaction.acknowledged() for interaction in asked))
        await bot.kill()
    waiting = {each.id for each in asked if each.original is not None and each.original.loading}
    assert waiting, "it was killed too late to show anything"
    assert waiting <= owed(journal)
    assert not list(disk.folder.glob("*.damaged"))
    assert said(bot, "Traceback") == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
async def test_read_only_caches_are_used(discord: LoopbackDiscord, tiny_model: Path, tmp_path: Path) -> None:
    cache, files = tmp_path / "cache", contents(tiny_model)
    with Hub({"someone/tiny": Repository(files)}) as hub:
        env = {"GPT2_MODEL": "someone/tiny", "GPT2_THREADS": "1", "GPT2_CACHE": str(cache), "JOURNAL": "off"}
        env |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
        async with BotProcess(discord, env=env, fresh=True) as bot:
            await bot.loaded()
            await drawn(discord, 10)
            assert await bot.stop() == ExitCode.OK
        pictures = list(cache.rglob(f"*{SUFFIX}"))
        assert len(pictures) == 1, bot.stderr
        folders = [Path(folder) for folder, *_ in os.walk(cache)]
        for folder in folders:
            folder.chmod(0o555)
        try:
            async with BotProcess(discord, env=env, entry="tests.loopback.humble:main", fresh=True) as bot:
                await bot.loaded()
                await answered(await discord.slash("continue", SHORT))
                for positions in range(10, 14):
                    await drawn(discord, positions)
                await bot.logged("cannot write the disk cache of pictures")
                assert await bot.stop() == ExitCode.OK
            assert said(bot, "cannot write the disk cache of pictures") == 1
            assert said(bot, "Traceback") == 0
            assert list(cache.rglob(f"*{SUFFIX}")) == pictures
            # A version that is not in the cache cannot be fetched; the operator reads that in a sentence.
            hub.repositories["someone/tiny"] = Repository(files, commit=COMMIT[::-1])
            async with BotProcess(discord, env=env, entry="tests.loopback.humble:main", fresh=True) as bot:
                assert await bot.wait(within=60) == ExitCode.MODEL_INVALID
            assert said(bot, "could not be stored") == 1
            assert said(bot, "GPT2_CACHE names the folder for downloads") == 1
            assert said(bot, "Traceback") == 0
        finally:
            for folder in folders:
                folder.chmod(0o755)


WANDERING = "tests.loopback.wandering:main"


async def jump(bot: BotProcess, folder: Path, hours: float) -> None:
    """Put the clock of the process in `folder` so many hours away from the machine's."""
    (folder / FILE).write_text(str(hours * HOUR))
    bot.signal(signal.SIGUSR1)
    await bot.logged(f"{JUMPED}{float(hours * HOUR)}")


async def several(discord: LoopbackDiscord) -> list[Interaction]:
    asked = [await discord.slash("continue", LONG) for _ in range(6)]
    await asyncio.gather(*(interaction.acknowledged() for interaction in asked))
    return asked


async def test_a_jumping_clock_loses_no_request(discord: LoopbackDiscord, tiny_model: Path, tmp_path: Path) -> None:
    env = settings(tiny_model, JOURNAL=str(tmp_path / "journal"), PICTURES_MB="0")
    asked: list[Interaction] = []
    async with BotProcess(discord, env=env, entry=WANDERING, cwd=tmp_path) as bot:
        await bot.loaded()
        for hours in (24 * 400, -20):
            asked += await several(discord)
            assert any("tokens/s" not in interaction.text for interaction in asked), "nothing was in flight"
            await jump(bot, tmp_path, hours)
        for interaction in asked:
            await answered(interaction)
        assert await bot.stop() == ExitCode.OK
    assert not any(interaction.followups for interaction in asked), "nobody was refused"


@pytest.mark.slow
async def test_rows_of_other_days_are_answered(discord: LoopbackDiscord, tiny_model: Path, tmp_path: Path) -> None:
    env, entry = settings(tiny_model, JOURNAL=str(tmp_path / "journal"), PICTURES_MB="0"), WANDERING
    async with BotProcess(discord, env=env, entry=entry, cwd=tmp_path) as bot:
        await bot.loaded()
        owing = await several(discord)
        await jump(bot, tmp_path, 7)
        owing += await several(discord)
        await bot.kill()
    assert any("tokens/s" not in interaction.text for interaction in owing), "it was killed too late to show anything"
    # What was written in the future and in the past is answered on a day before either.
    async with BotProcess(discord, env=env | {FILE: str(-30 * HOUR)}, entry=entry, cwd=tmp_path) as bot:
        await bot.loaded()
        for interaction in owing:
            await answered(interaction)
        owing = await several(discord)
        await bot.kill()
    # And what was written in the past, on a day long after.
    env |= {FILE: str(400 * 24 * HOUR), "COOLDOWN_SECONDS": "600"}
    async with BotProcess(discord, env=env, entry=entry, cwd=tmp_path) as bot:
        await bot.loaded()
        for interaction in owing:
            await answered(interaction)
        await until(lambda: not owed(tmp_path / "journal"), "nothing owed")
        bob = discord.user("bob")
        await answered(await discord.slash("continue", SHORT, user=bob))
        refusal = (await (await discord.slash("continue", SHORT, user=bob)).answered()).text
        (until_when,) = re.findall(r"<t:(\d+):R>", refusal)
        assert 0 < int(until_when) - time.time() <= 601, "people's clients count down by the true time"
        assert await bot.stop() == ExitCode.OK
    assert not any(interaction.followups for interaction in owing), "nobody was refused"
