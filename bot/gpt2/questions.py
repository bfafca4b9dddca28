"""What can be asked about what GPT-2 does with a text, and the plain numbers that come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Answer_co = TypeVar("Answer_co", covariant=True)


class Question(Generic[Answer_co]):
    """Base of the frozen dataclasses that `Engine.introspect` answers; `bot.gpt2.introspection` knows how."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class VisibleEnd(Question[str]):
    """Of a text that may be longer than the context: the end that the model sees if it is to write some tokens more.

    Where something is left out, it begins with a whole word. It is never longer than a prompt may be.

    Attributes:
        text: Any length.
        length: How many new tokens must have room behind it.
    """

    text: str
    length: int
