"""What the tests of the local engine share: a small model here and in Transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import GPT2LMHeadModel

from bot.gpt2.model.loading import LoadedModel, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> GPT2LMHeadModel:
    """The same model in Transformers."""
    return GPT2LMHeadModel.from_pretrained(tiny_model)


@pytest.fixture
def keep_global_generator() -> Iterator[None]:
    """Transformers draws from torch's global generator; put it back afterwards."""
    with torch.random.fork_rng():
        yield
