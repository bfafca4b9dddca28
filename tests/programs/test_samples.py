"""The program prints the samples that the bot shows."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save_file

from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.programs import continuation
from tests.command_line import run_python
from tests.models import make_model
from tests.programs.running import at_home, run
from tests.programs.test_source import model

if TYPE_CHECKING:
    from pathlib import Path

REQUESTS = (
    ContinuationRequest("Hello, I'm a language model,", SamplingParams(42, length=12)),
    ContinuationRequest("a", SamplingParams(0, samples=3, length=8, temperature=0.3, top_k=0, top_p=0.5)),
    ContinuationRequest("greedy", SamplingParams(1, length=8, temperature=0.0)),
    ContinuationRequest("hardly warm", SamplingParams(1, length=8, temperature=1e-300)),
    ContinuationRequest(
        "\"ROMEO:'\n\\n $seed {x}\n\n", SamplingParams(2**32 - 1, samples=2, length=8, temperature=1.7, top_k=7)
    ),
    ContinuationRequest(
        "日本語 🎭 مرحبا \u202eabc\u200b\ud800<|endoftext|>\x00```", SamplingParams(5, samples=1, length=8, top_p=0.0)
    ),
    ContinuationRequest("many words " * 8, SamplingParams(6, samples=10, length=1)),
)


async def expected(engine: LocalEngine, request: ContinuationRequest) -> str:
    samples = (await engine.continuation(request)).samples
    return "".join(
        f"----- {number} -----\n{request.prompt}{sample.text}\n" for number, sample in enumerate(samples, start=1)
    )


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: repr(request.prompt[:12]))
async def test_it_prints_the_bots_samples(engine: LocalEngine, tiny_model: Path, request_: ContinuationRequest) -> None:
    program = continuation(request_, await engine.model())
    assert run(program, tiny_model).printed == await expected(engine, request_)


@pytest.mark.slow
async def test_it_runs_on_a_machine_without_the_bot(engine: LocalEngine, tiny_model: Path, tmp_path: Path) -> None:
    program = at_home(continuation(REQUESTS[0], await engine.model()), tiny_model)
    tmp_path.joinpath("program.py").write_text(program, encoding="utf-8")
    process = run_python("program.py", folder=tmp_path, environment={"PYTHONPATH": ""})
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == (await expected(engine, REQUESTS[0])).split()  # a pipe changes ends of lines


async def test_it_repeats_the_random_values_of_a_model_in_part(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "part", layers=1)
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.wte.weight"], weights["transformer.h.0.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    engine = LocalEngine(str(folder), device="cpu")
    await engine.start()
    try:
        program = continuation(REQUESTS[0], await engine.model())
        assert run(program, folder).printed == await expected(engine, REQUESTS[0])
    finally:
        await engine.close()


def test_it_reads_like_a_page_of_a_book() -> None:
    program = continuation(ContinuationRequest("Hello, I'm a language model,", SamplingParams(42)), model())
    assert program == textwrap.dedent("""\
        from transformers import pipeline, set_seed

        model = "gpt2"
        prompt = "Hello, I'm a language model,"

        generator = pipeline("text-generation", model=model, dtype="float32", device="cpu")
        set_seed(42)
        samples = generator(
            prompt,
            max_new_tokens=40,
            num_return_sequences=5,
            do_sample=True,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
        )
        for number, sample in enumerate(samples, start=1):
            print(f"----- {number} -----")
            print(sample["generated_text"])
        """)


def test_it_says_where_words_will_differ() -> None:
    assert "float16, so after a while its words differ" in continuation(REQUESTS[0], model(precision="float16"))
    assert 'device="cuda"' in continuation(REQUESTS[0], model(device="cuda"))
