"""Buttons whose answers are on their way, so that a second press of an impatient person is not answered twice."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bot.errors import InvalidInputError
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    import discord


class Presses:
    """The presses that are being answered."""

    def __init__(self) -> None:
        self._running: set[tuple[int, int, str]] = set()  # person, message and key

    @contextlib.contextmanager
    def once(self, interaction: discord.Interaction, key: str) -> Iterator[None]:
        """Refuse a second press by the same person on the same message before the first is answered.

        Args:
            interaction: The press.
            key: The same for presses that exclude each other, such as the button's custom_id.

        Raises:
            InvalidInputError: It is a second press.
        """
        press = (interaction.user.id, interaction.message.id if interaction.message else 0, key)
        if press in self._running:
            raise InvalidInputError(say("You already pressed that; the answer is on its way."))
        self._running.add(press)
        try:
            yield
        finally:
            self._running.discard(press)
