"""A disk cache of pictures: a folder of bounded size, which several processes may share.

A file is one line of JSON, with alt text, caption and file name, followed by the PNG. It is written under another name
and renamed, so that no reader sees half a file; a damaged file counts as missing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import zlib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
import structlog

from bot.figures.drawing.picture import Picture
from bot.text import Text

if TYPE_CHECKING:
    from collections.abc import Hashable

SUFFIX: Final = ".picture"
_UNFINISHED: Final = ".unfinished"

log = structlog.get_logger(__name__)


class DiskCache:
    """A folder of pictures, under keys whose `repr` is unique and stable across restarts.

    Failures of the disk are logged once when they begin and once when they end; meanwhile pictures are drawn again.

    Args:
        folder: Created with the first picture.
        max_bytes: The size of all files together; the least recently used picture is evicted first.
        version: The bot's version; pictures of other versions are ignored.
    """

    def __init__(self, folder: Path, max_bytes: int, version: str) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._version = version
        self._warned = False

    def get(self, key: Hashable) -> Picture | None:
        """Return the picture cached under `key`, if any."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the order of use; a read-only folder has none
        try:
            return _decoded(content)
        except (ValueError, KeyError, TypeError):
            log.warning("a cached picture is damaged and will be drawn again", file=path.name)
            return None

    def put(self, key: Hashable, picture: Picture) -> None:
        """Store a picture, and evict the least recently used ones beyond the size limit."""
        try:
            content = _encoded(picture)
        except TypeError as error:
            log.warning("cannot serialize a picture; it is not cached", error=str(error))
            return
        if len(content) > self._max_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(content))
            self._write(self._path(key), content)
        except FileNotFoundError:
            pass  # another process evicted the file
        except OSError as error:
            self._warn(error)
        else:
            if self._warned:
                log.info("the disk cache of pictures works again")
            self._warned = False

    def _path(self, key: Hashable) -> Path:
        name = hashlib.sha256(
            f"{self._version} {_code_version()} {key!r}".encode("utf-8", "surrogatepass")
        ).hexdigest()[:40]
        return self._folder / f"{name}{SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        descriptor, unfinished = tempfile.mkstemp(dir=self._folder, suffix=_UNFINISHED)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def _make_room(self, needed: int) -> None:
        """Evict the oldest files, unfinished ones of a crash included, until `needed` bytes more fit."""
        files = []
        for path in self._folder.iterdir():
            if path.suffix in {SUFFIX, _UNFINISHED}:
                with contextlib.suppress(FileNotFoundError):  # another process evicted it first
                    state = path.stat()
                    files.append((state.st_mtime_ns, state.st_size, path))
        room = self._max_bytes - sum(size for _, size, _ in files) - needed
        for _, size, path in sorted(files):
            if room >= 0:
                break
            path.unlink(missing_ok=True)
            room += size

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("cannot write the disk cache of pictures; drawing them again", error=str(error))
        self._warned = True


@functools.cache
def _code_version() -> str:
    """Return what pictures depend on besides their data: matplotlib's version and a hash of this package."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    return f"{mpl.__version__} {sources.hexdigest()}"


def _encoded(picture: Picture) -> bytes:
    words = {
        "filename": picture.filename,
        "alt": picture.alt,
        "caption": picture.caption,
        "png": [len(picture.file), zlib.crc32(picture.file)],
    }
    return json.dumps(words, default=_plain).encode("ascii") + b"\n" + picture.file


def _decoded(content: bytes) -> Picture:
    """Read the picture in a file.

    Raises:
        ValueError, KeyError, TypeError: It is damaged.
    """
    line, _, png = content.partition(b"\n")
    read = json.loads(line, object_hook=_text)
    if read["png"] != [len(png), zlib.crc32(png)]:
        raise ValueError("length or checksum of the PNG is wrong")
    return Picture(png, read["alt"], tuple(read["caption"]), read["filename"])


def _plain(value: object) -> Any:
    """Return a text or one of numpy's numbers as JSON has it."""
    if isinstance(value, Text):
        return {"say": value.template, "with": dict(value.values)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be serialized")


def _text(value: dict[str, Any]) -> Any:
    return Text(value["say"], MappingProxyType(value["with"])) if value.keys() == {"say", "with"} else value
