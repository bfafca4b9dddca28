"""Names and shapes of the state dict, against Transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bot.gpt2.model.shapes import position_bytes, state_dict_shapes


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"n_embd": 1024, "n_layer": 24, "n_head": 16},
        {"n_embd": 48, "n_layer": 1, "n_head": 3, "n_inner": 5, "vocab_size": 7, "n_positions": 2},
        {"n_embd": 8, "n_layer": 2, "n_head": 1, "tie_word_embeddings": False},
        {"n_embd": 8, "n_layer": 2, "n_head": 2, "add_cross_attention": True},
        {"n_embd": 8, "n_layer": 2, "n_head": 2, "activation_function": "relu", "scale_attn_weights": False},
    ],
)
def test_they_are_those_that_transformers_builds(values: dict[str, Any]) -> None:
    config = GPT2Config(**values)
    with torch.device("meta"):
        built = [(name, tuple(tensor.shape)) for name, tensor in GPT2LMHeadModel(config).state_dict().items()]
    assert list(state_dict_shapes(config).items()) == built


@pytest.mark.parametrize(
    "values",
    [
        {"n_head": 5},
        {"n_head": 0},
        {"n_layer": 0},
        {"n_embd": -12},
        {"vocab_size": 0},
        {"n_positions": -1},
        {"n_inner": 0},
    ],
)
def test_numbers_that_describe_no_model_are_named(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        state_dict_shapes(GPT2Config(**values))


def test_a_position_of_gpt2_small_takes_72_kib() -> None:
    assert position_bytes(GPT2Config()) == 72 * 1024
