"""Pictures kept on disk: a folder within a size bound, which several processes may share.

A file is one line of JSON, with all that is said about the picture, and then the PNG. It is written under another name
and moved into its place, so that nobody ever reads half of one; what is damaged all the same is taken for not there.
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


class Shelf:
    """Keeps pictures in a folder, under keys whose `repr` tells one from another after a restart, too.

    It is no fault if it cannot: that the disk refuses is logged when it begins and when it has passed, and meanwhile
    pictures are drawn again.

    Args:
        folder: Made when the first picture is put there.
        most_bytes: All files together; the picture that was not asked for longest goes first.
        edition: The version of whoever reads what is drawn; pictures of another are not taken.
    """

    def __init__(self, folder: Path, most_bytes: int, edition: str) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._edition = edition
        self._warned = False

    def take(self, key: Hashable) -> Picture | None:
        """The picture kept under `key`, if there is one."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # asked for just now; a folder that is only to be read has no order to keep
        try:
            return _decoded(content)
        except (ValueError, KeyError, TypeError):
            log.warning("a kept picture is damaged and will be drawn again", file=path.name)
            return None

    def put(self, key: Hashable, picture: Picture) -> None:
        """Keep a picture, and let go of the oldest where that is too much."""
        try:
            content = _encoded(picture)
        except TypeError as error:
            log.warning("a picture says what cannot be written down, so it is not kept", error=str(error))
            return
        if len(content) > self._most_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(content))
            self._write(self._path(key), content)
        except FileNotFoundError:
            pass  # another process needed the room for its own
        except OSError as error:
            self._warn(error)
        else:
            if self._warned:
                log.info("pictures are kept on disk again")
            self._warned = False

    def _path(self, key: Hashable) -> Path:
        name = hashlib.sha256(f"{self._edition} {_drawn_by()} {key!r}".encode("utf-8", "surrogatepass")).hexdigest()[
            :40
        ]
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
        """Remove the oldest files until `needed` bytes more fit; what a crash left unfinished grows old, too."""
        files = []
        for path in self._folder.iterdir():
            if path.suffix in {SUFFIX, _UNFINISHED}:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    state = path.stat()
                    files.append((state.st_mtime_ns, state.st_size, path))
        room = self._most_bytes - sum(size for _, size, _ in files) - needed
        for _, size, path in sorted(files):
            if room >= 0:
                break
            path.unlink(missing_ok=True)
            room += size

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("pictures cannot be kept on disk: they are drawn again", error=str(error))
        self._warned = True


@functools.cache
def _drawn_by() -> str:
    """What a picture depends on but its numbers: matplotlib, and the code of this package as it is."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    return f"{mpl.__version__} {sources.hexdigest()}"


def _encoded(picture: Picture) -> bytes:
    said = {
        "filename": picture.filename,
        "alt": picture.alt,
        "caption": picture.caption,
        "png": [len(picture.png), zlib.crc32(picture.png)],
    }
    return json.dumps(said, default=_plain).encode("ascii") + b"\n" + picture.png


def _decoded(content: bytes) -> Picture:
    """The picture in a file.

    Raises:
        ValueError, KeyError, TypeError: It is damaged.
    """
    line, _, png = content.partition(b"\n")
    said = json.loads(line, object_hook=_text)
    if said["png"] != [len(png), zlib.crc32(png)]:
        raise ValueError("not the picture that was kept")
    return Picture(png, said["alt"], tuple(said["caption"]), said["filename"])


def _plain(value: object) -> Any:
    """A text or one of numpy's numbers as JSON has it."""
    if isinstance(value, Text):
        return {"say": value.template, "with": dict(value.values)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not kept")


def _text(read: dict[str, Any]) -> Any:
    return Text(read["say"], MappingProxyType(read["with"])) if read.keys() == {"say", "with"} else read
