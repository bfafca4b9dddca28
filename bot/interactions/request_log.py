"""One line in the log and one count for every request: what it was, how large, how long it took, how it ended.

Never what it said: of texts their lengths are kept, of names those that this bot gave itself.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_KEY: Final = "record"
_BUTTON: Final = re.compile(r"([a-z]{1,20})\.\d+(:.*)?", re.DOTALL)  # as bot.ui writes a custom_id: name.version:state

log = structlog.get_logger(__name__)


class Outcome(enum.StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REFUSED = "refused"  # with a sentence that says why: bad input, a full queue, a cooldown
    FAILED = "failed"  # a fault of the program; the log has its traceback under the same reference
    EXPIRED = "expired"  # nobody was left to be answered: too late, the message was deleted, or Discord out of reach
    CANCELLED = "cancelled"  # the bot was ended in the middle of it


@dataclass(slots=True)
class Record:
    """A request on its way.

    Attributes:
        reference: What its user is shown if it fails, and its log lines have.
        command: "/weights list", "menu …", "button …" or "form …"; one of few, so that it can be a metric's label.
        place: "server", "dm" or "group".
        sizes: Characters that were written, and the options that are numbers.
        began: `time.perf_counter()` when it reached the bot.
        outcome: How it ended, as far as it is known.
        seconds: How long it took; 0 until it has ended.
    """

    reference: str
    command: str
    place: str
    sizes: Mapping[str, float]
    began: float = field(default_factory=time.perf_counter)
    outcome: Outcome = Outcome.ANSWERED
    seconds: float = 0.0


class Records:
    """Knows the requests that are under way, and tells whoever `observers` lists of each that has ended."""

    def __init__(self) -> None:
        self.observers: list[Callable[[discord.Interaction, Record], None]] = []

    def of(self, interaction: discord.Interaction) -> Record:
        """The record of a request. It begins when it is first asked for, and ends with the task that did so.

        Of commands, buttons, forms and menus alike discord.py handles each in a task of its own, errors included.
        """
        if _KEY not in interaction.extras:
            data: Any = interaction.data or {}
            interaction.extras[_KEY] = Record(
                secrets.token_hex(4), _command(interaction, data), _place(interaction), dict(_sizes(data))
            )
            task = asyncio.current_task()
            if task is not None:
                task.add_done_callback(functools.partial(self._end, interaction))
        record: Record = interaction.extras[_KEY]
        return record

    def _end(self, interaction: discord.Interaction, task: asyncio.Task[object]) -> None:
        record = self.of(interaction)
        record.seconds = time.perf_counter() - record.began
        if task.cancelled():
            record.outcome = Outcome.CANCELLED
        elif task.exception() is not None:
            record.outcome = Outcome.FAILED
        log.info(
            "request",
            reference=record.reference,
            command=record.command,
            place=record.place,
            outcome=record.outcome.value,
            seconds=round(record.seconds, 3),
            sizes=record.sizes,
        )
        for observer in self.observers:
            observer(interaction, record)


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
    """The names of a command and of the commands within it."""
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
    """Options of a command and inputs of a form, however deep they are."""
    within: Sequence[Mapping[str, Any]] = (*data.get("options", ()), *data.get("components", ()))
    if "component" in data:
        within = (*within, data["component"])
    for each in within:
        yield each
        yield from _fields(each)
