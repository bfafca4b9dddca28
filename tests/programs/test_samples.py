"""The program prints the samples that the bot shows."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.programs import continuation
from tests.command_line import run_python
from tests.models import make_model
from tests.programs.running import at_home, run
from tests.programs.test_source import model

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


OWN_SETTINGS = {
    "temperature": 0.3,
    "top_k": 3,
    "top_p": 0.4,
    "typical_p": 0.5,
    "min_p": 0.2,
    "epsilon_cutoff": 0.01,
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[66], [67, 68]],
    "suppress_tokens": [69],
    "begin_suppress_tokens": [70],
    "forced_bos_token_id": 71,
    "forced_eos_token_id": 72,
    "sequence_bias": [[[73], 5.0]],
    "exponential_decay_length_penalty": [2, 1.5],
    "min_new_tokens": 40,
    "max_length": 5,
    "num_beams": 2,
    "num_return_sequences": 2,
    "stop_strings": ["e"],
    "guidance_scale": 1.5,
    "renormalize_logits": True,
    "an_entry\nprint('of their own')": 1,
}


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
async def test_a_models_own_settings_change_neither_the_bots_words_nor_the_programs(
    tiny_model: Path, engine: LocalEngine, tmp_path: Path, file: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "generation_config.json").unlink()
    said = json.loads((folder / "config.json").read_text()) | {"prefix": "Once upon a time"}
    (folder / "config.json").write_text(json.dumps(said))
    said = said if file == "config.json" else {"eos_token_id": said["eos_token_id"]}
    (folder / file).write_text(json.dumps(said | OWN_SETTINGS))
    odd = LocalEngine(str(folder), device="cpu")
    with capture_logs() as logs:
        await odd.start()
    try:
        described = await odd.model()
        assert set(described.unused_settings) == {name for name in OWN_SETTINGS if name.isidentifier()} | {"prefix"}
        [line] = [line for line in logs if "are not used" in line["event"]]
        assert line["settings"] == described.unused_settings
        for request in (REQUESTS[0], REQUESTS[2]):
            printed = await expected(engine, request)
            assert await expected(odd, request) == printed
            assert run(continuation(request, described), folder).printed == printed
    finally:
        await odd.close()


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


def test_it_resets_the_models_own_settings_by_name() -> None:
    odd = model(unused_settings=("no_repeat_ngram_size", "prefix"))
    program = continuation(ContinuationRequest("Hello", SamplingParams(42, temperature=0.0)), odd)
    assert program == textwrap.dedent("""\
        from transformers import GenerationConfig, pipeline

        model = "gpt2"
        prompt = "Hello"

        generator = pipeline("text-generation", model=model, dtype="float32", device="cpu")
        # The bot leaves out the model's own settings: no_repeat_ngram_size, prefix.
        own = generator.model.generation_config
        generator.model.generation_config = GenerationConfig(
            eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
        )
        samples = generator(prompt, max_new_tokens=40, do_sample=False, prefix="")
        print("----- 1 -----")
        print(samples[0]["generated_text"])
        """)


def test_it_says_where_words_will_differ() -> None:
    assert "float16, so after a while its words differ" in continuation(REQUESTS[0], model(precision="float16"))
    assert 'dtype="float32", device="cuda"' in continuation(REQUESTS[0], model(device="cuda"))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_on_a_gpu_is_the_programs_too(tiny_model: Path, precision: str) -> None:
    for request in (REQUESTS[0], REQUESTS[2]):
        program = continuation(request, model(precision=precision, device="cuda"))
        assert f"# The bot computes in {precision}, so after a while its words differ" in program
        assert f'dtype="{precision}", device="cuda"' in program
        printed = run(program.replace('device="cuda"', 'device="cpu"'), tiny_model).printed
        assert printed.count("-----") == 2 * request.params.rows
