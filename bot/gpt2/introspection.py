"""Answers to the questions of `bot.gpt2.questions`: what the model does with a text, as arrays."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot.gpt2.model import LoadedModel


@singledispatch
def answer(question: Any, model: LoadedModel) -> Any:
    """The answer to a question, computed on the thread that calls.

    Raises:
        InvalidInputError: The text does not suit the question.
    """
    raise TypeError(f"{type(question).__name__} is no question about {model.info.name}")
