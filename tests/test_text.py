from __future__ import annotations

import pytest

from bot.text import Text, placeholders, say

GERMAN = {"Layer {layer} does not exist.": "Schicht {layer} gibt es nicht.", "two": "zwei", "{a}, {b}": "{b}, {a}"}


def german(template: str) -> str:
    return GERMAN.get(template, template)


def test_a_text_is_english_by_default() -> None:
    assert str(say("Layer {layer} does not exist.", layer=13)) == "Layer 13 does not exist."


def test_a_text_is_translated() -> None:
    assert say("Layer {layer} does not exist.", layer=13).in_language(german) == "Schicht 13 gibt es nicht."


def test_a_translation_may_reorder_the_values() -> None:
    assert say("{a}, {b}", a=1, b=2).in_language(german) == "2, 1"


def test_a_text_inside_a_text_is_translated_too() -> None:
    outer = say("Layer {layer} does not exist.", layer=say("two"))
    assert outer.in_language(german) == "Schicht zwei gibt es nicht."
    assert str(outer) == "Layer two does not exist."


def test_a_template_without_a_translation_stays_english() -> None:
    assert say("Nobody translated {this}.", this="this").in_language(german) == "Nobody translated this."


@pytest.mark.parametrize("value", ["{layer}", "{", "}", "{0}", "{layer.__class__}", "%s", "\\N{BULLET}"])
def test_braces_in_a_value_are_literal(value: str) -> None:
    assert str(say("You wrote {text}.", text=value)) == f"You wrote {value}."


def test_a_value_may_be_called_template() -> None:
    assert str(say("{template} and {self}", template=1, self=2)) == "1 and 2"


def test_texts_with_the_same_words_are_equal() -> None:
    assert say("{a}", a=1) == say("{a}", a=1) == Text("{a}", {"a": 1})
    assert say("{a}", a=1) != say("{a}", a=2)


def test_a_texts_values_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        say("{a}", a=1).values["a"] = 2  # type: ignore[index]


def test_placeholders_include_formats() -> None:
    assert placeholders("{a} {b:.1f} {c!r:>4} {{no field}} {a}") == {"{a}", "{b:.1f}", "{c!r:>4}"}
    assert placeholders("{b:.2f}") != placeholders("{b:.1f}")
    with pytest.raises(ValueError, match="expected '}'"):
        placeholders("{a")
