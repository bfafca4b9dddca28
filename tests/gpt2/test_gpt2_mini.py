"""The card of the model that ships, against the files beside it."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from safetensors import safe_open

from tests.command_line import ROOT
from tools.train import Recipe

FOLDER = ROOT / "bot/gpt2/gpt2-mini"


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_card_names_these_very_weights(card: str) -> None:
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert f"{len(weights):,} bytes" in card
    assert hashlib.sha256(weights).hexdigest() in card
    with safe_open(FOLDER / "model.safetensors", "np") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118, not a dict
        types = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    assert f"{sum(map(math.prod, shapes)):,} parameters" in card
    assert types == {"F16"}


def test_the_card_and_the_recipe_have_the_sizes_of_the_config(card: str) -> None:
    config, recipe = json.loads((FOLDER / "config.json").read_text()), Recipe()
    sizes = [config[name] for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")]
    assert sizes == [recipe.layers, recipe.heads, recipe.width, recipe.context, recipe.vocabulary]
    assert "| {} × {}, {}, {:,} tokens |\n| vocabulary | {:,} tokens".format(*sizes) in card
    assert config["activation_function"] == "gelu_new"


def test_the_card_gives_the_recipe_that_the_trainer_has(card: str) -> None:
    recipe = Recipe()
    tokens = recipe.steps * recipe.batch * recipe.context
    assert f"{recipe.steps:,} steps of {recipe.batch} windows of {recipe.context:,} tokens: {tokens:,}" in card
    assert f"seed {recipe.seed}" in card
    weights = {source: f"{weight:g}" for source, weight in recipe.weights.items()}
    rows = (row.split(" | ") for row in card.partition("## The texts")[2].splitlines() if row.startswith("| `"))
    assert {row[0].strip("| `"): row[1] for row in rows if row[1] != "1"} == weights
