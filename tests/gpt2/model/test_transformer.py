"""The forward pass over rows, and what it keeps of the parameters."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bot.gpt2.model import transformer
from bot.gpt2.model.linear import PackedRows, packing_works
from bot.gpt2.model.transformer import Transformer

TOKENS = torch.tensor([5, 0, 299, 17, 17])


def make_network(*, tied: bool = True) -> GPT2LMHeadModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=300, n_positions=64, n_embd=64, n_layer=2, n_head=2, tie_word_embeddings=tied, use_cache=False
        )
        return GPT2LMHeadModel(config).eval()


def build(network: GPT2LMHeadModel, *, lasting: bool = False) -> Transformer:
    parameters = network.state_dict()
    with torch.inference_mode():
        return Transformer(network.config, parameters.__getitem__, torch.device("cpu"), lasting=lasting)


@torch.inference_mode()
def logits(model: Transformer, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    """Return those of tokens that see only themselves: of each row the values are what attention gives."""
    hidden = model.hidden(tokens, torch.zeros_like(tokens), lambda _, qkv: qkv[:, 2 * qkv.shape[1] // 3 :])
    return model.logits(hidden)


@pytest.mark.parametrize("rows", [1, 3, 5, 12])
@pytest.mark.parametrize("tied", [True, False])
def test_a_token_alone_gets_the_logits_of_transformers(rows: int, *, tied: bool) -> None:
    network = make_network(tied=tied)
    tokens = torch.arange(rows) * 7
    with torch.inference_mode():
        expected = network(tokens.unsqueeze(1)).logits[:, 0]
    torch.testing.assert_close(logits(build(network), tokens), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not packing_works(), reason="oneDNN's packed product does not work here")
def test_a_tied_embedding_is_kept_once() -> None:
    assert isinstance(build(make_network())._wte, PackedRows)
    assert isinstance(build(make_network(tied=False))._wte, torch.Tensor)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("understood", [True, False])
def test_no_file_is_read_after_loading(*, tied: bool, understood: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """People copy new weights over old, and a model must stay as it was loaded."""
    if not understood:
        monkeypatch.setattr(transformer, "packed_rows", lambda *_: None)
    network = make_network(tied=tied)
    model = build(network)
    before = logits(model)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert torch.equal(logits(model), before)


def test_a_file_that_lasts_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "packed_rows", lambda *_: None)
    network = make_network()
    embedding = build(network, lasting=True)._wte
    assert isinstance(embedding, torch.Tensor)
    assert embedding.data_ptr() == network.transformer.wte.weight.data_ptr()
