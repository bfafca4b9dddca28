"""The answers of the last minutes, so that the next view of a text that was just read is not computed again."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from bot.gpt2.questions import AttentionQuestion, HeadAttention, HeadQuestion

if TYPE_CHECKING:
    from collections.abc import Hashable

    from bot.gpt2.engine import Answer, Engine
    from bot.gpt2.questions import Question

    _Key = tuple[str, Question[Any]]  # a model's name and a question about it

KEEP_SECONDS: Final = 5 * 60.0
"""How long an answer is kept, with the text that it is about; docs/privacy.md promises that."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Size of the arrays that are kept; of the largest GPT-2 a text of 40 tokens takes 8 MB."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, its size, and the timer that will drop it."""

    answer: Any
    size: int
    timer: asyncio.TimerHandle


class RecentAnswers:
    """Answers questions, each that is repeated within minutes from memory.

    It belongs to one event loop; its owner calls `clear` at the end.

    Args:
        engine: Answers the questions that are new, if no other engine is named.
        keep_seconds: How long an answer is kept.
        max_bytes: Size of all that is kept; the least recently used answer is dropped first.
    """

    def __init__(self, engine: Engine, *, keep_seconds: float = KEEP_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        self._engine = engine
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._asking: dict[_Key, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        """Return the number of answers that are kept."""
        return len(self._kept)

    async def introspect(
        self, question: Question[Answer], *, owner: Hashable = None, engine: Engine | None = None
    ) -> Answer:
        """Answer a question; see `Engine.introspect`.

        Concurrent callers with the same question share one computation. All heads of a text are computed at once, so
        that the next head is a part of what is kept.
        """
        engine = engine or self._engine
        if isinstance(question, HeadQuestion):
            return cast("Answer", await self._head(engine, question, owner))
        key = (engine.model_name, question)
        if key in self._kept:
            self._kept.move_to_end(key)
            return cast("Answer", self._kept[key].answer)
        if key not in self._asking:
            asking = asyncio.create_task(engine.introspect(question, owner=owner), name="answer a question")
            self._asking[key] = asking
            asking.add_done_callback(partial(self._finish, key))
        return cast("Answer", await asyncio.shield(self._asking[key]))

    def clear(self) -> None:
        """Drop everything."""
        for key in list(self._kept):
            self._drop(key)

    async def _head(self, engine: Engine, question: HeadQuestion, owner: Hashable) -> HeadAttention:
        model = await engine.model()
        model.check_layer(question.layer)
        model.check_head(question.head)
        every = await self.introspect(AttentionQuestion(question.prompt), owner=owner, engine=engine)
        weights = every.weights[question.layer - 1, question.head - 1]
        return HeadAttention(every.tokens, every.left_out, weights)

    def _finish(self, key: _Key, asked: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not asked.cancelled() and asked.exception() is None:
            self._keep(key, asked.result())

    def _keep(self, key: _Key, answer: Any) -> None:
        size = _size(answer)
        if size > self._max_bytes:
            return
        # In a context of its own: it is no work of the interaction that asked, whose answer SimCord would wait for.
        loop = asyncio.get_running_loop()
        timer = contextvars.Context().run(loop.call_later, self._keep_seconds, self._drop, key)
        self._kept[key] = _Kept(answer, size, timer)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        kept = self._kept.pop(key)
        kept.timer.cancel()
        self._bytes -= kept.size


def _size(value: Any) -> int:
    """Return the bytes of the arrays and pieces in an answer."""
    match value:
        case np.ndarray():
            return value.nbytes
        case bytes():
            return len(value)
        case Mapping():
            return sum(map(_size, value.values()))
        case tuple():
            return sum(map(_size, value))
        case _ if dataclasses.is_dataclass(value):
            return sum(_size(getattr(value, field.name)) for field in dataclasses.fields(value))
        case _:
            return 8
