"""Source text is what it says, whatever people wrote."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.gpt2.model_info import ModelInfo
from bot.programs.source import LINE_CHARACTERS, Source, fill, imports, opening, quoted, text


def model(**values: object) -> ModelInfo:
    return ModelInfo(
        **{
            "name": "gpt2",
            "layers": 12,
            "heads": 12,
            "width": 768,
            "context": 1024,
            "vocabulary": 50257,
            "parameters": 124_439_808,
            "device": "cpu",
        }
        | values
    )


@given(st.text(st.characters(exclude_categories=[])))  # halves of surrogate pairs too
def test_a_literal_is_the_text_and_shows_every_character(written: str) -> None:
    for literal in (text(written), quoted(written)):
        assert ast.literal_eval(literal) == written
        assert all(character.isprintable() for line in literal.split("\n") for character in line)
    assert "\n" not in quoted(written)


@pytest.mark.parametrize(
    ("written", "literal"),
    [
        ("Hello, I'm a language model,", '''"Hello, I'm a language model,"'''),
        ('She said "no"', """'She said "no"'"""),
        ("""'"'""", r'''"'\"'"'''),
        ("ROMEO:\n", r'"ROMEO:\n"'),
        ("\u202eabc\x00\ud800", r'"\u202eabc\x00\ud800"'),
        ("日本語 🎭", '"日本語 🎭"'),
        ("${HOME} $opening {x} %s \\", r'"${HOME} $opening {x} %s \\"'),
        ("", '""'),
    ],
)
def test_literals_read_well(written: str, literal: str) -> None:
    assert quoted(written) == text(written) == literal


def test_lines_and_long_lines_stand_one_below_the_other() -> None:
    assert text("ROMEO:\nBut soft!") == '(\n    "ROMEO:\\n"\n    "But soft!"\n)'
    literal = text("word " * 100 + "x" * 200)
    assert max(map(len, literal.splitlines())) <= LINE_CHARACTERS + 6
    assert all(line.endswith(' "') for line in literal.splitlines()[1:6])


def test_what_is_filled_in_is_not_filled_again() -> None:
    program = fill("\n    a = $a\n    $nothing\n\n    b[$c]\n", a="$c", nothing=Source(""), c=range(3, 5))
    assert program == 'a = "$c"\n\nb[3:5]\n'


def test_a_model_that_others_cannot_have_by_its_name_comes_with_a_word() -> None:
    assert opening(model()) == 'model = "gpt2"'
    assert opening(model(name="gpt2-mini", origin="shipped")).startswith('model = "bot/gpt2/gpt2-mini"  # ships')
    assert opening(model(name="mine", origin="folder")).startswith('model = "mine"  # a folder')


def test_random_parts_are_drawn_after_the_bots_seed() -> None:
    partial = model(missing=("transformer.wte.weight",))
    assert imports(model(), "GPT2LMHeadModel") == "GPT2LMHeadModel"
    assert imports(partial, "GPT2LMHeadModel") == "GPT2LMHeadModel, set_seed"
    assert opening(partial).splitlines()[1].startswith("set_seed(0)  # ")
