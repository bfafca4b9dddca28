"""Menus and buttons below a picture that lead to other pictures.

A button or an option of a menu holds the custom_id of **Show code** below the picture that it leads to, which says
everything about that picture but the text. So each survives a restart, and nothing is kept for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

import discord

from bot.text import Text
from bot.ui.buttons import Action, Actions, OutdatedError, PersistentItem, button
from bot.ui.limits import CHOICE_CHARACTERS, CHOICES, MENU_PLACEHOLDER_CHARACTERS, clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bot.text import Translate
    from bot.ui.buttons import ActionT, Handler

PAGE: Final = CHOICES - 2
"""Numbers on a page of a menu that has more than fit; two options lead to the pages before and after."""


@dataclass(frozen=True, slots=True)
class Move(Action):
    """Show another picture.

    Attributes:
        slot: Distinguishes the buttons of one message, two of which may lead to the same picture.
        target: That picture's custom_id; empty on a button that is disabled.
    """

    NAME: ClassVar[str] = "move"

    slot: int
    target: str

    @property
    def custom_id(self) -> str:
        """Like that of other actions, but with the target as it is: an escaped one would not fit."""
        return Menu(self.slot).custom_id.replace(Menu.NAME, self.NAME, 1) + f":{self.target}"

    @classmethod
    def decode(cls, version: str, encoded: str | None) -> Self:
        """See `Action.decode`."""
        slot, colon, target = (encoded or "").partition(":")
        if not colon:
            raise OutdatedError
        return cls(Menu.decode(version, slot).slot, target)


@dataclass(frozen=True, slots=True)
class Menu(Action):
    """Show the picture whose custom_id is the chosen value.

    Attributes:
        slot: See `Move`.
    """

    NAME: ClassVar[str] = "menu"

    slot: int


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a menu.

    Attributes:
        label: Its text.
        target: The picture that it leads to.
        current: Whether that is the picture above the menu.
    """

    label: Text | str
    target: Action
    current: bool = False


class Moves:
    """The handlers of the pictures that moves lead to; the client has one such registry."""

    def __init__(self, actions: Actions) -> None:
        self._pictures = Actions()
        actions.on(Move, self._move)
        actions.on(Menu, self._choose)

    def on(self, kind: type[ActionT], handler: Handler[ActionT]) -> None:
        """Register the handler that shows a kind of picture."""
        self._pictures.on(kind, handler)

    async def _move(self, interaction: discord.Interaction, move: Move) -> None:
        await self._pictures.run(interaction, move.target)

    async def _choose(self, interaction: discord.Interaction, _: Menu) -> None:
        await self._pictures.run(interaction, chosen_value(interaction))


class Controls:
    """The menus and buttons below one picture, collected in the order in which they are shown.

    Args:
        translate: Translates into the reader's language.

    Attributes:
        menus: A row for each menu.
        buttons: The buttons of the last rows.
    """

    def __init__(self, translate: Translate) -> None:
        self.translate = translate
        self.menus: list[discord.ui.ActionRow[Any]] = []
        self.buttons: list[PersistentItem] = []

    def button(self, label: Text, target: Action | None, emoji: str | None = None) -> None:
        """Add a button that leads to a picture; it is disabled without one."""
        move = Move(self._slot, target.custom_id if target else "")
        self.action(label, move, emoji, disabled=target is None)

    def action(self, label: Text, action: Action, emoji: str | None = None, *, disabled: bool = False) -> None:
        """Add a button that does something else."""
        self.buttons.append(button(action, label.in_language(self.translate), emoji=emoji, disabled=disabled))

    def menu(self, title: Text, options: Iterable[Option]) -> None:
        """Add a menu, unless it has no options. Of two options that lead to the same picture the first stays."""
        distinct: dict[str, Option] = {}
        for option in options:
            distinct.setdefault(option.target.custom_id, option)
        shown = [self._option(value, option) for value, option in distinct.items()]
        if shown:
            self.menus.append(menu(Menu(self._slot), title.in_language(self.translate), shown))

    def numbers(
        self,
        title: Text,
        count: int,
        current: int,
        label: Callable[[str], Text],
        target: Callable[[int], Action],
    ) -> None:
        """Add a menu of numbers from 1, such as layers. One that has more than fit shows the page with `current`.

        Args:
            title: Shown while none is current.
            count: The largest number.
            current: The number that is shown above; 0 for none.
            label: Returns the label of a number or of a range of them.
            target: Returns the picture of a number.
        """
        page = page_of(max(current, 1), count)
        options = [Option(label(str(number)), target(number), number == current) for number in page]
        if page.start > 1:
            before = page_of(page.start - 1, count)
            options.insert(0, Option(label(f"{before.start}–{before.stop - 1}"), target(before.stop - 1)))
        if page.stop <= count:
            after = page_of(page.stop, count)
            options.append(Option(label(f"{after.start}–{after.stop - 1}"), target(after.start)))
        self.menu(title, options)

    @property
    def _slot(self) -> int:
        return len(self.menus) + len(self.buttons)

    def _option(self, value: str, option: Option) -> discord.SelectOption:
        label = option.label.in_language(self.translate) if isinstance(option.label, Text) else option.label
        return discord.SelectOption(label=clip(label, CHOICE_CHARACTERS), value=value, default=option.current)


def page_of(number: int, count: int) -> range:
    """Return the page of a menu that has a number: all numbers from 1 to `count` if they fit."""
    if count <= CHOICES:
        return range(1, count + 1)
    start = (number - 1) // PAGE * PAGE + 1
    return range(start, min(start + PAGE, count + 1))


def menu(action: Action, title: str, options: list[discord.SelectOption]) -> discord.ui.ActionRow[Any]:
    """Return a row with a menu for an action; it works after any restart."""
    select: discord.ui.Select[Any] = discord.ui.Select(
        custom_id=action.custom_id, placeholder=clip(title, MENU_PLACEHOLDER_CHARACTERS), options=options
    )
    return discord.ui.ActionRow(PersistentItem(select))


def chosen_value(interaction: discord.Interaction) -> str:
    """Return the value that was chosen from a menu.

    Raises:
        OutdatedError: There is none.
    """
    data = cast("dict[str, Any]", interaction.data or {})
    values = data.get("values") or [""]
    if not values[0]:
        raise OutdatedError
    return str(values[0])
