"""Any GPT-2 writes the words of Transformers' pipeline, or is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from transformers import pipeline, set_seed

from bot.errors import InvalidInputError, ModelInvalidError
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model.loading import load
from bot.gpt2.requests import ContinuationRequest, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensors = dict[str, torch.Tensor]

WORDS = ContinuationRequest("Hello, I'm a language model,", SamplingParams(42, samples=3, length=30))
NAN, INFINITY = float("nan"), float("inf")
BIAS = "transformer.h.0.mlp.c_fc.bias"
EMBEDDING, OUTPUT = "transformer.wte.weight", "lm_head.weight"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def store(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


def write(folder: Path, file: str, **values: Any) -> None:
    """Change a JSON file of a model."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


async def ours(folder: Path) -> list[str]:
    engine = LocalEngine(str(folder), device="cpu")
    await engine.start()
    try:
        return [sample.text for sample in (await engine.continuation(WORDS)).samples]
    finally:
        await engine.close()


def theirs(folder: Path) -> list[str]:
    with torch.random.fork_rng():
        generator = pipeline("text-generation", model=str(folder), dtype="float32", device="cpu")
        set_seed(WORDS.seed)
        samples = generator(
            WORDS.prompt,
            max_new_tokens=WORDS.params.length,
            num_return_sequences=WORDS.params.samples,
            do_sample=True,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            return_full_text=False,
        )
    return [sample["generated_text"] for sample in samples]


def fault_of(folder: Path) -> str:
    with pytest.raises(ModelInvalidError) as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def other(tensors: Tensors) -> torch.Tensor:
    return torch.randn(tensors[EMBEDDING].shape, generator=torch.Generator().manual_seed(0))


def renamed(rename: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {rename(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "tied"),
    [
        (lambda tensors: tensors | {OUTPUT: other(tensors)}, False),
        (lambda tensors: tensors | {OUTPUT: tensors[EMBEDDING].half()}, False),  # rounded, so no longer the same
        (lambda tensors: tensors | {OUTPUT: tensors[EMBEDDING].clone()}, True),
        (renamed(lambda name: OUTPUT if name == EMBEDDING else name), True),
        (lambda tensors: tensors | {"wte.weight": other(tensors)}, True),  # two keys for one entry
        (renamed(lambda name: f"transformer.{name}"), True),
        (lambda tensors: tensors | {BIAS: tensors[BIAS].to(torch.float8_e4m3fn)}, True),
        (lambda tensors: tensors | {"score.weight": torch.ones(2, 32)}, True),  # another task's head
    ],
)
async def test_weights_are_taken_as_transformers_takes_them(
    folder: Path, change: Callable[[Tensors], Tensors], *, tied: bool
) -> None:
    store(folder, change)
    assert await ours(folder) == theirs(folder)
    info = load(str(folder), device="cpu").parameters.find(OUTPUT)
    assert (info.tied_to, info.stored) == (EMBEDDING if tied else None, True)


# In the tiny model "b", "c" and "d" are the tokens 66 to 68; <|endoftext|>, 0, is its only special one.
@pytest.mark.parametrize("token", [[0, 66, 67], [67, 66, 68], 68, 300, 50256, -1, None, [50256, 66], 66.5])
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
async def test_texts_end_where_the_pipelines_end(folder: Path, file: str, token: Any) -> None:
    if file == "config.json":
        (folder / "generation_config.json").unlink()
        if isinstance(token, float):
            return  # GPT2Config refuses it
    write(folder, file, eos_token_id=token)
    with capture_logs() as logs:
        assert await ours(folder) == theirs(folder)
    endless = token in (300, 50256, -1, None)
    assert any("names no token that ends a text" in line["event"] for line in logs) is endless


@pytest.mark.parametrize("content", ["{", '{"bos_token_id": 0}', '{"pad_token_id": 66, "eos_token_id": [0, 67]}'])
async def test_an_unusual_generation_config_is_read_as_transformers_reads_it(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content)
    assert await ours(folder) == theirs(folder)


@pytest.mark.parametrize("content", ["[]", '{"eos_token_id": []}', '{"eos_token_id": "0"}', '{"max_new_tokens": -1}'])
def test_a_generation_config_that_transformers_cannot_use_is_refused(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content)
    assert f"{folder / 'generation_config.json'} cannot be used: " in fault_of(folder)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("name", [EMBEDDING, BIAS, "transformer.h.2.attn.c_attn.weight", "transformer.ln_f.weight"])
def test_a_weight_that_is_no_number_is_refused_by_name(folder: Path, name: str, value: float) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors[name].view(-1)[7] = value
        return tensors

    store(folder, spoil)
    assert f"The weights in {folder} cannot be used: {name} holds NaN or infinity" in fault_of(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_weights_that_are_no_floats_are_refused_by_name(folder: Path, dtype: torch.dtype) -> None:
    store(folder, lambda tensors: tensors | {BIAS: (tensors[BIAS] * 100).to(dtype)})
    assert f"{BIAS} is stored as {str(dtype).removeprefix('torch.')}, not as floating-point" in fault_of(folder)


def test_a_quantized_model_is_refused_by_its_method(folder: Path) -> None:
    write(folder, "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "describes a quantized model (quant_method 'gptq')" in fault_of(folder)


@pytest.mark.parametrize(
    ("prefix", "inner"),
    [
        ("_orig_mod.", "transformer."),
        ("module.", "transformer."),
        ("model.", ""),
        ("base_model.model.", "transformer."),
    ],
)
def test_names_with_a_prefix_are_named_beside_those_that_lack(folder: Path, prefix: str, inner: str) -> None:
    store(folder, renamed(lambda name: prefix + inner + name.removeprefix("transformer.")))
    assert fault_of(folder) == (
        f"The weights in {folder} are not those of its config.json: they lack transformer.h.0.attn.c_attn.bias and 39 "
        f"more and hold {prefix}{inner}h.0.attn.c_attn.bias and 39 more, which it does not have. "
        f"Remove {prefix!r} from the beginning of the names and save them again."
    )


def test_files_of_another_model_or_of_none_are_refused(folder: Path) -> None:
    store(
        folder,
        lambda tensors: {name: tensors[name] for name in tensors if "ln_f" not in name} | {"norm": other(tensors)},
    )
    assert "lack transformer.ln_f.bias and 1 more and hold norm, which it does not have." in fault_of(folder)
    store(folder, lambda _: {})
    assert fault_of(folder).endswith("they lack transformer.h.0.attn.c_attn.bias and 39 more.")


async def test_a_token_beyond_the_models_own_is_refused_only_where_it_is_used(folder: Path) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    engine = LocalEngine(str(folder), device="cpu")
    await engine.start()
    try:
        assert (await engine.continuation(WORDS)).samples
        with pytest.raises(InvalidInputError, match=r"The token “\[PAD\]” in this text was added to model's tokenizer"):
            await engine.continuation(ContinuationRequest("Hello [PAD]", SamplingParams(1)))
    finally:
        await engine.close()


async def test_what_happens_to_a_file_later_does_not_change_the_words(folder: Path) -> None:
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    engine = LocalEngine(str(folder), device="cpu")
    await engine.start()
    try:
        expected = await engine.continuation(WORDS)
        store(folder, lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
        changed = weights.read_bytes()
        assert len(changed) == len(before)
        for content in (changed, before[:1000], b""):
            with weights.open("r+b") as file:  # in place, as cp does
                file.truncate(len(content))
                file.write(content)
            assert (await engine.continuation(WORDS)).samples == expected.samples
    finally:
        await engine.close()
