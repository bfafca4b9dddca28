"""Lookup, filtering and completion of a model's parameter names, without their values."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from bot.errors import InvalidInputError
from bot.gpt2.validation import well_formed
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot.gpt2.model_info import ParameterInfo

PREFIX: Final = "transformer."


class ParameterNames:
    """The entries of a state dict in its order."""

    def __init__(self, infos: Iterable[ParameterInfo]) -> None:
        self.infos = tuple(infos)
        self._by_name = {info.name: info for info in self.infos}

    def find(self, name: str) -> ParameterInfo:
        """Return the entry called `name`; the leading ``transformer.`` and the trailing ``.weight`` are optional.

        Raises:
            InvalidInputError: There is none; the message suggests the nearest names.
        """
        wanted = well_formed(name).strip()
        for candidate in (wanted, PREFIX + wanted, f"{wanted}.weight", f"{PREFIX}{wanted}.weight"):
            if candidate in self._by_name:
                return self._by_name[candidate]
        short_names = {info.name.removeprefix(PREFIX): info.name for info in self.infos}
        nearest = difflib.get_close_matches(wanted.removeprefix(PREFIX), short_names, n=3, cutoff=0.0)
        raise InvalidInputError(
            say(
                "There is no parameter “{name}”. Did you mean {suggestions}? /weights list shows all {count}.",
                name=_short(wanted),
                suggestions=", ".join(short_names[name] for name in nearest),
                count=len(self.infos),
            )
        )

    def filtered(self, part: str) -> tuple[ParameterInfo, ...]:
        """Return the entries whose names contain `part`, in the state dict's order.

        Raises:
            InvalidInputError: There is none.
        """
        wanted = well_formed(part).strip().lower()
        found = tuple(info for info in self.infos if wanted in info.name.lower())
        if not found:
            raise InvalidInputError(
                say("No parameter's name contains “{part}”. Try attn, mlp, ln, wte, wpe or h.0.", part=_short(wanted))
            )
        return found

    def complete(self, typed: str, most: int) -> tuple[str, ...]:
        """Return up to `most` names that contain every typed word; those that begin with the first come first."""
        words = well_formed(typed).lower().split()
        found = [info.name for info in self.infos if all(word in info.name.lower() for word in words)]
        beginning = "".join(words[:1])
        found.sort(key=lambda name: not name.removeprefix(PREFIX).startswith(beginning))
        return tuple(found[:most])


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
