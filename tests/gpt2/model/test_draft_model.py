"""The 8-bit copy computes about what Transformers computes, for any GPT-2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from bot.gpt2.model import draft_model
from bot.gpt2.model.draft_model import _ACTIVATIONS, DraftModel, quantize, shared_range
from bot.gpt2.model.transformer import Norm, Transformer

TEXT = 12  # tokens


def make_network(**settings: Any) -> GPT2LMHeadModel:
    """Return a small GPT-2 of random weights, large enough for what follows from them to be seen."""
    shape = {"vocab_size": 300, "n_positions": 64, "n_embd": 64, "n_layer": 3, "n_head": 4, "initializer_range": 0.1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GPT2LMHeadModel(GPT2Config(**{**shape, **settings})).eval()
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return network


def copy(network: GPT2LMHeadModel) -> DraftModel:
    with torch.inference_mode():
        return DraftModel(Transformer(network.config, network.state_dict().__getitem__, torch.device("cpu")), 1)


@torch.inference_mode()
def expected_and_past(network: GPT2LMHeadModel, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits after each text, [texts, vocabulary], and keys and values, [layers, 2, texts, tokens, d]."""
    output = network(texts, use_cache=True)
    layers = [torch.stack((layer.keys, layer.values)) for layer in output.past_key_values.layers]
    return output.logits[:, -1], torch.stack(layers).transpose(3, 4).flatten(4)


@torch.inference_mode()
def error(network: GPT2LMHeadModel) -> float:
    """Compute the last tokens of three texts in one pass; return the relative error of their logits."""
    texts = torch.randint(300, (3, TEXT), generator=torch.Generator().manual_seed(1))
    expected, keys_values = expected_and_past(network, texts)
    past = keys_values[:, :, :, :-1]
    seen = torch.block_diag(*torch.ones(3, 1, TEXT - 1, dtype=torch.bool))
    last = np.full(3, TEXT - 1)
    logits, given = copy(network)(texts[:, -1].numpy(), last, past.flatten(2, 3).numpy(), seen.numpy())
    own = torch.from_numpy(given)
    assert own.shape == (network.config.n_layer, 2, 3, network.config.n_embd)
    assert (own - keys_values[:, :, :, -1]).norm() < 0.05 * keys_values[:, :, :, -1].norm()
    centred = expected - expected.mean(dim=1, keepdim=True)
    return float((logits - expected).norm() / centred.norm())


@pytest.mark.parametrize(
    "settings",
    [
        {"tie_word_embeddings": False},
        {"n_embd": 60, "n_head": 3, "n_inner": 100},
        {"n_embd": 384, "n_head": 2, "n_layer": 2},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"layer_norm_epsilon": 0.5},
        *({"activation_function": name} for name in _ACTIVATIONS),
    ],
    ids=str,
)
def test_the_copy_gives_about_the_logits_of_transformers(settings: dict[str, Any]) -> None:
    assert error(make_network(**settings)) < 0.03


def test_a_row_sees_itself_and_what_it_is_told() -> None:
    model = copy(make_network())
    tokens, positions = np.array([5, 7]), np.array([3, 4])
    past = np.random.default_rng(0).standard_normal((3, 2, 16, 64), np.float32)
    seen = np.zeros((2, 16), np.bool_)
    seen[0, :3] = seen[1, 8:] = True
    first, _ = model(tokens, positions, past, seen)
    past[:, :, 3:8] = 100.0  # nobody's
    past[:, :, 9] += 1.0  # the second row's
    second, _ = model(tokens, positions, past, seen)
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    alone, _ = model(tokens[:1], positions[:1], past, seen[:1])
    torch.testing.assert_close(alone[0], first[0], atol=1e-4, rtol=1e-4)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation_function 'relu2'"):
        copy(make_network(activation_function="relu2"))


def test_outliers_of_the_last_norm_leave_the_copy_close(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network()
    outliers = [3, 20, 40]
    network.transformer.ln_f.weight.data[outliers] *= 60.0
    network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.data.clone())
    network.lm_head.weight.data[:, outliers] /= 60.0
    shared = error(network)
    monkeypatch.setattr(draft_model, "shared_range", lambda _, weight: torch.ones(weight.shape[1]))
    assert shared < 0.03
    assert error(network) > 1.5 * shared


@given(st.integers(1, 40), st.integers(1, 300), st.sampled_from([16, 32, 128]), st.floats(1e-30, 1e30))
def test_integers_are_off_by_half_a_step_at_most(out: int, inner: int, block: int, size: float) -> None:
    weight = torch.randn(out, inner, generator=torch.Generator().manual_seed(out)) * size
    weight[0] = 0
    integers, scales = quantize(weight, block)
    assert integers.shape[:2] == scales.shape
    values = (integers.astype(np.float64) - 128) * scales[..., None]
    flat = values.reshape(out, -1)
    assert not flat[0].any()
    assert not flat[:, inner:].any()
    steps = np.repeat(scales, block, axis=1)[:, :inner]
    assert np.all(np.abs(flat[:, :inner] - weight.double().numpy()) <= 0.501 * steps)


def test_factors_are_finite_for_dimensions_that_are_nowhere_used() -> None:
    norm = Norm(torch.tensor([0.0, 1.0, 50.0]), torch.tensor([0.0, 0.5, 0.0]), 1e-5)
    factors = shared_range(norm, torch.tensor([[0.0, 0.0, 0.1], [0.0, 1.0, -0.1]]))
    assert bool(factors.isfinite().all())
    assert bool((factors > 0).all())
    assert factors[2] > factors[1]
