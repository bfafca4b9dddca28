"""One log line and one count for every request: its command, sizes, duration and outcome.

Texts are never logged, only their lengths; of names only those that this bot gave itself.
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
    REFUSED = "refused"  # with a sentence that says why: bad input, a full queue, a cooldown
    FAILED = "failed"  # a fault of the program; the log has its traceback under the same reference
    EXPIRED = "expired"  # too late, the message was deleted, or Discord was out of reach
    CANCELLED = "cancelled"  # the bot was stopped in the middle of it


@dataclass(slots=True)
class LogEntry:
    """A request from its arrival to its end.

    Attributes:
        reference: The reference that its user is shown if it fails, and that its log lines have.
        command: "/weights list", "menu …", "button …" or "form …"; one of few, so that it can be a metric's label.
        place: "server", "dm" or "group".
        sizes: The number of characters written, and the options that are numbers.
        began: `time.perf_counter()` when it reached the bot.
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
    """Logs every request when it ends, and tells the observers.

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
        """Write the line of a request that has ended."""
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
    for option in data.get("options", ()):
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
    resolved = data.get("resolved", {}).get("messages", {})
    characters += sum(len(message.get("content", "")) for message in resolved.values())
    yield "characters", characters


def _fields(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the options of a command and the inputs of a form, however deep they are."""
    within: Sequence[Mapping[str, Any]] = (*data.get("options", ()), *data.get("components", ()))
    if "component" in data:
        within = (*within, data["component"])
    for each in within:
        yield each
        yield from _fields(each)
