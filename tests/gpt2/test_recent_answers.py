"""Answers are kept for minutes, no longer, and no more than fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.errors import InvalidInputError, UserError
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.questions import AttentionQuestion, HeadQuestion, TokensQuestion
from bot.gpt2.recent_answers import RecentAnswers

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "Hello, I'm a language model,"


class Counting:
    """An engine that counts the questions it is asked."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.asked: list[Any] = []
        self.model = engine.model
        self.model_name = engine.model_name

    async def introspect(self, question: Any, *, owner: Any = None) -> Any:
        self.asked.append(question)
        return await self._engine.introspect(question, owner=owner)


async def test_every_head_of_a_text_is_read_once(engine: LocalEngine) -> None:
    counting = Counting(engine)
    answers = RecentAnswers(counting)  # type: ignore[arg-type]
    questions = [HeadQuestion(PROMPT, layer, head) for layer in (1, 2, 3) for head in (1, 4)]
    found = await asyncio.gather(*map(answers.introspect, questions))
    assert counting.asked == [AttentionQuestion(PROMPT)]
    for question, answer in zip(questions, found, strict=True):
        alone = await engine.introspect(question)
        np.testing.assert_allclose(answer.weights, alone.weights, atol=1e-6)
        assert (answer.tokens, answer.left_out) == (alone.tokens, alone.left_out)
    for wrong in (HeadQuestion(PROMPT, 4, 1), HeadQuestion(PROMPT, 1, 5)):
        with pytest.raises(InvalidInputError, match="There is no"):
            await answers.introspect(wrong)
    answers.clear()
    assert len(answers) == 0


async def test_an_answer_is_dropped_in_time(engine: LocalEngine) -> None:
    answers = RecentAnswers(engine, keep_seconds=0.05)
    await answers.introspect(TokensQuestion(PROMPT))
    assert len(answers) == 1
    async with asyncio.timeout(5):
        while len(answers):  # noqa: ASYNC110 # it announces nothing
            await asyncio.sleep(0.01)
    assert answers._bytes == 0


async def test_the_least_recently_used_answer_makes_room(engine: LocalEngine) -> None:
    counting = Counting(engine)
    answers = RecentAnswers(counting, max_bytes=2000)  # type: ignore[arg-type]
    first, second, huge = (TokensQuestion(word * count) for word, count in (("a ", 30), ("b ", 30), ("c ", 900)))
    for question in (first, second, first, huge, first, second):
        await answers.introspect(question)
    assert counting.asked == [first, second, huge]
    assert 0 < answers._bytes <= 2000
    answers.clear()


async def test_another_models_answer_is_another_one(engine: LocalEngine, other_model: Path) -> None:
    answers, question = RecentAnswers(engine), AttentionQuestion(PROMPT)
    other = LocalEngine(str(other_model), device="cpu")
    try:
        await other.start()
        shapes = [(await answers.introspect(question, engine=each)).weights.shape[:2] for each in (engine, other, None)]
    finally:
        await other.close()
    answers.clear()
    assert shapes == [(3, 4), (2, 2), (3, 4)]


async def test_a_refusal_is_not_kept(engine: LocalEngine) -> None:
    answers = RecentAnswers(engine)
    for _ in range(2):
        with pytest.raises(UserError):
            await answers.introspect(AttentionQuestion("a"))
    assert len(answers) == 0
