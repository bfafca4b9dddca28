"""Buttons and forms that survive a restart, because their custom_id holds all of their state.

The meaning of a button is an `Action`, a small frozen dataclass. A layout shows it with `button`, and a cog registers a
handler with `Actions.on`. Errors of handlers are answered like errors of commands.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

import discord

from bot.errors import UserError
from bot.gpt2.requests import SamplingParams
from bot.text import say
from bot.ui.limits import BUTTON_LABEL_CHARACTERS, CUSTOM_ID_CHARACTERS, clip, length

if TYPE_CHECKING:
    from typing import Self

Field = int | float | bool | str | None

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
# name.version:field:field… discord.py's own custom_ids are 32 hexadecimal digits.
_CUSTOM_ID: Final = re.compile(r"(?P<name>[a-z]+)\.(?P<version>\d+)(?::(?P<fields>.*))?", re.DOTALL)


class OutdatedError(UserError):
    """A button or a form from another version of the bot."""

    def __init__(self) -> None:
        super().__init__(say("This button is from an older version of me and no longer works. Use the command again."))


@dataclass(frozen=True, slots=True)
class Action:
    """Base class of actions. The fields of a subclass are its state: non-negative int, float, bool, str or None.

    A field may also be `SamplingParams`, which stand in the custom_id as their own fields do.

    Raises:
        OverflowError: From `custom_id`, if it would exceed Discord's 100 characters.
        ValueError: From `custom_id`, if a field is negative or of another type.
    """

    NAME: ClassVar[str] = ""
    """Lower-case letters; unique among actions."""

    VERSION: ClassVar[int] = 1
    """Increased when the fields change, so that older buttons are recognised."""

    EARLIER: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Earlier versions whose buttons still work, each with the number of fields that it had; the rest have defaults."""

    @property
    def custom_id(self) -> str:
        """Name, version and fields, encoded for Discord."""
        values = map(_encode, _leaves(self))
        custom_id = ":".join([f"{self.NAME}.{self.VERSION}", *values])
        if length(custom_id) > CUSTOM_ID_CHARACTERS:
            raise OverflowError(f"{custom_id!r} has more than {CUSTOM_ID_CHARACTERS} characters")
        return custom_id

    @classmethod
    def decode(cls, version: str, encoded: str | None) -> Self:
        """Return the action that a custom_id with this version and these fields encodes.

        Raises:
            OutdatedError: The custom_id is another version's, or damaged.
        """
        texts = [] if encoded is None else encoded.split(":")
        known = fields(cls)[: cls.EARLIER.get(version)]
        if version != str(cls.VERSION) and version not in cls.EARLIER:
            raise OutdatedError
        try:
            left = iter(texts)
            action = cls(**{field.name: _decode(str(field.type), left) for field in known})
            # Exactly as that version encodes it.
            if [_encode(value) for value in islice(_leaves(action), len(texts))] == texts and not list(left):
                return action
        except (ValueError, StopIteration):
            pass
        raise OutdatedError


ActionT = TypeVar("ActionT", bound=Action)
Handler = Callable[[discord.Interaction, ActionT], Awaitable[None]]


class Actions:
    """The handlers of actions; the client has one such registry."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[type[Action], Handler[Any]]] = {}

    def on(self, kind: type[ActionT], handler: Handler[ActionT]) -> None:
        """Register the handler of a kind of action."""
        self._handlers[kind.NAME] = kind, handler

    async def dispatch(self, interaction: discord.Interaction) -> None:
        """Call the handler of a pressed button or a submitted form.

        Raises:
            OutdatedError: This version does not know the action.
        """
        await self.run(interaction, custom_id_of(interaction))

    async def run(self, interaction: discord.Interaction, custom_id: str) -> None:
        """Call the handler of the action that a custom_id encodes.

        Raises:
            OutdatedError: This version does not know the action.
        """
        match = _CUSTOM_ID.fullmatch(custom_id)
        if match is None or match["name"] not in self._handlers:
            raise OutdatedError
        kind, handler = self._handlers[match["name"]]
        await handler(interaction, kind.decode(match["version"], match["fields"]))


class PersistentItem(discord.ui.DynamicItem[discord.ui.Item[Any]], template=_CUSTOM_ID):
    """A component with an action's custom_id. discord.py stores no views that consist of such items."""


def button(
    action: Action,
    label: str,
    *,
    style: discord.ButtonStyle = discord.ButtonStyle.secondary,
    emoji: str | None = None,
    disabled: bool = False,
) -> PersistentItem:
    """Return a button for an action; it works after any restart."""
    label = clip(label, BUTTON_LABEL_CHARACTERS)
    return PersistentItem(
        discord.ui.Button(label=label, style=style, emoji=emoji, custom_id=action.custom_id, disabled=disabled)
    )


def custom_id_of(interaction: discord.Interaction) -> str:
    """Return the custom_id of the pressed button or submitted form; empty for commands."""
    data = cast("dict[str, Any]", interaction.data or {})
    return str(data.get("custom_id", ""))


def _leaves(state: Action | SamplingParams) -> Iterator[Field]:
    """Yield the values of all fields in order, those of `SamplingParams` in their place."""
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, SamplingParams):
            yield from _leaves(value)
        else:
            yield value


def _decode(kind: str, texts: Iterator[str]) -> Field | SamplingParams:
    """Return the value of one field, from as many texts as it takes."""
    if kind == SamplingParams.__name__:
        leaves = fields(SamplingParams)
        values = [
            _DECODERS[str(leaf.type)](text) for leaf, text in zip(leaves, islice(texts, len(leaves)), strict=True)
        ]
        return SamplingParams(*values)  # type: ignore[arg-type]
    return _DECODERS[kind](next(texts))


def _encode(value: Field) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case int() if value >= 0:
            return _in_base_36(value)
        case float():
            # Decimals are shorter for numbers that people type, the 64 bits for all others.
            decimals, bits = repr(value), "~" + _in_base_36(*struct.unpack(">Q", struct.pack(">d", value)))
            return decimals if len(decimals) <= len(bits) else bits
        case str():
            return value.replace("%", "%25").replace(":", "%3A")
        case _:
            raise ValueError(f"{value!r} cannot be part of a custom_id")


def _in_base_36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


def _from_bits(digits: str) -> float:
    bits = int(digits, 36)
    if not 0 <= bits < 1 << 64:
        raise ValueError(digits)
    (value,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    return float(value)


_DECODERS: Final[dict[str, Callable[[str], Field]]] = {
    "bool": lambda text: bool(int(text)),
    "int": lambda text: int(text, 36),
    "int | None": lambda text: int(text, 36) if text else None,
    "float": lambda text: _from_bits(text[1:]) if text.startswith("~") else float(text),
    "str": lambda text: text.replace("%3A", ":").replace("%25", "%"),
}
