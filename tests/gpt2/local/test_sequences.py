"""Samples are those of Transformers, token for token."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import GPT2LMHeadModel, pipeline, set_seed

from bot.gpt2.local.runner import PREFILL_CHUNK
from bot.gpt2.local.sequences import SequenceGroup, advance
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from tests.models import PARTIAL, make_model

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPTS = (
    "Hello, I'm a language model,",
    "a",
    "ROMEO:\n",
    "  spaces, tabs\t and the end of a line\n\n",
    "日本語のテキスト 🎭 مرحبا \u202eabc",
    "The theatre of <|endoftext|> thoughts",
)
SETTINGS = (
    {"length": 40},
    {"temperature": 0.0},
    {"temperature": 0.3, "top_k": 5},
    {"temperature": 1.7, "top_k": 0},
    {"top_p": 0.9},
    {"top_p": 0.0, "top_k": 0},
    {"top_k": 1000, "top_p": 0.5, "temperature": 0.7},
    {"samples": 1, "length": 1},
    {"samples": 10, "top_k": 0},
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """As wide as GPT-2 small, so that its products are shared by threads."""
    folder = tmp_path_factory.mktemp("models") / "wide-gpt2"
    return load(str(make_model(folder, layers=2, heads=12, width=768, context=512)), device="cpu")


def begin(loaded: LoadedModel, request: ContinuationRequest) -> SequenceGroup:
    ids = loaded.tokenizer(request.prompt)["input_ids"]
    return SequenceGroup(loaded.transformer, ids, request, loaded.endings.tokens)


def ours(loaded: LoadedModel, request: ContinuationRequest) -> list[list[int]]:
    """Compute the tokens of a request alone."""
    group = begin(loaded, request)
    while not group.done:
        advance(loaded.transformer, [group])
    return group.tokens


def transformers_own(network: GPT2LMHeadModel, loaded: LoadedModel, request: ContinuationRequest) -> list[list[int]]:
    """Return the expected tokens: those of torch.manual_seed and generate."""
    encoded = loaded.tokenizer(request.prompt, return_tensors="pt")
    (end,) = loaded.endings.tokens
    torch.manual_seed(request.seed)
    settings = (
        {"do_sample": False}
        if request.params.greedy
        else {
            "do_sample": True,
            "temperature": request.params.temperature,
            "top_k": request.params.top_k,
            "top_p": request.params.top_p,
            "num_return_sequences": request.params.samples,
        }
    )
    sequences = network.generate(
        encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        max_new_tokens=request.params.length,
        pad_token_id=end,
        **settings,
    )
    rows = sequences[:, encoded["input_ids"].shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def mixed_requests(draw: random.Random, count: int) -> list[ContinuationRequest]:
    """Draw requests of every size and setting."""
    return [
        ContinuationRequest(
            PROMPTS[draw.randrange(len(PROMPTS))] * draw.choice([1, 1, 2]),
            SamplingParams(
                draw.randrange(2**32),
                samples=draw.randint(1, 10),
                length=draw.randint(1, 20),
                temperature=draw.choice([0.0, 0.5, 1.0, 1.5]),
                top_k=draw.choice([0, 3, 50]),
                top_p=draw.choice([0.5, 0.9, 1.0]),
            ),
        )
        for _ in range(count)
    ]


@pytest.mark.usefixtures("keep_global_generator")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equal_to_generate(loaded: LoadedModel, reference: GPT2LMHeadModel, settings: dict[str, float]) -> None:
    for seed, prompt in enumerate(PROMPTS):
        params = SamplingParams(seed * 1_000_003, **{"length": 10, **settings})
        request = ContinuationRequest(prompt, params)
        assert ours(loaded, request) == transformers_own(reference, loaded, request), prompt


@pytest.mark.usefixtures("keep_global_generator")
def test_equal_where_some_rows_end_early(loaded: LoadedModel, reference: GPT2LMHeadModel) -> None:
    ended = 0
    for seed in range(2):
        request = ContinuationRequest("Hello", SamplingParams(seed, samples=8, length=100, temperature=2.0, top_k=0))
        expected = transformers_own(reference, loaded, request)
        assert ours(loaded, request) == expected
        ended += sum(len(row) < request.params.length for row in expected)
    assert ended >= 2, "the model should end some rows, or this test shows nothing"


def test_a_sample_that_has_ended_keeps_no_random_numbers(loaded: LoadedModel) -> None:
    group = begin(
        loaded, ContinuationRequest("Hello", SamplingParams(0, samples=8, length=100, temperature=2.0, top_k=0))
    )
    while not group.done:
        advance(loaded.transformer, [group])
        assert {sample for sample, _ in group._sampler._noise._kept} <= set(group._active)
    assert any(len(row) < group.request.params.length for row in group.tokens), "or this test shows nothing"


@pytest.mark.slow
@pytest.mark.usefixtures("keep_global_generator")
@pytest.mark.skipif(not PARTIAL.is_dir(), reason="shared/models/gpt2-partial is not beside this checkout")
def test_equal_on_gpt2_small() -> None:
    loaded = load(str(PARTIAL), device="cpu")
    torch.manual_seed(0)  # fills what the file lacks with what ours was filled with
    network = GPT2LMHeadModel.from_pretrained(PARTIAL, dtype=torch.float32)
    for seed, settings in ((42, {}), (0, {"temperature": 0.7, "top_k": 0, "top_p": 0.9}), (1, {"temperature": 0.0})):
        request = ContinuationRequest(
            "Hello, I'm a language model,", SamplingParams(seed, samples=5, length=12, **settings)
        )
        assert ours(loaded, request) == transformers_own(network, loaded, request)


@pytest.mark.usefixtures("keep_global_generator")
def test_equal_to_the_tutorials_pipeline(loaded: LoadedModel, reference: GPT2LMHeadModel) -> None:
    generator = pipeline("text-generation", model=reference, tokenizer=loaded.tokenizer)
    prompt = "Hello, I'm a language model,"
    set_seed(42)
    # Since version 5 the pipeline itself cools to 0.7 where no temperature is given; GPT-2 as it is has 1.
    theirs = generator(prompt, max_new_tokens=30, num_return_sequences=5, temperature=1.0)
    request = ContinuationRequest(prompt, SamplingParams(42, samples=5, length=30))
    texts = [loaded.tokenizer.decode(row, skip_special_tokens=True) for row in ours(loaded, request)]
    assert [answer["generated_text"] for answer in theirs] == [prompt + text for text in texts]


@pytest.mark.usefixtures("keep_global_generator")
def test_a_crowd_changes_nothing(loaded: LoadedModel, reference: GPT2LMHeadModel) -> None:
    """Requests of every size join and leave between passes, and each gets what Transformers gives it alone."""
    draw = random.Random(3)
    requests = mixed_requests(draw, 20)
    waiting = [begin(loaded, request) for request in requests]
    groups, running = list(waiting), []
    while waiting or running:
        while waiting and len(running) < draw.randint(1, 9):
            running.append(waiting.pop(0))
        advance(loaded.transformer, running)
        running = [group for group in running if not group.done]
    for request, group in zip(requests, groups, strict=True):
        assert group.tokens == transformers_own(reference, loaded, request)


def bits(loaded: LoadedModel, ids: list[int], request: ContinuationRequest, threads: Sequence[int]) -> torch.Tensor:
    """All logits from which the samples are drawn; each pass has the next number of threads."""
    seen, group = [], SequenceGroup(loaded.transformer, ids, request, loaded.endings.tokens)
    accept = group.accept

    def note(logits: torch.Tensor) -> tuple[int, int]:
        seen.append(logits.flatten().clone())
        return accept(logits)

    group.accept = note  # type: ignore[method-assign]
    before = torch.get_num_threads()
    try:
        for count in itertools.cycle(threads):
            if group.done:
                return torch.cat(seen)
            torch.set_num_threads(count)
            advance(loaded.transformer, [group])
    finally:
        torch.set_num_threads(before)
    raise AssertionError("unreachable")


@pytest.mark.parametrize(("prompt", "samples", "length"), [(7, 1, 6), (7, 5, 4), (300, 5, 3), (470, 3, 2)])
def test_the_number_of_threads_changes_no_bit(wide: LoadedModel, prompt: int, samples: int, length: int) -> None:
    """So the engine may change it at any time."""
    ids = random.Random(prompt).choices(range(wide.info.vocabulary), k=prompt)
    request = ContinuationRequest("unused", SamplingParams(42, samples=samples, length=length))
    alone = bits(wide, ids, request, [1])
    assert torch.equal(alone, bits(wide, ids, request, [2]))
    assert torch.equal(alone, bits(wide, ids, request, [1, 2]))


@pytest.mark.usefixtures("keep_global_generator")
def test_a_prompt_of_many_chunks_is_computed_right(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", context=1024)
    loaded, network = load(str(folder), device="cpu"), GPT2LMHeadModel.from_pretrained(folder)
    for count in (1, PREFILL_CHUNK - 1, PREFILL_CHUNK, PREFILL_CHUNK + 1, 3 * PREFILL_CHUNK + 7):
        request = ContinuationRequest("€" * count, SamplingParams(0, samples=1, length=8, temperature=0.0))
        assert ours(loaded, request) == transformers_own(network, loaded, request)


def test_logits_are_those_of_transformers(loaded: LoadedModel, reference: GPT2LMHeadModel) -> None:
    group = begin(loaded, ContinuationRequest(PROMPTS[0], SamplingParams(0, samples=2, length=5, temperature=0.0)))
    seen: list[torch.Tensor] = []
    accept = group.accept
    group.accept = lambda logits: (seen.append(logits), accept(logits))[1]
    while not group.done:
        advance(loaded.transformer, [group])
    ids = torch.tensor([loaded.tokenizer(PROMPTS[0])["input_ids"] + group.tokens[0]])
    with torch.inference_mode():
        expected = reference(ids).logits[0, -len(seen) - 1 : -1]
    torch.testing.assert_close(torch.cat([logits[:1] for logits in seen]), expected, atol=1e-4, rtol=1e-4)


def test_a_pass_that_failed_can_be_repeated(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ContinuationRequest("a", SamplingParams(0))
    group = begin(loaded, request)
    with monkeypatch.context() as patched:
        patched.setattr(group._sampler, "_draw", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            advance(loaded.transformer, [group])
    while not group.done:
        advance(loaded.transformer, [group])
    assert group.tokens == ours(loaded, request)


def test_float16_is_close_and_independent_of_the_crowd_too(tiny_model: Path, loaded: LoadedModel) -> None:
    half = load(str(tiny_model), device="cpu", precision="float16")
    assert half.info.precision == "float16"
    tokens, positions = torch.arange(40), torch.arange(40)

    def logits(of: LoadedModel) -> torch.Tensor:
        return of.transformer.logits(of.transformer.hidden(tokens, positions, lambda _, qkv: qkv[:, :32]))

    difference = (logits(half) - logits(loaded)).abs().max()
    assert 0 < difference < 0.01 * logits(loaded).abs().max()
    requests = [ContinuationRequest("Hello", SamplingParams(seed, samples=3, length=10)) for seed in range(5)]
    crowd = [begin(half, request) for request in requests]
    while not all(group.done for group in crowd):
        advance(half.transformer, [group for group in crowd if not group.done])
    assert [group.tokens for group in crowd] == [ours(half, request) for request in requests]


OWN_PROCESS = """
from pathlib import Path

import torch
from transformers import GPT2Config

from bot.gpt2.local.sequences import Cache


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


before = resident_mib()
cache = Cache(GPT2Config(n_layer=2), 20_000, torch.device("cpu"))  # 240 MB
assert resident_mib() - before < 20
for layer in range(2):
    cache.store(layer, torch.arange(10_000), torch.ones(10_000, 2 * 768))
assert 90 < resident_mib() - before < 170
((keys, values),) = cache.views([(9_999, 10_001)])[0]
assert keys[0, :, 0].eq(1).all()
assert values[0, :, 1].eq(0).all()
del keys, values
cache.release()
assert resident_mib() - before < 60
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cache_takes_memory_as_far_as_it_is_written() -> None:
    """In a process of its own: in this one it may take memory that other tests have freed."""
    subprocess.run([sys.executable, "-c", OWN_PROCESS], check=True)
