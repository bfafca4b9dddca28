"""What must be said of a model beside a picture of its work."""

from __future__ import annotations

from bot.gpt2.model_info import ModelInfo
from bot.ui.parameters import model_notes

WHOLE = ModelInfo("gpt2", 12, 12, 768, 1024, 50257, 124_439_808, "cpu")
PART = ModelInfo("part", 12, 12, 768, 1024, 50257, 124_439_808, "cpu", "float16", ("transformer.wte.weight",))


def test_a_whole_float32_model_has_no_notes() -> None:
    assert model_notes(WHOLE) == []


def test_partial_and_half_precision_models_have_notes() -> None:
    first, second = map(str, model_notes(PART))
    assert first.startswith("⚠️ part's file holds only part of the model and the rest is random")
    assert second == "Computed in float16, so slightly different from float32."
