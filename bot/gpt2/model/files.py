"""Finding a model's files: a hub name, a folder in Transformers' format, or the model that ships with the bot.

Safetensors only, no remote code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import huggingface_hub
import huggingface_hub.constants  # not loaded by the package itself
import structlog
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tqdm import tqdm

from bot.errors import ModelInvalidError, OperatorError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_ASSETS: Final = "gpt2-for-discord"
SHIPPED: Final = "shakespeare"
"""Name of the small model that is part of this package; its model card lies beside its files."""
SHIPPED_FOLDER: Final = Path(__file__).parents[1] / SHIPPED
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
TOKENIZER: Final = "tokenizer.json"
VOCABULARY: Final = ("vocab.json", "merges.txt")
_OPTIONAL: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")

_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_HUB_SECONDS: Final = 10.0  # for the hub's first answer; a host at the terminal waits for it
_PROGRESS_SECONDS: Final = 5.0
_MEGABYTE: Final = 1_000_000
_REFUSED: Final = frozenset({401, 403})  # HTTP
_CANNOT_STORE: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR}
)

log = structlog.get_logger(__name__)


def locate(name: str, cache: Path | None = None, stopped: threading.Event | None = None) -> Path:
    """The folder that holds the model called `name`, downloaded first where it is on the hub.

    Args:
        name: A hub name, a folder, or the name of the model that ships with the bot.
        cache: Where downloads are kept; None for Hugging Face's own place.
        stopped: Ends a download when it is set; what was downloaded is kept for the next time.

    Raises:
        ModelInvalidError: There is no such model, or a file that it needs is missing.
        UnreachableError: The hub could not be reached and the files are not in the cache.
    """
    folder = SHIPPED_FOLDER if name == SHIPPED else _as_folder(name)
    if folder and folder.is_dir():
        check_complete(folder)
        return folder
    if folder and folder.exists():
        raise ModelInvalidError(f"GPT2_MODEL names a file, {folder}; give the folder that holds it.")
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelInvalidError(
            f"GPT2_MODEL is {name!r}: no folder of that name is there, and it is no name on the Hugging Face hub."
        )
    return download(name, cache, stopped or threading.Event())


def _as_folder(name: str) -> Path | None:
    """The path, or None where the system takes it for none (too long, or the home of nobody it knows)."""
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError):
        return None
    return folder


def check_complete(folder: Path) -> None:
    """Raise ModelInvalidError unless the folder holds a config, safetensors weights and a tokenizer."""
    try:
        fault = _fault({path.name for path in folder.iterdir()})
    except OSError as error:
        raise ModelInvalidError(f"The model folder {folder} cannot be read: {error}") from error
    if fault:
        raise ModelInvalidError(f"The model folder {folder} {fault}")
    for file in weight_files(folder):
        if not file.is_file():
            raise ModelInvalidError(f"The model folder {folder} has no {file.name}, which {WEIGHTS_INDEX} names.")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model, one or several (large models are cut in shards).

    Raises:
        ModelInvalidError: The index of the shards is damaged or names a file outside the folder.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    return tuple(folder / shard for shard in _shards(folder / WEIGHTS_INDEX))


def assets(cache: Path | None = None) -> Path:
    """The folder for what is made of models, beside those that are downloaded; it need not be there yet."""
    return (cache or Path(huggingface_hub.constants.HF_ASSETS_CACHE)) / _ASSETS


def pictures(cache: Path | None = None) -> Path:
    """Where pictures of weights are kept."""
    return assets(cache) / "pictures"


def fingerprint(folder: Path) -> str:
    """What tells these weights from any others, without reading gigabytes of them: each file's place, size and time.

    The files of a cache of the hub are links to files that are named after their content.
    """
    states = [(file.resolve(), file.stat()) for file in weight_files(folder)]
    described = [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]
    return hashlib.sha256(repr(described).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def download(name: str, cache: Path | None, stopped: threading.Event) -> Path:
    """The hub model `name`, each file taken from the cache where it is there already.

    Raises:
        ModelInvalidError: The hub has no such model, or it has no file that is needed.
        UnreachableError: The hub could not be reached and the cache does not hold the whole model.
    """
    hub = _Hub(name, cache, stopped)
    try:
        present = hub.file_names()
    except UnreachableError:
        folder = hub.cached()
        if folder is None:
            raise
        log.warning("the hub cannot be reached; the copy in the cache is used", model=name)
        return folder
    fault = _fault(present)
    if fault:
        raise ModelInvalidError(f"The model {name!r} on the Hugging Face hub {fault}")
    return hub.fetch_model(present)


class _Hub:
    """One repository on the hub; turns the hub's many faults into sentences for the host."""

    def __init__(self, name: str, cache: Path | None, stopped: threading.Event) -> None:
        self.name = name
        self.cache = cache
        self.stopped = stopped

    def file_names(self) -> frozenset[str]:
        """What the repository holds now. One quick question, so that a hub out of reach is known at once."""
        try:
            info = huggingface_hub.HfApi().model_info(self.name, timeout=_HUB_SECONDS)
        except Exception as error:
            raise self._explained(CONFIG, error) from error
        return frozenset(sibling.rfilename for sibling in info.siblings or ())

    def cached(self) -> Path | None:
        """The folder of the copy in the cache, if that is complete."""
        config = huggingface_hub.try_to_load_from_cache(self.name, CONFIG, cache_dir=self.cache)
        if not isinstance(config, str):
            return None
        folder = Path(config).parent
        try:
            check_complete(folder)
        except ModelInvalidError:
            return None
        return folder

    def fetch_model(self, present: Collection[str]) -> Path:
        """All files that are needed, of one and the same revision."""
        folder = self._fetch(CONFIG).parent
        revision = folder.name  # the cache names its folders by commit
        for file in _beside_config(present):
            self._fetch(file, revision)
        if WEIGHTS not in present:
            for shard in _shards(folder / WEIGHTS_INDEX):
                self._fetch(shard, revision)
        return folder

    def _fetch(self, file: str, revision: str | None = None) -> Path:
        class Progress(_Progress):
            of = file
            stopped = self.stopped

        try:
            path = huggingface_hub.hf_hub_download(
                self.name, file, revision=revision, cache_dir=self.cache, tqdm_class=Progress
            )
        except Exception as error:
            if self.stopped.is_set():
                raise UnreachableError(f"The download of {file} was stopped.") from error
            raise self._explained(file, error) from error
        return Path(path)

    def _explained(self, file: str, error: Exception) -> OperatorError:
        fault = self._fault_in(file, error)
        return ModelInvalidError(fault) if fault else self._unreachable(file)

    def _fault_in(self, file: str, error: Exception) -> str | None:
        """What is wrong for good, or None if another try may succeed."""
        fault = None
        # Order matters: a gated repository is a repository not found, a local miss an entry not found, most OSErrors.
        match error:
            case GatedRepoError():
                fault = self._refusal()
            case RepositoryNotFoundError():
                fault = (
                    f"The Hugging Face hub has no model {self.name!r}, and there is no folder of that name: "
                    "check GPT2_MODEL."
                )
            case HFValidationError():
                fault = f"GPT2_MODEL is {self.name!r}, which is no name on the Hugging Face hub."
            case LocalEntryNotFoundError():
                pass
            case EntryNotFoundError():
                fault = f"The model {self.name!r} on the Hugging Face hub has no {file}."
            case HfHubHTTPError():
                fault = self._refusal() if error.response.status_code in _REFUSED else None
            case OSError() if error.errno in _CANNOT_STORE:
                fault = (
                    f"{file} of the model {self.name!r} could not be stored: {error}. "
                    "GPT2_CACHE names the folder for downloads."
                )
        return fault

    def _refusal(self) -> str:
        return (
            f"The Hugging Face hub does not give out the model {self.name!r} without permission: ask for it on the "
            "model's page, then log in with `hf auth login` or set HF_TOKEN."
        )

    def _unreachable(self, file: str) -> UnreachableError:
        return UnreachableError(
            f"{file} of the model {self.name!r} could not be downloaded from the Hugging Face hub and is not in the "
            "local cache. Check the network, a proxy, or HF_HUB_OFFLINE; or put the model's files in a folder and "
            "point GPT2_MODEL at it."
        )


class _Progress(tqdm):  # type: ignore[type-arg] # generic in its stubs only
    """A download's progress: a bar on a terminal, log lines elsewhere.

    Attributes:
        of: The file's name. The library would describe it by the end of its address, which may hold a signature.
        stopped: Ends the download when it is set.
    """

    of = ""
    stopped = threading.Event()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._logs = not sys.stderr.isatty()
        place = _Nowhere() if self._logs else sys.stderr
        super().__init__(*args, **{**kwargs, "desc": self.of, "disable": False, "file": place})
        self._said = -math.inf

    def update(self, n: float | None = 1) -> bool | None:
        if self.stopped.is_set():
            raise InterruptedError("nobody waits for the download any more")
        result = super().update(n)
        total = self.total or 0
        if self._logs and total >= _MEGABYTE and time.monotonic() - self._said >= _PROGRESS_SECONDS:
            self._said = time.monotonic()
            log.info("downloading", file=self.of, done_mb=self.n // _MEGABYTE, total_mb=total // _MEGABYTE)
        return result


class _Nowhere:
    """A file that swallows what is written: the bar itself."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def _shards(index: Path) -> tuple[str, ...]:
    try:
        names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelInvalidError(f"{index} is damaged: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelInvalidError(f"{index} names {name!r}, which is no safetensors file beside it.")
    if not names:
        raise ModelInvalidError(f"{index} names no file.")
    return tuple(sorted(set(names)))


def _fault(present: Collection[str]) -> str | None:
    """What a model with these files lacks, as the end of a sentence; None if it is complete."""
    if CONFIG not in present:
        return f"has no {CONFIG}."
    if WEIGHTS not in present and WEIGHTS_INDEX not in present:
        hint = " Only safetensors are read, because loading other formats can run code." if _pickles(present) else ""
        return f"has no {WEIGHTS}.{hint}"
    if TOKENIZER not in present and not set(VOCABULARY) <= set(present):
        return f"has neither {TOKENIZER} nor {' and '.join(VOCABULARY)}."
    return None


def _beside_config(present: Collection[str]) -> Iterator[str]:
    """The files to fetch of those that a complete repository holds, the shards of large weights aside."""
    yield from (file for file in _OPTIONAL if file in present)
    yield from (TOKENIZER,) if TOKENIZER in present else VOCABULARY
    yield WEIGHTS if WEIGHTS in present else WEIGHTS_INDEX


def _pickles(names: Collection[str]) -> bool:
    return any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names)
