"""One log line and one count for every request: its command, sizes, duration and outcome.

Texts are never logged, only their lengths. Names are logged only if this bot defined them.
"""

from __future__ import annotations

import enum
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_BUTTON: Final = re.compile(r"([a-z]{1,20})\.\d+(:.*)?", re.DOTALL)  # as bot.ui writes a custom_id: name.version:state

log = structlog.get_logger(__name__)


class Outcome(enum.StrEnum):
    """The way a request ended."""

    ANSWERED = "answered"
    REFUSED = "refused"  # with a reason for the user: bad input, a full queue, a cooldown
    FAILED = "failed"  # a bug; the log has its traceback under the same reference
    EXPIRED = "expired"  # too late, the message was deleted, or Discord was unreachable
    CANCELLED = "cancelled"  # the bot was stopped before the answer


@dataclass(slots=True)
class LogEntry:
    """A request from its arrival to its end.

    Attributes:
        reference: The reference in its log lines, shown to its user if it fails.
        command: "/weights list", "menu …", "button …" or "form …"; few distinct values, as a metric's label needs.
        place: "server", "dm" or "group".
        sizes: The number of characters in its texts, and its numeric options.
        began: `time.perf_counter()` on arrival.
        outcome: The way it ended.
        seconds: From arrival to end; 0 until then.
    """

    reference: str
    command: str
    place: str
    sizes: Mapping[str, float]
    began: float = field(default_factory=time.perf_counter)
    outcome: Outcome = Outcome.ANSWERED
    seconds: float = 0.0


class RequestLog:
    """A log of requests, one line each when it ends.

    Attributes:
        observers: Called with the entry of each request that has ended.
    """

    def __init__(self) -> None:
        self.observers: list[Callable[[LogEntry], None]] = []

    def begin(self, interaction: discord.Interaction) -> LogEntry:
        """Return the entry of a request that has just arrived."""
        data: Any = interaction.data or {}
        command = _command(interaction, data)
        return LogEntry(secrets.token_hex(4), command, _place(interaction), dict(_sizes(data)))

    def end(self, entry: LogEntry) -> None:
        """Log a request that has ended, and call the observers."""
        entry.seconds = time.perf_counter() - entry.began
        log.info(
            "request",
            reference=entry.reference,
            command=entry.command,
            place=entry.place,
            outcome=entry.outcome.value,
            seconds=round(entry.seconds, 3),
            sizes=entry.sizes,
        )
        for observer in self.observers:
            observer(entry)


def _command(interaction: discord.Interaction, data: Mapping[str, Any]) -> str:
    match interaction.type:
        case discord.InteractionType.application_command if data.get("type", 1) == 1:
            return "/" + " ".join(_path(data))
        case discord.InteractionType.application_command:
            return f"menu {data.get('name', '')}"
        case discord.InteractionType.modal_submit:
            kind = "form"
        case _:
            kind = "button"
    named = _BUTTON.fullmatch(str(data.get("custom_id", "")))
    return f"{kind} {named[1]}" if named else kind


def _path(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of a command and of the subcommands within it."""
    yield str(data.get("name", ""))
    for option in data.get("options") or ():
        if "value" not in option:
            yield from _path(option)


def _place(interaction: discord.Interaction) -> str:
    if interaction.guild_id is not None:
        return "server"
    return "group" if isinstance(interaction.channel, discord.GroupChannel) else "dm"


def _sizes(data: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    characters = 0
    for option in _fields(data):
        value = option.get("value")
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield str(option.get("name", "")), value
    resolved = (data.get("resolved") or {}).get("messages") or {}
    characters += sum(len(message.get("content") or "") for message in resolved.values())
    yield "characters", characters


def _fields(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the options of a command and the inputs of a form, at any depth."""
    within: Sequence[Mapping[str, Any]] = (*(data.get("options") or ()), *(data.get("components") or ()))
    if "component" in data:
        within = (*within, data["component"])
    for each in within:
        yield each
        yield from _fields(each)
