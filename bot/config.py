"""Settings, read once from a mapping into a frozen dataclass.

Nothing is read at import, so tests need no token and no environment. Each setting is declared once, as a field of
`Settings`: default, parser, explanation. `python -m tools.env_example` makes `.env.example` from these declarations.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import unicodedata
import urllib.request
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import dotenv.parser

from bot import setting_parsers as parsers
from bot.errors import SettingsError
from bot.installation import program
from bot.setting_parsers import setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float16", "bfloat16"]
Draft = Literal["auto", "off"]
Engine = Literal["local", "ray"]
LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
SafetyMode = Literal["off", "spoiler", "hide"]

# Discord's tokens are three dot-separated base64url parts: the bot's id, a timestamp, a signature.
TOKEN_SHAPE: Final = re.compile(r"[\w-]{18,}\.[\w-]{6,}\.[\w-]{25,}", re.ASCII)
MAX_THREADS: Final = 256
MAX_MODELS: Final = 25  # choices that Discord shows for an option
MAX_PICTURES_MB: Final = 100_000
MAX_SHARDS: Final = 99_999
MAX_REQUESTS: Final = 1000
MAX_COOLDOWN_SECONDS: Final = 3600
MAX_PORT: Final = 65_535
_MAX_LINES_LISTED: Final = 10
_FORM: Final = "write each setting as NAME=value, close every quote, begin comments with #."
_BACKSLASHES: Final = (
    "between quotes a backslash begins an escape, such as \\n for a line break. Write the path without quotes."
)
# The least similarity of a misspelled name: GPT2_MODLE has 0.9, systemd's JOURNAL_STREAM (no mistake) 0.67.
_MISSPELLED: Final = 0.85


class Secret(str):
    """A string whose repr, and so every log and traceback that shows it, reveals nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')" if self else "Secret('')"


NO_SECRET: Final = Secret()


def _dsn(text: str) -> Secret:
    if not re.fullmatch(r"https?://[^\s/@]+@[^\s/@]+/\S+", text):
        raise ValueError("must be a Sentry DSN, https://key@host/project.")  # not quoted: the key is secret
    return Secret(text)


def _proxy(text: str) -> Secret:
    return Secret(parsers.proxy(text))  # it may hold a password


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set; the explanation of each setting is in the metadata of its field."""

    discord_token: Secret = setting(
        NO_SECRET,
        Secret,
        "The bot's token: https://discord.com/developers/applications → your application → Bot → Reset Token. "
        "Needed to run on Discord; `make demo` works without it. Anyone who has the token controls the bot: if it "
        "leaks, reset it.",
    )
    discord_token_file: Path | None = setting(
        None,
        Path,
        "Instead of DISCORD_TOKEN: a file that holds the token and nothing else, such as a Docker secret or a "
        "systemd credential.",
    )
    discord_proxy: Secret = setting(
        NO_SECRET,
        _proxy,
        "An HTTP proxy for Discord, http://host:port or http://user:password@host:port; SOCKS is not supported. Empty "
        "is the one in HTTPS_PROXY or ALL_PROXY, if any, unless NO_PROXY lists discord.com.",
    )
    gpt2_model: str = setting(
        "gpt2",
        str,
        "The model: a name on the Hugging Face hub (gpt2, distilgpt2, gpt2-medium, gpt2-large, gpt2-xl, or any "
        "fine-tuned GPT-2, such as someone/their-gpt2), a folder in Transformers' format with safetensors weights, "
        "or gpt2-mini, the small model that ships with the bot and needs no download.",
    )
    gpt2_models: tuple[str, ...] = setting(
        (),
        parsers.model_names(MAX_MODELS),
        "Several models in one bot: their names, separated by commas; people choose one with the option model. The "
        "first is the default one, unless GPT2_MODEL names another of them. The others are loaded when somebody first "
        "asks for them. See docs/models.md.",
    )
    gpt2_models_memory: int = setting(
        0,
        parsers.memory,
        "With GPT2_MODELS: how much memory all loaded models may take together, such as 4 GB. The least recently used "
        "idle one is dropped to make room, never the default one. 0 is no limit: a loaded model stays.",
    )
    gpt2_engine: Engine = setting(
        "local",
        parsers.choice(Engine),
        "Where GPT-2 computes: local (in the bot's own process) or ray (on the machines of a cluster, see "
        "docs/scale.md). A cluster has its own model, device, precision and threads; the settings below are then "
        "those of `python -m bot cluster`.",
    )
    gpt2_cluster: tuple[str, ...] = setting(
        ("http://127.0.0.1:8000",),
        parsers.addresses,
        "With GPT2_ENGINE=ray: the address of the cluster's HTTP front end. Several, separated by commas, are "
        "tried in turn.",
    )
    ray_address: str = setting(
        "",
        str,
        "For `python -m bot cluster`: the Ray cluster to deploy to, such as 10.0.0.5:6379. Empty starts one on "
        "this machine.",
    )
    gpt2_device: Device = setting(
        "auto",
        parsers.choice(Device),
        "Where the model computes: auto (CUDA if it can be used, otherwise the CPU), cpu or cuda.",
    )
    gpt2_precision: Precision = setting(
        "float32",
        parsers.choice(Precision),
        "Precision of the weights in memory: float32 gives the words of Transformers, seed for seed; float16, and "
        "bfloat16 on a GPU only, are faster and take half the memory, but give other words, and every answer says so.",
    )
    gpt2_threads: int = setting(
        0,
        parsers.integer(MAX_THREADS, zero="one per core"),
        f"CPU threads for the model, at most {MAX_THREADS}. 0 is one per core that the process may use.",
    )
    gpt2_draft: Draft = setting(
        "auto",
        parsers.choice(Draft),
        "Whether a cheap copy of the model guesses tokens that the model then checks several at a time, which changes "
        "no word: auto (on a CPU in float32, whenever it is faster) or off (saves a quarter of the weights' memory).",
    )
    gpt2_cache: Path | None = setting(
        None,
        parsers.path,
        "The folder for downloads from the hub. Empty is Hugging Face's own (~/.cache/huggingface/hub, or inside "
        "HF_HOME).",
    )
    pictures_mb: int = setting(
        256,
        parsers.integer(MAX_PICTURES_MB, zero="none"),
        "Megabytes of weight pictures to keep on disk (in GPT2_CACHE, or in Hugging Face's folder for assets). "
        "They never change, so each is drawn once. 0 keeps none.",
    )
    source_url: str = setting("", parsers.link, "A link to the source code you run, shown by /about. Empty shows none.")
    updates_url: str = setting(
        "",
        parsers.link,
        "The address of the latest release in the API of the server that hosts the code, such as "
        "https://api.github.com/repos/OWNER/REPOSITORY/releases/latest. The bot asks there once a day and tells of a "
        "newer version in the log and in /about. Empty asks nobody.",
    )
    sync_commands: bool = setting(
        True, parsers.boolean, "Whether to update Discord's list of commands at start: true or false."
    )
    journal: Path | None = setting(
        Path("data/journal.sqlite3"),
        parsers.path_or_off,
        "The file that keeps each accepted request until it is answered, so that a restart, a crash or a power cut "
        "loses none; off for no file. It holds prompts and the interaction tokens that answer them: keep it on a "
        "disk of this machine.",
    )
    shutdown_seconds: float = setting(
        5.0,
        parsers.seconds,
        "How many seconds running requests get to finish on shutdown. The rest stay in the journal for the next start.",
    )
    shard_count: int = setting(
        0,
        parsers.integer(MAX_SHARDS, zero="Discord decides"),
        'For large bots: how many shards the bot has. 0 lets Discord decide. See docs/hosting.md, "Shards".',
    )
    shard_ids: tuple[int, ...] = setting(
        (), parsers.shard_ids, "Which shards this process runs, such as 0,1 or 0-3. Empty is all of them."
    )
    requests_per_person: int = setting(
        40,
        parsers.integer(MAX_REQUESTS, zero="no limit"),
        "How many requests one person may have waiting or running. 0 is no limit. The queue is fair whatever "
        "anyone sends, so this only keeps one person from filling its 200 places.",
    )
    requests_per_server: int = setting(
        100,
        parsers.integer(MAX_REQUESTS, zero="no limit"),
        "The same for all members of one server together. 0 is no limit.",
    )
    cooldown_seconds: int = setting(
        0,
        parsers.integer(MAX_COOLDOWN_SECONDS, zero="off"),
        "How many seconds a person must wait between two requests; a private message counts them down. At most "
        f"{MAX_COOLDOWN_SECONDS}. 0 is off.",
    )
    nsfw_only: bool = setting(
        False,
        parsers.boolean,
        "Whether everything but /help and /about works in age-restricted channels only: true or false.",
    )
    safety: SafetyMode = setting(
        "off",
        parsers.choice(SafetyMode),
        "How to treat samples that a classifier finds offensive: off (no classifier), spoiler (behind a click) or "
        'hide. Needs the extra "safety", knows only English and errs both ways: docs/hosting.md says how often.',
    )
    health_host: str = setting(
        "127.0.0.1", str, "The address that /healthz, /readyz and /metrics listen on; 127.0.0.1 is this machine only."
    )
    health_port: int = setting(
        9808, parsers.integer(MAX_PORT, zero="off"), "Their port. 0 is off. Several bots on one machine need one each."
    )
    sentry_dsn: Secret = setting(
        NO_SECRET,
        _dsn,
        "The DSN of a Sentry project to report errors to, without anything that people wrote. Empty reports "
        'nothing. Needs the extra "sentry".',
    )
    log_level: LogLevel = setting(
        "INFO",
        parsers.choice(LogLevel, str.upper),
        "The least severe level that is logged: DEBUG, INFO, WARNING or ERROR.",
    )
    log_format: LogFormat = setting(
        "auto",
        parsers.choice(LogFormat),
        "The form of the log: human, json (one object a line), or auto (human on a terminal, JSON elsewhere).",
    )

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models, the default one first."""
        return tuple(dict.fromkeys((self.gpt2_model, *self.gpt2_models)))


_NAMES: Final = frozenset(each.name.upper() for each in fields(Settings))
# The beginnings of our names. In the process's environment, where names of other programs are too, only those that
# begin so can be misspelled ones of ours.
_FAMILIES: Final = tuple({name.partition("_")[0] + "_" for name in _NAMES if "_" in name})


class Values(dict[str, str]):
    """The text of settings by name, and the faults of the file that some of it comes from.

    `parse` reports those faults together with its own.
    """

    def __init__(self, values: Mapping[str, str], faults: Sequence[str] = ()) -> None:
        super().__init__(values)
        self.faults = tuple(faults)


def environment(dotenv_path: Path | None = None) -> Values:
    """Return the process's environment over the values of a `.env` file (default: the one in the working directory).

    The file may have a byte-order mark, quotes, spaces around values and Windows line ends. A line that is not a
    setting is a fault, because its writer may rely on it; so is a name that is nearly that of one.

    Raises:
        SettingsError: The file exists but is not readable as UTF-8 text, or the file that was asked for does not exist.
    """
    path = dotenv_path or Path(".env")
    if dotenv_path and not path.is_file():
        raise SettingsError([f"There is no file {path}."])
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path} cannot be read as UTF-8 text: {error}"]) from error
    # Not dotenv_values(), which skips unreadable lines with a mere warning. No interpolation either: a "$" in a token
    # or a path is literal.
    bindings = tuple(dotenv.parser.parse_stream(io.StringIO(text)))
    given = {each.key: each.value for each in bindings if each.key and each.value is not None}
    misread = [each for each in bindings if _is_misread(each)]
    unreadable = [each for each in bindings if each.error and each not in misread]
    for each in misread:
        given.pop(each.key or "", None)
    faults = _line_faults(path, misread, _BACKSLASHES) + _line_faults(path, unreadable, _FORM)
    faults += _misspelled({*given, *(name for name in os.environ if name.startswith(_FAMILIES))})
    return Values(given | dict(os.environ), faults)


def _is_misread(binding: dotenv.parser.Binding) -> bool:
    """Return whether some backslashes between quotes were read as escapes and others not, as in a path."""
    written = binding.original.string
    if binding.error:
        return bool(re.search(r"\\[\"']", written))
    quoted = re.search(r"""=\s*(["'])((?:\\.|(?!\1)[^\\])*)\1""", written, re.DOTALL)
    if not quoted or (binding.key or "").lower() not in {each.name for each in fields(Settings)}:
        return False
    return quoted[2] != binding.value and not set(re.findall(r"\\(.)", quoted[2])) <= set("\\'\"")


def _line_faults(path: Path, bindings: Sequence[dotenv.parser.Binding], cure: str) -> list[str]:
    """Return one fault for all these lines, without their text, which may hold the token."""
    if not bindings:
        return []
    numbers = [str(_line(each.original)) for each in bindings]
    listed = ", ".join(numbers[:_MAX_LINES_LISTED]) + (" and more" if len(numbers) > _MAX_LINES_LISTED else "")
    lines = "line" if len(numbers) == 1 else "lines"
    return [f"{path}, {lines} {listed}: {cure}"]


def _line(original: dotenv.parser.Original) -> int:
    """Return the number of a binding's line; a binding begins with the blank lines above it."""
    return original.line + original.string[: -len(original.string.lstrip())].count("\n")


def parse(values: Mapping[str, str], *, token_required: bool = False) -> Settings:
    """Return the settings in a mapping, whose keys are the names of the fields of `Settings` in capitals.

    An empty or blank value counts as not given, so ``GPT2_CACHE=`` in a file means the default. Quotes around a value
    are removed, because Docker passes on those of an env file.

    Raises:
        SettingsError: With every fault, not only the first.
    """
    plain = {each.name: parsers.unquoted(values.get(each.name.upper(), "")) for each in fields(Settings)}
    given = {name: text for name, text in plain.items() if text}
    faults = list(values.faults) if isinstance(values, Values) else []
    settings = Settings(**{each.name: _parsed(each, given, faults) for each in fields(Settings)})
    if settings.shard_ids and settings.shard_ids[-1] >= settings.shard_count:
        faults.append(
            f"SHARD_IDS names shard {settings.shard_ids[-1]}, but SHARD_COUNT is {settings.shard_count}: set "
            "SHARD_COUNT to the number of all shards; ids count from 0."
        )
    settings = _with_models(settings, given, faults)
    settings = _with_token(settings, given, faults, required=token_required)
    if not settings.discord_proxy:
        settings = replace(settings, discord_proxy=_environments_proxy(values))
    if token_required and settings.discord_token and (fault := token_fault(settings.discord_token)):
        faults.append(fault)
    if faults:
        raise SettingsError(faults)
    return settings


def _misspelled(names: AbstractSet[str]) -> Iterator[str]:
    """Yield a fault for each name that is nearly a setting's: its value would be ignored without a word."""
    for name in sorted(names - _NAMES):
        for nearest in difflib.get_close_matches(name.upper(), _NAMES, n=1, cutoff=_MISSPELLED):
            yield f"{name} is no setting; {nearest} is the nearest. Correct the name, or remove it."


def _parsed(setting: Field[Any], given: Mapping[str, str], faults: list[str]) -> Any:
    """Return the value of a setting, or its default if it is not given or cannot be used, which adds a fault."""
    name = setting.name
    if name not in given:
        return setting.default
    if name != "discord_token" and TOKEN_SHAPE.search(given[name]):
        # Not quoted: faults are printed, and a model's name is logged and sent to the hub.
        faults.append(f"{name.upper()} holds a bot token, which belongs in DISCORD_TOKEN only.")
        return setting.default
    if not given[name].isprintable() and any(unicodedata.category(each) == "Cc" for each in given[name]):
        faults.append(
            f"{name.upper()} holds a control character, perhaps because it is a path between double quotes: there "
            "a backslash begins an escape, such as \\n for a line break."
        )
        return setting.default
    try:
        return setting.metadata["parser"](given[name])
    except ValueError as fault:
        faults.append(f"{name.upper()} {fault}")
        return setting.default


def _with_models(settings: Settings, given: Mapping[str, str], faults: list[str]) -> Settings:
    """Return the settings with the default one of GPT2_MODELS, if that is given."""
    if not settings.gpt2_models:
        return settings
    if "gpt2_model" not in given:
        settings = replace(settings, gpt2_model=settings.gpt2_models[0])
    elif settings.gpt2_model not in settings.gpt2_models:
        faults.append(
            f"GPT2_MODEL is {settings.gpt2_model!r}, which GPT2_MODELS does not list: add it there, or leave "
            "GPT2_MODEL empty."
        )
    if settings.gpt2_engine == "ray" and len(settings.models) > 1:
        faults.append("GPT2_MODELS names several models, but GPT2_ENGINE=ray has one, the cluster's: leave one empty.")
    return settings


def _with_token(settings: Settings, given: Mapping[str, str], faults: list[str], *, required: bool) -> Settings:
    """Return the settings with the token from DISCORD_TOKEN_FILE, if that is given."""
    if required and not {"discord_token", "discord_token_file"} & given.keys():
        faults.append(
            f"DISCORD_TOKEN is missing: `{program()} setup` asks for it and writes it into .env. It is on the Bot page "
            "of your application at https://discord.com/developers/applications."
        )
    if not settings.discord_token_file:
        return settings
    if settings.discord_token:
        faults.append("DISCORD_TOKEN and DISCORD_TOKEN_FILE are both set: leave one of them empty.")
        return settings
    try:
        return replace(settings, discord_token=Secret(parsers.token_in(given["discord_token_file"])))
    except ValueError as fault:
        faults.append(f"DISCORD_TOKEN_FILE {fault}")
        return settings


def _environments_proxy(values: Mapping[str, str]) -> Secret:
    """Return the proxy that the environment names for Discord, if it is one that can be used."""
    variables = {name.lower(): text.strip() for name, text in values.items() if name.lower().endswith("_proxy")}
    address = variables.get("https_proxy") or variables.get("all_proxy")
    no_proxy = {"no": variables.get("no_proxy", "")}
    if not address or urllib.request.proxy_bypass_environment("discord.com", no_proxy):  # type: ignore[attr-defined]
        return NO_SECRET
    try:
        return _proxy(address)
    except ValueError:
        return NO_SECRET  # such as SOCKS


def token_fault(token: Secret) -> str | None:
    """Return a sentence on the shape of a token, or None if it is right; only Discord knows whether the token is valid.

    The sentence never quotes the value: a token with one letter missing is still nearly a token.
    """
    if TOKEN_SHAPE.fullmatch(token):
        return None
    return (
        "DISCORD_TOKEN does not look like a bot token (three parts joined by dots). Copy it from the Bot page of "
        "your application, not the application id, the public key or the client secret."
    )
