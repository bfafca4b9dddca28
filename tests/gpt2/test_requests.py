"""Requests refuse what cannot be asked, in words for the person who asked."""

from __future__ import annotations

import pytest

from bot.errors import InvalidInputError
from bot.gpt2 import validation
from bot.gpt2.model_info import (
    ModelInfo,
    ParameterInfo,
    ParameterSlice,
    heads_text,
    parse_heads,
    parse_indices,
    parse_slice,
)
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.validation import well_formed

MATRIX = ParameterInfo("transformer.wpe.weight", (1024, 768), "float32", stored=True)
VECTOR = ParameterInfo("transformer.ln_f.bias", (768,), "float32", stored=True)
TOKENS = ParameterInfo("transformer.wte.weight", (50257, 768), "float32", stored=True)
MODEL = ModelInfo("gpt2", 12, 12, 768, 1024, 50257, 124_439_808, "cpu")


@pytest.mark.parametrize("prompt", ["", " ", "\n\t ", "\u200b\u200d\ufeff", "\u2060", "\x00\x07", "\u3164\u2800"])
def test_a_prompt_that_shows_nothing_is_refused(prompt: str) -> None:
    with pytest.raises(InvalidInputError, match="prompt is empty"):
        ContinuationRequest(prompt, SamplingParams(0))


@pytest.mark.parametrize("prompt", ["\U0001fae8", "\U0001faea", "\ue000", "\u0301", "\ud83d", "."], ids=ascii)
def test_any_other_character_is_a_prompt_whether_this_python_knows_it_or_not(prompt: str) -> None:
    """Unicode has new emoji every year; an older Python calls them unassigned."""
    assert ContinuationRequest(prompt, SamplingParams(0)).prompt


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("samples", 0),
        ("samples", 11),
        ("length", 0),
        ("length", 201),
        ("temperature", -0.1),
        ("temperature", 2.5),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 1001),
        ("top_p", -0.5),
        ("top_p", 1.01),
        ("top_p", float("nan")),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"^{field} must be from"):
        SamplingParams(**{field: value})


def test_a_request_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="needs a seed"):
        ContinuationRequest("a", SamplingParams())


def test_the_longest_prompt_fits_and_one_more_character_does_not() -> None:
    ContinuationRequest("a" * validation.MAX_PROMPT_CHARACTERS, SamplingParams(0))
    with pytest.raises(InvalidInputError, match="6001 characters"):
        ContinuationRequest("a" * 6001, SamplingParams(0))


def test_lone_surrogates_become_replacement_characters_and_pairs_are_joined() -> None:
    assert ContinuationRequest("a\ud83d b", SamplingParams(0)).prompt == "a\ufffd b"
    assert ContinuationRequest("\ud83c\udfad", SamplingParams(0)).prompt == "🎭"
    assert well_formed("\udc00x\ud800").encode() == "\ufffdx\ufffd".encode()


def test_greedy_samples_are_computed_once() -> None:
    assert SamplingParams(samples=5, temperature=0.0).rows == 1
    assert SamplingParams(samples=5).rows == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:300", range(300)),
        ("300", range(300)),
        ("700:", range(700, 768)),
        (":5", range(5)),
        (":", range(768)),
        (" 3 : 9 ", range(3, 9)),
        ("767:768", range(767, 768)),
    ],
)
def test_slices_are_read_as_people_write_them(text: str, expected: range) -> None:
    assert parse_slice(text, 768, what="rows") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a slice"),
        ("abc", "not a slice"),
        ("1:2:3", "not a slice"),
        ("-5:", "not a slice"),
        ("1.5", "not a slice"),
        ("٣:٩", "not a slice"),
        ("²", "not a slice"),
        ("$x^{$", "not a slice"),
        ("9" * 5000, "not a slice"),
        ("5:5", "is empty"),
        ("9:3", "is empty"),
        ("0", "is empty"),
        ("0:769", "is out of range"),
        ("768:", "is out of range"),
        ("800:900", "is out of range"),
    ],
)
def test_slices_that_cannot_be_used_say_why(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason) as caught:
        parse_slice(text, 768, what="rows")
    assert str(caught.value).startswith("rows ")
    assert len(str(caught.value)) < 250


def test_indices_are_read_in_order_and_once() -> None:
    assert parse_indices("2, 0,2 ;1,", 768, what="dims", limit=8) == (2, 0, 1)


@pytest.mark.parametrize("text", ["", ",", "768", "-1", "a,b", "0,x", "1e3", "💥"])
def test_indices_outside_the_dimension_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="whole numbers from 0 to 767"):
        parse_indices(text, 768, what="dims", limit=8)


def test_more_indices_than_fit_are_refused_with_the_number() -> None:
    with pytest.raises(InvalidInputError, match="names 9; at most 8"):
        parse_indices("0,1,2,3,4,5,6,7,8", 768, what="dims", limit=8)


def test_a_matrix_shows_its_first_300_rows_and_columns_and_a_vector_all_of_itself() -> None:
    assert ParameterSlice.parse(MATRIX).shape == (300, 300)
    assert ParameterSlice.parse(VECTOR).shape == (768,)
    assert ParameterSlice.parse(VECTOR, rows="10").shape == (10,)


def test_small_matrices_are_shown_whole() -> None:
    info = ParameterInfo("x", (64, 40), "float32", stored=True)
    assert ParameterSlice.parse(info).shape == (64, 40)


def test_a_vector_has_no_columns() -> None:
    with pytest.raises(InvalidInputError, match="one dimension"):
        ParameterSlice.parse(VECTOR, columns="3")


def test_more_values_than_a_picture_can_show_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="38597376 values"):
        ParameterSlice.parse(TOKENS, rows=":", columns=":")


@pytest.mark.parametrize("layer", [0, 13, -1, 10**9])
def test_a_layer_that_does_not_exist_is_refused_with_the_number_of_layers(layer: int) -> None:
    with pytest.raises(InvalidInputError, match="gpt2 has 12, counted from 1"):
        MODEL.attention_parameter(layer)


def test_layers_count_from_one() -> None:
    assert MODEL.attention_parameter(2) == "transformer.h.1.attn.c_attn.weight"


@pytest.mark.parametrize("text", ["7.1, 8.6", "7.1,8.6", " 7.1 8.6\n", "7.1;8.6,", ",7.1, ; 8.6"])
def test_heads_are_named_by_layer_and_head(text: str) -> None:
    assert parse_heads(text) == ((7, 1), (8, 6))
    assert parse_heads(heads_text(parse_heads(text))) == ((7, 1), (8, 6))


@pytest.mark.parametrize(
    "text", ["", " , ", "7", "7.1.2", "7,1", "L7H1", "7.x", "-7.1", "\u0667.1", "99999.1", "7.1 and 8.6"]
)
def test_what_names_no_heads_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"name heads as layer\.head, separated by commas, as in 7\.1, 8\.6\."):
        parse_heads(text)
