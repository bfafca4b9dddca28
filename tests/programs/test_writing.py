"""The program behind the animation draws the same tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from bot import programs
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.writing import WritingQuestion
from tests.programs.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from bot.gpt2.local.engine import LocalEngine


@pytest.mark.parametrize(
    ("settings", "sample"),
    [
        ({"samples": 3}, 2),
        ({"samples": 1, "temperature": 0.7, "top_k": 5, "top_p": 0.9}, 1),
        ({"temperature": 0.0}, 1),
        ({"samples": 2, "top_k": 0, "length": 200}, 1),  # comes to an end of text
    ],
    ids=str,
)
async def test_its_tokens_and_draws(
    engine: LocalEngine, tiny_model: Path, settings: dict[str, Any], sample: int
) -> None:
    params = SamplingParams(**{"seed": 42, "length": 12} | settings)
    question = WritingQuestion(ContinuationRequest('Hello, I\'m\na "language" $x$', params), sample, most=40)
    if params.length == 200:
        question = WritingQuestion(ContinuationRequest("a", SamplingParams(3, 2, 100, top_k=0)), sample, most=40)
    answer = await engine.introspect(question)
    done = run(programs.writing(question, await engine.model()), tiny_model)
    assert done.names["ids"][0, len(answer.prompt) :].tolist() == [*answer.chosen.ids]
    assert len(re.findall(r"^\d+\. ", done.printed, re.MULTILINE)) == len(answer.chosen)
    shown = re.findall(r"^ +([\d.]+)% -> +([\d.]+)%   draw ([\d.]+)", done.printed, re.MULTILINE)[: question.count]
    largest = max(answer.draws[0])
    for (before, after, draw), *ours in zip(shown, answer.before[0], answer.after[0], answer.draws[0], strict=True):
        if answer.chosen.ids[0] in answer.candidates[0].ids[:-1]:  # else the last candidate is another
            assert float(before) == pytest.approx(100 * ours[0], abs=0.01)
            assert float(after) == pytest.approx(100 * ours[1], abs=0.01)
            assert float(draw) == pytest.approx(ours[2] / largest, abs=0.001)
