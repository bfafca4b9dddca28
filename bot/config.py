"""Settings, read once from a mapping into a frozen dataclass.

Nothing is read at import, so tests need no token and no environment. `.env.example` documents every setting with
its default; a test keeps the two in step.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import dotenv

from bot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float16"]
Engine = Literal["local", "ray"]
LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

# Discord's tokens are three dot-separated base64url parts: the bot's id, a timestamp, a signature.
TOKEN_SHAPE: Final = re.compile(r"[\w-]{18,}\.[\w-]{6,}\.[\w-]{25,}", re.ASCII)
MAX_THREADS: Final = 256
MAX_PICTURES_MB: Final = 100_000
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Secret(str):
    """A string whose repr, and so every log and traceback that shows it, tells nothing of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')" if self else "Secret('')"


NO_TOKEN: Final = Secret()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a host can set.

    Attributes:
        discord_token: The bot's token; empty where the command needs none (demo, check of a new checkout).
        gpt2_model: A hub name, a folder in Transformers' format, or "shakespeare", which ships with the bot.
        gpt2_engine: Where GPT-2 computes: "local" in this process, "ray" on a cluster of machines, which has its own
            model.
        gpt2_cluster: Addresses of the cluster's door; the next one is taken where one does not answer.
        ray_address: The Ray cluster that `python -m bot cluster` deploys to; empty starts one on this machine.
        gpt2_device: Where the model computes; "auto" takes CUDA when there is one.
        gpt2_precision: Of the weights in memory; "float16" is faster and takes half the memory, but seeds then give
            other words than Transformers does in float32.
        gpt2_threads: CPU threads for the model, 0 for one per core this process may use.
        gpt2_cache: Folder for downloads from the hub; None for Hugging Face's own.
        pictures_mb: How many megabytes of pictures of weights are kept on disk, beside the downloads; 0 for none.
        source_url: Where the code that you run can be read, for /about; empty for no link.
        sync_commands: Whether to bring Discord's list of commands up to date at start.
        journal: The file that remembers what was accepted until it is answered; None keeps nothing.
        shutdown_seconds: How long what is running may take to finish once the bot is told to end.
        shard_count: Into how many shards the bot is split; 0 lets Discord decide.
        shard_ids: Those that this process runs; empty for all of them.
        log_level: The least severe level that is logged.
        log_format: "human", "json", or "auto": human on a terminal, JSON elsewhere.
    """

    discord_token: Secret = NO_TOKEN
    gpt2_model: str = "gpt2"
    gpt2_engine: Engine = "local"
    gpt2_cluster: tuple[str, ...] = ("http://127.0.0.1:8000",)
    ray_address: str = ""
    gpt2_device: Device = "auto"
    gpt2_precision: Precision = "float32"
    gpt2_threads: int = 0
    gpt2_cache: Path | None = None
    pictures_mb: int = 256
    source_url: str = ""
    sync_commands: bool = True
    journal: Path | None = Path("data/journal.sqlite3")
    shutdown_seconds: float = 5.0
    shard_count: int = 0
    shard_ids: tuple[int, ...] = ()
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"


def environment(dotenv_path: Path | None = None) -> dict[str, str]:
    """The process's environment over the values of a `.env` file (default: the one in the working directory).

    A byte-order mark, quotes, spaces around values and Windows line ends in the file are all fine.

    Raises:
        SettingsError: The file exists and cannot be read as UTF-8 text, or it was asked for and is not there.
    """
    path = dotenv_path or Path(".env")
    if dotenv_path and not path.is_file():
        raise SettingsError([f"There is no file {path}."])
    try:
        # interpolate=False: a token or path with "$" in it means itself.
        from_file = dotenv.dotenv_values(path, encoding="utf-8-sig", interpolate=False) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path} cannot be read as UTF-8 text: {error}"]) from error
    return {name: value for name, value in from_file.items() if value is not None} | dict(os.environ)


def parse(values: Mapping[str, str], *, token_required: bool = False) -> Settings:
    """Settings from a mapping; names are those of the fields of `Settings` in capitals.

    An empty or blank value counts as not given, so that ``GPT2_CACHE=`` in a file means the default.

    Raises:
        SettingsError: With every fault, not only the first.
    """
    given = {
        item.name: values[item.name.upper()].strip()
        for item in fields(Settings)
        if values.get(item.name.upper(), "").strip()
    }
    reader, default = _Reader(given), Settings()
    settings = Settings(
        discord_token=reader.read("discord_token", Secret, default.discord_token),
        gpt2_model=reader.read("gpt2_model", str, default.gpt2_model),
        gpt2_engine=reader.read("gpt2_engine", _choice(Engine, str.lower), default.gpt2_engine),
        gpt2_cluster=reader.read("gpt2_cluster", _addresses, default.gpt2_cluster),
        ray_address=reader.read("ray_address", str, default.ray_address),
        gpt2_device=reader.read("gpt2_device", _choice(Device, str.lower), default.gpt2_device),
        gpt2_precision=reader.read("gpt2_precision", _choice(Precision, str.lower), default.gpt2_precision),
        gpt2_threads=reader.read("gpt2_threads", _number(MAX_THREADS, "one per core"), default.gpt2_threads),
        gpt2_cache=reader.read("gpt2_cache", _folder, default.gpt2_cache),
        pictures_mb=reader.read("pictures_mb", _number(MAX_PICTURES_MB, "none"), default.pictures_mb),
        source_url=reader.read("source_url", _link, default.source_url),
        sync_commands=reader.read("sync_commands", _switch, default.sync_commands),
        journal=reader.read("journal", _journal, default.journal),
        shutdown_seconds=reader.read("shutdown_seconds", _seconds, default.shutdown_seconds),
        shard_count=reader.read("shard_count", _shard_count, default.shard_count),
        shard_ids=reader.read("shard_ids", _shard_ids, default.shard_ids),
        log_level=reader.read("log_level", _choice(LogLevel, str.upper), default.log_level),
        log_format=reader.read("log_format", _choice(LogFormat, str.lower), default.log_format),
    )
    if settings.shard_ids and settings.shard_ids[-1] >= settings.shard_count:
        reader.faults.append(
            f"SHARD_IDS names shard {settings.shard_ids[-1]}, but SHARD_COUNT is {settings.shard_count}: it must say "
            "how many there are, and ids count from 0."
        )
    if token_required and "discord_token" not in given:
        reader.faults.append(
            "DISCORD_TOKEN is missing: copy .env.example to .env and paste the token from the Bot page of your "
            "application at https://discord.com/developers/applications."
        )
    if reader.faults:
        raise SettingsError(reader.faults)
    return settings


def token_fault(token: Secret) -> str | None:
    """What is wrong with the shape of a token, or None. Only Discord can say whether a well-shaped one is valid.

    The answer never holds the value: a token with one letter missing is still nearly a token.
    """
    if TOKEN_SHAPE.fullmatch(token):
        return None
    return (
        "DISCORD_TOKEN does not look like a bot token (three parts joined by dots). Copy it from the Bot page of "
        "your application, not the application id, the public key or the client secret."
    )


@dataclass(slots=True)
class _Reader:
    """Reads one value after another and keeps the faults, so that all are reported together."""

    given: Mapping[str, str]
    faults: list[str] = field(default_factory=list)

    def read(self, name: str, convert: Callable[[str], T], default: T) -> T:
        if name not in self.given:
            return default
        if name != "discord_token" and TOKEN_SHAPE.search(self.given[name]):
            # Said without the value: faults are printed, and a model's name is logged and sent to the hub.
            self.faults.append(f"{name.upper()} holds a bot token, which belongs in DISCORD_TOKEN alone.")
            return default
        try:
            return convert(self.given[name])
        except ValueError as fault:
            self.faults.append(f"{name.upper()} {fault}")
            return default


def _number(most: int, zero: str) -> Callable[[str], int]:
    """Reads a whole number from 0, which means `zero`, to `most`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > most:
            raise ValueError(f"must be a whole number from 0 ({zero}) to {most}, not {text!r}.")
        return int(text)

    return convert


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~name of somebody whom the system does not know
        raise ValueError(f"must be a folder, not {text!r}: {error}") from error


def _journal(text: str) -> Path | None:
    return None if text.lower() in _FALSE else _folder(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}([.][0-9]+)?", text):
        raise ValueError(f"must be a number of seconds below 1000, not {text!r}.")
    return float(text)


def _shard_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(f"must be a whole number, 0 to let Discord decide, not {text!r}.")
    return int(text)


def _shard_ids(text: str) -> tuple[int, ...]:
    """Ids and ranges of them: "0", "0,1" or "0-3,8"."""
    ids: set[int] = set()
    for part in text.replace(" ", "").split(","):
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"must be shards such as 0, 0,1 or 0-3, not {text!r}.")
        ids.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return tuple(sorted(ids))


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(address.strip() for address in text.split(",") if address.strip())
    if not addresses or not all(re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", address) for address in addresses):
        raise ValueError(f"must be addresses such as http://127.0.0.1:8000, separated by commas, not {text!r}.")
    return addresses


def _link(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+\S*", text):
        raise ValueError(f"must be a link that begins with https://, not {text!r}.")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(f"must be true or false, not {text!r}.")
    return text.lower() in _TRUE


def _choice(literal: object, fold: Callable[[str], str]) -> Callable[[str], Any]:
    allowed = get_args(literal)

    def convert(text: str) -> str:
        if fold(text) not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {text!r}.")
        return fold(text)

    return convert
