"""Settings, read once from a mapping into a frozen dataclass.

Nothing is read at import, so tests need no token and no environment. `.env.example` documents every setting with
its default; a test keeps the two in step.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import dotenv.parser

from bot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float16"]
Engine = Literal["local", "ray"]
LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
SafetyMode = Literal["off", "spoiler", "hide"]

# Discord's tokens are three dot-separated base64url parts: the bot's id, a timestamp, a signature.
TOKEN_SHAPE: Final = re.compile(r"[\w-]{18,}\.[\w-]{6,}\.[\w-]{25,}", re.ASCII)
MAX_THREADS: Final = 256
MAX_PICTURES_MB: Final = 100_000
MAX_REQUESTS: Final = 1000
MAX_COOLDOWN_SECONDS: Final = 3600
MAX_PORT: Final = 65_535
_MAX_TOKEN_FILE_BYTES: Final = 4096
_LINES_NAMED: Final = 10
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
        discord_token_file: The file that the token was read from, as Docker's and systemd's secrets are; None where
            it was given itself.
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
        requests_per_person: How many requests of one person may be in flight at one time; 0 for no bound.
        requests_per_server: How many requests from one server may be in flight at one time; 0 for no bound.
        cooldown_seconds: How long a person waits between two requests; 0 for not at all.
        nsfw_only: Whether what the model computes is for age-restricted channels alone.
        safety: What becomes of samples that a classifier takes for offensive; needs the extra "safety".
        health_host: The address on which /healthz, /readyz and /metrics are served.
        health_port: Their port; 0 for not serving them.
        sentry_dsn: Where faults of the program are reported; empty for nowhere. Needs the extra "sentry".
        log_level: The least severe level that is logged.
        log_format: "human", "json", or "auto": human on a terminal, JSON elsewhere.
    """

    discord_token: Secret = NO_TOKEN
    discord_token_file: Path | None = None
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
    requests_per_person: int = 40
    requests_per_server: int = 100
    cooldown_seconds: int = 0
    nsfw_only: bool = False
    safety: SafetyMode = "off"
    health_host: str = "127.0.0.1"
    health_port: int = 9808
    sentry_dsn: Secret = NO_TOKEN
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"


class Values(dict[str, str]):
    """What was given for settings, by name, and what is wrong with the file that some of it comes from.

    `parse` reports those faults together with its own.
    """

    def __init__(self, values: Mapping[str, str], faults: Sequence[str] = ()) -> None:
        super().__init__(values)
        self.faults = tuple(faults)


def environment(dotenv_path: Path | None = None) -> Values:
    """The process's environment over the values of a `.env` file (default: the one in the working directory).

    A byte-order mark, quotes, spaces around values and Windows line ends in the file are all fine. A line that is no
    setting is a fault: it may be one that its writer counts on.

    Raises:
        SettingsError: The file exists and cannot be read as UTF-8 text, or it was asked for and is not there.
    """
    path = dotenv_path or Path(".env")
    if dotenv_path and not path.is_file():
        raise SettingsError([f"There is no file {path}."])
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path} cannot be read as UTF-8 text: {error}"]) from error
    # Not dotenv_values(): it leaves out what it cannot read with no more than a warning. And nothing is interpolated:
    # a token or path with "$" in it means itself.
    bindings = tuple(dotenv.parser.parse_stream(io.StringIO(text)))
    given = {each.key: each.value for each in bindings if each.key and each.value is not None}
    return Values(given | dict(os.environ), _bad_lines(path, [each.original for each in bindings if each.error]))


def _bad_lines(path: Path, bad: Sequence[dotenv.parser.Original]) -> list[str]:
    """One fault for all lines that could not be read, without their text: the token may be on one of them."""
    if not bad:
        return []
    # A binding begins with the blank lines above it.
    numbers = [str(each.line + each.string[: -len(each.string.lstrip())].count("\n")) for each in bad]
    named = ", ".join(numbers[:_LINES_NAMED]) + (" and more" if len(numbers) > _LINES_NAMED else "")
    lines = "line" if len(numbers) == 1 else "lines"
    return [f"{path}, {lines} {named}: write each setting as NAME=value, close every quote, begin comments with #."]


def parse(values: Mapping[str, str], *, token_required: bool = False) -> Settings:
    """Settings from a mapping; names are those of the fields of `Settings` in capitals.

    An empty or blank value counts as not given, so that ``GPT2_CACHE=`` in a file means the default. Quotes around a
    value are no part of it: Docker, for one, hands on those of a file of settings.

    Raises:
        SettingsError: With every fault, not only the first.
    """
    plain = {item.name: _unquoted(values.get(item.name.upper(), "")) for item in fields(Settings)}
    given = {name: value for name, value in plain.items() if value}
    faults = list(values.faults) if isinstance(values, Values) else []
    reader, default = _Reader(given, faults), Settings()
    settings = Settings(
        discord_token=reader.read("discord_token", Secret, default.discord_token),
        discord_token_file=reader.read("discord_token_file", Path, default.discord_token_file),
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
        requests_per_person=reader.read(
            "requests_per_person", _number(MAX_REQUESTS, "no bound"), default.requests_per_person
        ),
        requests_per_server=reader.read(
            "requests_per_server", _number(MAX_REQUESTS, "no bound"), default.requests_per_server
        ),
        cooldown_seconds=reader.read(
            "cooldown_seconds", _number(MAX_COOLDOWN_SECONDS, "off"), default.cooldown_seconds
        ),
        nsfw_only=reader.read("nsfw_only", _switch, default.nsfw_only),
        safety=reader.read("safety", _choice(SafetyMode, str.lower), default.safety),
        health_host=reader.read("health_host", str, default.health_host),
        health_port=reader.read("health_port", _number(MAX_PORT, "off"), default.health_port),
        sentry_dsn=reader.read("sentry_dsn", _dsn, default.sentry_dsn),
        log_level=reader.read("log_level", _choice(LogLevel, str.upper), default.log_level),
        log_format=reader.read("log_format", _choice(LogFormat, str.lower), default.log_format),
    )
    if settings.shard_ids and settings.shard_ids[-1] >= settings.shard_count:
        reader.faults.append(
            f"SHARD_IDS names shard {settings.shard_ids[-1]}, but SHARD_COUNT is {settings.shard_count}: it must say "
            "how many there are, and ids count from 0."
        )
    if settings.discord_token_file and settings.discord_token:
        reader.faults.append("DISCORD_TOKEN and DISCORD_TOKEN_FILE are both given: leave one of them empty.")
    elif settings.discord_token_file:
        token = reader.read("discord_token_file", _token_in, NO_TOKEN)
        settings = replace(settings, discord_token=token)
    if token_required and not {"discord_token", "discord_token_file"} & given.keys():
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


def _unquoted(text: str) -> str:
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if quoted else text


def _number(most: int, zero: str) -> Callable[[str], int]:
    """Reads a whole number from 0, which means `zero`, to `most`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > most:
            raise ValueError(f"must be a whole number from 0 ({zero}) to {most}, not {text!r}.")
        return int(text)

    return convert


def _token_in(name: str) -> Secret:
    path = Path(name)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_TOKEN_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = (error.strerror or "unknown error") if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"names {name!r}, which cannot be read: {reason}.") from error
    token = _unquoted(text)
    if not token or len(content) > _MAX_TOKEN_FILE_BYTES:
        raise ValueError(f"names {name!r}, which must hold the token and nothing else.")
    return Secret(token)


def _dsn(text: str) -> Secret:
    if not re.fullmatch(r"https?://[^\s/@]+@[^\s/@]+/\S+", text):
        raise ValueError("must be a Sentry DSN, https://key@host/project.")  # not shown: the key is nobody else's
    return Secret(text)


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
