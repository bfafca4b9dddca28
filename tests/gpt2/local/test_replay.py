"""A replayed sample is the sample, and its record is what Transformers computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bot.errors import InvalidInputError
from bot.gpt2.local import introspection, replay
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.writing import Writing, WritingQuestion

if TYPE_CHECKING:
    from pathlib import Path

    from bot.gpt2.local.engine import LocalEngine

PROMPT = "Hello, I'm a language model"
SETTINGS: tuple[dict[str, Any], ...] = (
    {"samples": 3},
    {"samples": 1, "temperature": 0.7, "top_k": 5},
    {"samples": 2, "temperature": 1.6, "top_k": 0, "top_p": 0.8},
    {"temperature": 0.0},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
async def test_the_tokens_are_those_of_the_sample(engine: LocalEngine, settings: dict[str, Any]) -> None:
    request = ContinuationRequest(PROMPT, SamplingParams(42, length=30, **settings))
    samples = (await engine.continuation(request)).samples
    for number, sample in enumerate(samples, 1):
        answer: Writing = await engine.introspect(WritingQuestion(request, number, most=20, count=4))
        assert answer.chosen.ids == sample.token_ids[:20]
        assert answer.ended is (len(sample.token_ids) <= 20)
        for chosen, candidates, draws in zip(answer.chosen.ids, answer.candidates, answer.draws, strict=True):
            assert candidates.ids[draws.argmax()] == chosen, "the largest quotient wins"
    whole = await engine.introspect(WritingQuestion(request, most=40))
    assert whole.ended
    assert whole.chosen.ids == samples[0].token_ids


async def test_probabilities_and_draws_are_those_of_transformers(engine: LocalEngine, tiny_model: Path) -> None:
    params = SamplingParams(7, samples=3, length=6, temperature=0.8, top_k=20, top_p=0.95)
    answer = await engine.introspect(WritingQuestion(ContinuationRequest(PROMPT, params), 2))
    network = GPT2LMHeadModel.from_pretrained(tiny_model)
    generator = torch.Generator().manual_seed(7)
    ids = [*answer.prompt.ids]
    for step, chosen in enumerate(answer.chosen.ids):
        with torch.inference_mode():
            logits = network(torch.tensor([ids])).logits[:, -1]
        before = logits.softmax(-1)[0]
        for warper in (TemperatureLogitsWarper(0.8), TopKLogitsWarper(20), TopPLogitsWarper(0.95)):
            logits = warper(torch.LongTensor(), logits)
        after = logits.softmax(-1)[0]
        draws = after / torch.empty(3, len(after)).exponential_(1, generator=generator)[1]
        candidates = list(answer.candidates[step].ids)
        for ours, theirs in ((answer.before, before), (answer.after, after), (answer.draws, draws)):
            np.testing.assert_allclose(ours[step], theirs[candidates], rtol=1e-4, atol=1e-6)
        assert answer.kept[step] == after.count_nonzero()
        assert draws.argmax() == chosen
        ids.append(chosen)


async def test_other_requests_are_served_between_the_tokens(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0
    advance = replay.advance

    def counted(*given: Any) -> None:
        nonlocal passes
        passes += 1
        return advance(*given)

    monkeypatch.setattr(replay, "advance", counted)
    model = engine._loaded
    assert model
    steps = introspection.answer(WritingQuestion(ContinuationRequest(PROMPT, SamplingParams(1, 2, 8))), model)
    taken = sum(1 for _ in steps)
    assert taken == passes + 1, "a step a pass, and one that counts the tokens"


async def test_a_prompt_without_room_is_refused(engine: LocalEngine) -> None:
    request = ContinuationRequest("\x01" * 119 + "x", SamplingParams(1, 1, 20))
    with pytest.raises(InvalidInputError, match="The prompt has 120 tokens; at most 108 fit"):
        await engine.introspect(WritingQuestion(request))
