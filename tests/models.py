"""Small GPT-2s for tests: real architecture and tokenizer, random weights, made in a fraction of a second."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from bot.cli.models import build_several
from bot.config import Settings
from bot.gpt2.requests import ContinuationRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.gpt2.models import Models

PARTIAL: Final = Path(__file__).parents[2] / "shared" / "models" / "gpt2-partial"
END_OF_TEXT: Final = "<|endoftext|>"

_CORPUS: Final = ("Hello, I'm a language model, and I go on and on about the theatre of the theory of thoughts.",) * 3


def make_model(
    folder: Path,
    *,
    layers: int = 3,
    heads: int = 4,
    width: int = 32,
    context: int = 128,
    seed: int = 7,
    deviation: float = 0.3,
) -> Path:
    """Write a complete model folder and return it.

    The weights are larger than at GPT-2's own initialisation, so that logits differ and top-k and top-p have something
    to choose; the vocabulary is so small that an end of text comes up every few dozen tokens.
    """
    tokenizer = _tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        n_positions=context,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=deviation,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextlib.asynccontextmanager
async def several(*folders: Path, budget: int = 0) -> AsyncIterator[Models]:
    """Yield the models in these folders as the bot has them, the first one loaded."""
    settings = Settings(
        gpt2_model=str(folders[0]),
        gpt2_models=tuple(map(str, folders)),
        gpt2_models_memory=budget,
        gpt2_device="cpu",
        gpt2_threads=1,
    )
    async with build_several(settings) as models:
        await models.default.start()
        yield models


def seeded(request: ContinuationRequest, seed: int) -> ContinuationRequest:
    """Return the same request with another seed."""
    return replace(request, params=replace(request.params, seed=seed))


def _tokenizer() -> GPT2Tokenizer:
    """Byte-level BPE as GPT-2's, with a few merges."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return GPT2Tokenizer(tokenizer_object=bpe, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT, unk_token=END_OF_TEXT)
