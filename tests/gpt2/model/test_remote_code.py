"""Code that comes with a model is not run, wherever in its files it is named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from bot.errors import ModelInvalidError
from bot.gpt2.model.loading import load

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
from pathlib import Path
Path(__file__).with_name("it-was-run").touch()
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
class Config(GPT2Config): pass
class Model(GPT2LMHeadModel): pass
class Tokenizer(GPT2Tokenizer): pass
"""
CLASSES = {
    "AutoConfig": "custom.Config",
    "AutoModelForCausalLM": "custom.Model",
    "AutoTokenizer": ["custom.Tokenizer", "custom.Tokenizer"],
}


@pytest.mark.parametrize("model_type", ["gpt2", "something-else"])
def test_code_of_a_model_is_never_run(tiny_model: Path, tmp_path: Path, model_type: str) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "custom.py").write_text(CODE)
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((folder / name).read_text()) | {"auto_map": CLASSES, "tokenizer_class": "Tokenizer"}
        (folder / name).write_text(json.dumps(said | ({"model_type": model_type} if name == "config.json" else {})))
    if model_type == "gpt2":
        assert load(str(folder), device="cpu").info.layers == 3
    else:
        with pytest.raises(ModelInvalidError):
            load(str(folder), device="cpu")
    assert not list(tmp_path.rglob("it-was-run"))
