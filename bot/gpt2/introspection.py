"""Answers to the questions of `bot.gpt2.questions`: what the model does with a text, as arrays."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from bot.gpt2.questions import VisibleEnd
from bot.gpt2.requests import MAX_PROMPT_CHARACTERS

if TYPE_CHECKING:
    from bot.gpt2.model import LoadedModel


@singledispatch
def answer(question: Any, model: LoadedModel) -> Any:
    """The answer to a question, computed on the thread that calls.

    Raises:
        InvalidInputError: The text does not suit the question.
    """
    raise TypeError(f"{type(question).__name__} is no question about {model.info.name}")


@answer.register(VisibleEnd)
def _(question: VisibleEnd, model: LoadedModel) -> str:
    text = question.text[-MAX_PROMPT_CHARACTERS:]
    room = max(model.info.context - question.length, 1)
    while True:
        split = model.tokenizer(text, return_offsets_mapping=True, verbose=False)
        excess = len(split["input_ids"]) - room
        if excess <= 0:
            return text
        begins = [begin for begin, _ in split["offset_mapping"][excess:]]
        # A word is split as it is in the whole text where it is whole itself, its space in front included.
        words = (begin for begin in begins[: len(begins) // 2] if begin and text[begin].isspace())
        text = text[next(words, max(begins[0], 1)) :]
