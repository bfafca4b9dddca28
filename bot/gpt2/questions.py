"""What can be asked about what GPT-2 does with a text, and the plain numbers that come back."""

from __future__ import annotations

from typing import Generic, TypeVar

Answer_co = TypeVar("Answer_co", covariant=True)


class Question(Generic[Answer_co]):
    """Base of the frozen dataclasses that `Engine.introspect` answers; `bot.gpt2.introspection` knows how."""

    __slots__ = ()
