"""The sampler against Transformers' processors and torch's own draw, on logits of every kind."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bot.gpt2.local.sampling import Sampler, TorchNoise, TwisterNoise, twister_matches
from bot.gpt2.requests import ContinuationRequest, SamplingParams

VOCABULARY = 61

# Few distinct values, so that ties are common, at the border of top-k too.
_logits = st.lists(
    st.lists(st.sampled_from([-30.0, -2.5, 0.0, 0.5, 0.5, 1.0, 3.25, 80.0]), min_size=VOCABULARY, max_size=VOCABULARY),
    min_size=1,
    max_size=5,
).map(torch.tensor)


def transformers_draws(logits: torch.Tensor, request: ContinuationRequest, steps: int) -> list[list[int]]:
    """As GenerationMixin._sample does it: the processors that generate() would build, then the global generator."""
    config = GenerationConfig(
        do_sample=True, temperature=request.params.temperature, top_k=request.params.top_k, top_p=request.params.top_p
    )
    processors = LogitsProcessorList()
    if config.temperature not in (None, 1.0):
        processors.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k not in (None, 0):
        processors.append(TopKLogitsWarper(config.top_k))
    if config.top_p is not None and config.top_p < 1.0:
        processors.append(TopPLogitsWarper(config.top_p))
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        return [
            torch.multinomial(processors(torch.zeros(len(logits), 1), logits.clone()).softmax(-1), 1)[:, 0].tolist()
            for _ in range(steps)
        ]


@settings(deadline=None)
@given(
    logits=_logits,
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([1e-6, 1e-3, 0.1, 0.7, 1.0, 1.3, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 50, VOCABULARY, 1000]),
    top_p=st.sampled_from([0.0, 1e-9, 0.1, 0.5, 0.9, 0.999999, 1.0]),
)
def test_draws_are_those_of_transformers(
    logits: torch.Tensor, seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    request = ContinuationRequest("x", SamplingParams(seed, len(logits), 3, temperature, top_k, top_p))
    sampler = Sampler(request, VOCABULARY, torch.device("cpu"))
    rows = range(len(logits))
    assert [sampler.next_tokens(logits.clone(), rows) for _ in range(3)] == transformers_draws(logits, request, 3)


@given(logits=_logits)
def test_greedy_takes_the_first_of_the_likeliest(logits: torch.Tensor) -> None:
    request = ContinuationRequest("x", SamplingParams(0, temperature=0.0))
    chosen = Sampler(request, VOCABULARY, torch.device("cpu")).next_tokens(logits, [0])
    assert chosen == logits.argmax(dim=-1).tolist()


def test_a_temperature_too_small_for_float32_is_greedy() -> None:
    logits = torch.tensor([[0.0, 80.0, 79.0]])
    request = ContinuationRequest("x", SamplingParams(0, temperature=1e-300))
    assert Sampler(request, 3, torch.device("cpu")).next_tokens(logits, [0]) == [1]


def test_the_fast_source_of_noise_is_used_here() -> None:
    assert twister_matches()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.sets(st.integers(0, 4), min_size=1), dense=st.booleans())
def test_both_sources_of_noise_choose_the_same_and_ended_rows_use_theirs_up(
    seed: int, rows: set[int], dense: bool
) -> None:
    probabilities = torch.rand(5, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    if not dense:
        probabilities[probabilities < 0.8] = 0.0
    whole = TorchNoise(seed, 5, VOCABULARY, torch.device("cpu"))
    some = TwisterNoise(seed, 5, VOCABULARY)
    for _ in range(3):
        whole.advance()
        some.advance()
        expected = whole.choose(probabilities, range(5))
        going_on = sorted(rows)
        assert some.choose(probabilities[going_on], going_on) == [expected[row] for row in going_on]
