"""The sampler against Transformers' processors and torch's own draw, on logits of every kind."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bot.gpt2.local.sampling import Noise, Sampler, WordNoise, _largest, _nucleus, words_match
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
    samples, expected = range(len(logits)), transformers_draws(logits, request, 3)
    last_first = [sampler.next_tokens(logits.clone(), samples, [step] * len(logits)) for step in (2, 0, 1)]
    assert [*last_first[1:], last_first[0]] == expected
    assert sampler.next_tokens(logits.clone(), samples, [2] * len(logits)) == expected[2], "a draw can be repeated"


@given(logits=_logits)
def test_greedy_takes_the_first_of_the_likeliest(logits: torch.Tensor) -> None:
    request = ContinuationRequest("x", SamplingParams(0, temperature=0.0))
    sampler, samples = Sampler(request, VOCABULARY, torch.device("cpu")), range(len(logits))
    chosen = sampler.next_tokens(logits, samples, [0] * len(logits))
    assert chosen == logits.argmax(dim=-1).tolist()


def test_a_temperature_too_small_for_float32_is_greedy() -> None:
    logits = torch.tensor([[0.0, 80.0, 79.0]])
    request = ContinuationRequest("x", SamplingParams(0, temperature=1e-300))
    assert Sampler(request, 3, torch.device("cpu")).next_tokens(logits, [0], [0]) == [1]


def test_the_fast_source_of_noise_is_used_here() -> None:
    assert words_match()


@given(seed=st.integers(0, 2**32 - 1))
def test_samples_at_different_steps_get_the_numbers_of_theirs(seed: int) -> None:
    whole, some = (kind(seed, 3, VOCABULARY, torch.device("cpu")) for kind in (Noise, WordNoise))
    everything = np.arange(VOCABULARY)
    some.forget(2, 1000)  # it has ended, and its numbers are drawn nonetheless
    for sample, step in ((0, 0), (0, 5), (1, 2), (0, 6), (1, 3)):
        assert np.array_equal(some.at(sample, step).of(everything), whole.at(sample, step).of(everything))
        some.forget(sample, step)
    assert len(some._kept) == 5, "sample 0 keeps step 6, sample 1 steps 3 to 6, and sample 2 nothing"


def test_top_k_keeps_what_equals_the_last() -> None:
    logits = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    for k, row in itertools.product((1, 50, 156, 157, 1000, 6000), logits):
        kept = np.flatnonzero(TopKLogitsWarper(k)(None, row.unsqueeze(0))[0] > -math.inf)
        assert np.array_equal(_largest(row.numpy(), k), kept), k


def test_top_p_keeps_as_many_as_in_transformers() -> None:
    generator = torch.Generator().manual_seed(0)
    for scale, digits in itertools.product((0.1, 1.0, 3.0, 10.0), (1, 3, 7)):
        row = (torch.randn(50257, generator=generator) * scale).round(decimals=digits)
        for top_k, top_p in itertools.product((0, 1, 50, 1000), (0.0, 1e-6, 0.1, 0.5, 0.9, 0.99, 0.999999)):
            tokens = _largest(row.numpy(), top_k) if top_k else np.arange(len(row))
            scores = TopKLogitsWarper(top_k)(None, row[None]) if top_k else row[None]
            expected = np.flatnonzero(TopPLogitsWarper(top_p)(None, scores)[0] > -math.inf)
            assert np.array_equal(_nucleus(row.numpy(), tokens, top_p), expected), (scale, digits, top_k, top_p)
