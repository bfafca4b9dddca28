"""The state dict as people ask for it: every name, the file's own values, nothing twice in memory."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from bot.errors import InvalidInputError, UnavailableError
from bot.gpt2.model import parameters
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.model.parameters import TemporaryWeights
from bot.gpt2.model_info import ParameterSlice
from tests.models import PARTIAL

needs_partial = pytest.mark.skipif(
    not PARTIAL.is_dir(), reason="shared/models/gpt2-partial is not beside this checkout"
)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def partial() -> LoadedModel:
    return load(str(PARTIAL), device="cpu")


def read(loaded: LoadedModel, name: str, rows: str | None = None, columns: str | None = None) -> np.ndarray:
    return loaded.parameters.read(ParameterSlice.parse(loaded.parameters.find(name), rows, columns))


def test_names_and_shapes_are_those_of_the_state_dict(loaded: LoadedModel, tiny_model: Path) -> None:
    expected = [
        (name, tuple(tensor.shape)) for name, tensor in GPT2LMHeadModel.from_pretrained(tiny_model).state_dict().items()
    ]
    assert [(info.name, info.shape) for info in loaded.parameters.infos] == expected


def test_values_are_those_of_the_model(loaded: LoadedModel, tiny_model: Path) -> None:
    for name, tensor in GPT2LMHeadModel.from_pretrained(tiny_model).state_dict().items():
        columns = ":" if tensor.dim() > 1 else None
        np.testing.assert_array_equal(read(loaded, name, ":", columns), tensor.numpy())


def test_the_output_matrix_is_the_token_embedding(loaded: LoadedModel) -> None:
    info = loaded.parameters.find("lm_head.weight")
    assert info.tied_to == "transformer.wte.weight"
    assert info.stored


@pytest.mark.parametrize("name", ["wpe", "wpe.weight", "transformer.wpe", " transformer.wpe.weight "])
def test_short_names_are_understood(loaded: LoadedModel, name: str) -> None:
    assert loaded.parameters.find(name).name == "transformer.wpe.weight"


@pytest.mark.parametrize("name", ["", "h.99.attn", "wpe.wieght", "\ud800", "@everyone", "$x^{$", "x" * 6000])
def test_an_unknown_name_is_answered_with_the_nearest(loaded: LoadedModel, name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"Did you mean [\w.]+, [\w.]+, [\w.]+\?") as caught:
        loaded.parameters.find(name)
    str(caught.value).encode()
    assert len(str(caught.value)) < 400


def test_a_misspelt_name_finds_what_was_meant(loaded: LoadedModel) -> None:
    for name in ("transformer.h.1.attn.c_atn.weight", "h.1.atn.c_attn.weight"):
        with pytest.raises(InvalidInputError, match=r"Did you mean transformer\.h\.1\.attn\.c_attn\.weight,"):
            loaded.parameters.find(name)


def test_completion_finds_words_in_any_place_and_puts_beginnings_first(loaded: LoadedModel) -> None:
    complete = loaded.parameters.complete
    assert len(complete("", 25)) == 25
    assert complete("h.2 bias c_fc", 25) == ("transformer.h.2.mlp.c_fc.bias",)
    assert complete("ln", 25)[0] == "transformer.ln_f.weight"
    assert complete("nothing like this", 25) == ()


def test_a_filter_without_a_match_is_refused(loaded: LoadedModel) -> None:
    assert [info.name for info in loaded.parameters.filtered("LN_F")] == [
        "transformer.ln_f.weight",
        "transformer.ln_f.bias",
    ]
    with pytest.raises(InvalidInputError, match="No parameter's name contains “conv”"):
        loaded.parameters.filtered("conv")


def test_a_file_that_has_changed_is_not_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = folder / "model.safetensors"
    loaded = load(str(folder), device="cpu")
    kept = read(loaded, "wpe", ":", ":")
    expected = kept.copy()
    content, times = weights.read_bytes(), weights.stat()
    for change in (content[::-1], content[:100], None):
        weights.unlink() if change is None else weights.write_bytes(change)
        with pytest.raises(UnavailableError, match="file has changed since I loaded it"):
            read(loaded, "wpe")
    np.testing.assert_array_equal(kept, expected)  # what was read before is no view of the file
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    np.testing.assert_array_equal(read(loaded, "wpe", ":", ":"), expected)


def test_openais_own_keys_without_prefix_and_in_shards_are_read(tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = {
        name.removeprefix("transformer."): value for name, value in load_file(tiny_model / "model.safetensors").items()
    }
    half = len(tensors) // 2
    shards = dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])
    index = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({key: value.bfloat16() for key, value in shard.items()}, tmp_path / name, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, name)
    (tmp_path / "model.safetensors.index.json").write_text(
        f'{{"metadata": {{}}, "weight_map": {index}}}'.replace("'", '"')
    )
    sharded = load(str(tmp_path), device="cpu")
    assert sharded.info.missing == ()
    info = sharded.parameters.find("h.0.attn.c_attn")
    assert (info.dtype, info.stored) == ("bfloat16", True)
    expected = tensors["h.0.attn.c_attn.weight"].bfloat16().float().numpy()
    np.testing.assert_array_equal(read(sharded, info.name, ":", ":"), expected)


@needs_partial
def test_gpt2_small_has_149_entries(partial: LoadedModel) -> None:
    assert len(partial.parameters.infos) == 149
    assert partial.info.parameters == 124_439_808


@needs_partial
def test_the_tutorials_numbers(partial: LoadedModel) -> None:
    positions = read(partial, "wpe", ":", ":")
    assert positions[0, :4] == pytest.approx([-0.0188, -0.1974, 0.0040, 0.0113], abs=5e-5)
    assert (positions.min(), positions.max()) == pytest.approx((-4.54, 4.06), abs=0.01)
    attention = read(partial, "h.1.attn.c_attn.weight", "0:300", "0:300")
    assert (attention.min(), attention.max()) == pytest.approx((-0.997, 0.857), abs=0.001)


@pytest.mark.slow
@needs_partial
def test_what_the_file_does_not_hold_is_known_and_the_same_after_every_load(partial: LoadedModel) -> None:
    info = partial.parameters.find("wte")
    assert not info.stored
    assert not partial.parameters.find("lm_head.weight").stored
    assert partial.parameters.find("h.1.attn.c_attn").dtype == "float16"
    assert len(partial.info.missing) == 26  # the token embedding, twice, and two MLP matrices a layer
    with torch.random.fork_rng():
        again = load(str(PARTIAL), device="cpu")
    np.testing.assert_array_equal(read(again, "wte"), read(partial, "wte"))


@pytest.mark.parametrize("removed", [True, False])
def test_values_that_no_file_holds_are_gone_with_their_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, removed: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not removed:  # as on other systems
        monkeypatch.setattr(parameters, "_OPEN_FILES", tmp_path / "none")
    values = torch.arange(12.0).view(3, 4)
    weights = TemporaryWeights({"wte": values})
    assert torch.equal(weights.entries["wte"].load(), values)
    assert any(tmp_path.iterdir()) is not (removed and sys.platform == "linux")
    path = weights.entries["wte"].path
    del weights
    assert not path.exists()
    assert not any(tmp_path.iterdir())
