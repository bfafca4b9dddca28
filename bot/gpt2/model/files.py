"""The files of a model, located by a hub name, a folder in Transformers' format, or the name of the shipped model.

Only safetensors are read, and no remote code runs.
"""

from __future__ import annotations

import errno
import math
import re
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

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
from bot.gpt2.model.folder import CONFIG, WEIGHTS, WEIGHTS_INDEX, beside_config, check_complete, fault, shards

if TYPE_CHECKING:
    from collections.abc import Collection

_ASSETS: Final = "gpt2-for-discord"
SHIPPED: Final = "gpt2-mini"
"""Name of the small model in this package; its model card is beside its files."""
SHIPPED_FOLDER: Final = Path(__file__).parents[1] / SHIPPED
_SHIPPED_BEFORE: Final = "shakespeare"  # with version 0.1

_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_HUB_SECONDS: Final = 10.0  # timeout of the hub's first answer, for which the operator waits
_PROGRESS_SECONDS: Final = 5.0
_MEGABYTE: Final = 1_000_000
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_CANNOT_STORE: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR}
)

log = structlog.get_logger(__name__)


def locate(name: str, cache: Path | None = None, stopped: threading.Event | None = None) -> Path:
    """Return the folder of the model called `name`; download it first if it is on the hub.

    Args:
        name: A hub name, a folder, or the name of the shipped model.
        cache: Folder for downloads; None for Hugging Face's default.
        stopped: Ends a download when set; the next one resumes.

    Raises:
        ModelInvalidError: There is no such model, or it lacks a file.
        UnreachableError: The hub is unreachable and the files are not in the cache.
    """
    return present(name) or download(name, cache, stopped or threading.Event())


def shown_name(name: str) -> str:
    """Return the name under which people know the model called `name`: the last part of a folder's path, or `name`."""
    folder = None if name == SHIPPED else _as_folder(name)
    return folder.name if folder and folder.is_dir() else name


def present(name: str) -> Path | None:
    """Return the folder of the model called `name` if it is no name on the hub.

    Raises:
        ModelInvalidError: The folder holds no complete model, or this can be no name of a model.
    """
    folder = SHIPPED_FOLDER if name == SHIPPED else _as_folder(name)
    if name == _SHIPPED_BEFORE and not (folder and folder.exists()):
        raise ModelInvalidError(
            f"The model {name} no longer ships with the bot; set GPT2_MODEL={SHIPPED}, its successor."
        )
    if folder and folder.is_dir():
        _check(folder, name)
        return folder
    if folder and folder.exists():
        raise ModelInvalidError(f"GPT2_MODEL names a file, {folder}; name its folder instead.")
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelInvalidError(
            f"GPT2_MODEL is {name!r}, which is neither a folder nor a name on the Hugging Face hub."
        )
    return None


def _as_folder(name: str) -> Path | None:
    """Return the path, or None if the system rejects it (too long, or the home of an unknown user)."""
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError):
        return None
    return folder


def _check(folder: Path, name: str) -> None:
    """Check a folder; if it holds no model and is called as one on the hub may be, say that it comes first.

    Raises:
        ModelInvalidError: The folder holds no complete model.
    """
    try:
        check_complete(folder)
    except ModelInvalidError as error:
        if _HUB_NAME.fullmatch(name) and not name.startswith(".") and not (folder / CONFIG).exists():
            raise ModelInvalidError(
                f"{error} It comes before the model {name!r} on the Hugging Face hub: "
                f"rename or remove {folder.absolute()} if you mean that one."
            ) from error
        raise


def assets(cache: Path | None = None) -> Path:
    """Return the folder for files derived from models; it may not exist yet."""
    return (cache or Path(huggingface_hub.constants.HF_ASSETS_CACHE)) / _ASSETS


def pictures(cache: Path | None = None) -> Path:
    """Return the folder for pictures of weights."""
    return assets(cache) / "pictures"


def download(name: str, cache: Path | None, stopped: threading.Event) -> Path:
    """Download the hub model `name`, except for files in the cache, and return its folder.

    Raises:
        ModelInvalidError: The hub has no such model, or it lacks a file.
        UnreachableError: The hub is unreachable and the cached copy is incomplete.
    """
    hub = _Hub(name, cache, stopped)
    try:
        present = hub.file_names()
        lacking = fault(present)
        if lacking:
            raise ModelInvalidError(f"The model {name!r} on the Hugging Face hub {lacking}")
        return hub.fetch_model(present)
    except (UnreachableError, _WithheldError) as error:
        folder = hub.cached()
        if folder is None or stopped.is_set():
            raise
        reason = "cannot reach the hub" if isinstance(error, UnreachableError) else "the hub withholds the model"
        log.warning("using the cached copy", model=name, reason=reason)
        return folder


class _WithheldError(ModelInvalidError):
    """A model that the hub does not give to this operator, or no longer has."""


class _Hub:
    """A repository on the hub, with the hub's many errors as sentences for the operator."""

    def __init__(self, name: str, cache: Path | None, stopped: threading.Event) -> None:
        self.name = name
        self.cache = cache
        self.stopped = stopped
        self._token: Literal[False] | None = None  # None is the operator's, if there is one

    def file_names(self) -> frozenset[str]:
        """List the repository's files: one quick request, which finds an unreachable hub at once.

        If the hub refuses the operator's access token, this and all later requests go without it: an expired token
        makes the hub refuse public models, too.
        """
        try:
            info = huggingface_hub.HfApi().model_info(self.name, timeout=_HUB_SECONDS, token=self._token)
        except Exception as error:
            if self._token is None and _refuses_token(error):
                self._token = False
                log.warning("the hub refuses the access token (HF_TOKEN or `hf auth login`); asking without it")
                return self.file_names()
            raise self._explained(CONFIG, error) from error
        return frozenset(sibling.rfilename for sibling in info.siblings or ())

    def cached(self) -> Path | None:
        """Return the folder of the cached copy, if it is complete."""
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
        """Download all needed files of one revision."""
        folder = self._fetch(CONFIG).parent
        revision = folder.name  # the cache names its folders by commit
        for file in beside_config(present):
            self._fetch(file, revision)
        if WEIGHTS not in present:
            for shard in shards(folder / WEIGHTS_INDEX):
                self._fetch(shard, revision)
        return folder

    def _fetch(self, file: str, revision: str | None = None) -> Path:
        class Progress(_Progress):
            of = file
            stopped = self.stopped

        try:
            path = huggingface_hub.hf_hub_download(
                self.name, file, revision=revision, cache_dir=self.cache, token=self._token, tqdm_class=Progress
            )
        except Exception as error:
            if self.stopped.is_set():
                raise UnreachableError(f"The download of {file} was stopped.") from error
            raise self._explained(file, error) from error
        return Path(path)

    def _explained(self, file: str, error: Exception) -> OperatorError:
        fault = self._fault_in(file, error)
        if not fault:
            return self._unreachable(file)
        withheld = isinstance(error, HfHubHTTPError) and not isinstance(error, EntryNotFoundError)
        return _WithheldError(fault) if withheld else ModelInvalidError(fault)

    def _fault_in(self, file: str, error: Exception) -> str | None:
        """Return the permanent fault, or None if a retry may succeed."""
        fault = None
        # Order matters: a gated repository is a repository not found, a local miss an entry not found, most OSErrors.
        match error:
            case GatedRepoError():
                fault = self._refusal()
            case RepositoryNotFoundError() if self._token is False:
                fault = self._refusal()
            case RepositoryNotFoundError():
                fault = (
                    f"The Hugging Face hub has no model {self.name!r}, and there is no folder of that name: "
                    "check GPT2_MODEL."
                )
            case HFValidationError():
                fault = f"GPT2_MODEL is {self.name!r}, which is not a valid name on the Hugging Face hub."
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
        if self._token is False:
            return (
                "The Hugging Face hub refuses your access token, which is wrong or has expired, and without it has no "
                f"public model {self.name!r}: renew HF_TOKEN or `hf auth login`, and check GPT2_MODEL."
            )
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
    """Progress of a download: a bar on a terminal, log lines elsewhere.

    Attributes:
        of: The file's name. The library would show the end of its URL, which may hold a signature.
        stopped: Ends the download when set.
    """

    of = ""
    stopped = threading.Event()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._logs = not sys.stderr.isatty()
        output = _NullFile() if self._logs else sys.stderr
        super().__init__(*args, **{**kwargs, "desc": self.of, "disable": False, "file": output})
        self._last_logged = -math.inf

    def update(self, n: float | None = 1) -> bool | None:
        if self.stopped.is_set():
            raise InterruptedError("the download was stopped")
        result = super().update(n)
        total = self.total or 0
        if self._logs and total >= _MEGABYTE and time.monotonic() - self._last_logged >= _PROGRESS_SECONDS:
            self._last_logged = time.monotonic()
            log.info("downloading", file=self.of, done_mb=self.n // _MEGABYTE, total_mb=total // _MEGABYTE)
        return result


class _NullFile:
    """A file that discards its input, the progress bar."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Do nothing, since nothing is buffered."""


def _refuses_token(error: Exception) -> bool:
    """Return whether the hub refused a request that an access token came with, or the token cannot be sent at all."""
    if not huggingface_hub.get_token():
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == HTTPStatus.UNAUTHORIZED
    return isinstance(error, UnicodeEncodeError)
