"""Questions refuse what cannot be asked, where they are built."""

from __future__ import annotations

import pytest

from bot.errors import InvalidInputError
from bot.gpt2.questions import (
    AblationQuestion,
    AttentionQuestion,
    ComparisonQuestion,
    HeadQuestion,
    InductionQuestion,
    InsightsQuestion,
    LensQuestion,
    NextTokensQuestion,
    SurpriseQuestion,
    TokensQuestion,
)
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.writing import WritingQuestion

REQUEST = ContinuationRequest("a", SamplingParams(1, samples=2))
BLANK = ("", " ", "\n\t ", "\u200b\u2060", "\x00\x07")


@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_a_text_that_shows_nothing_is_refused_by_its_name(text: str) -> None:
    for ask in (AttentionQuestion, NextTokensQuestion, LensQuestion):
        with pytest.raises(InvalidInputError, match=r"^The prompt is empty: write at least one word\.$"):
            ask(text)
    for ask in (TokensQuestion, SurpriseQuestion):
        with pytest.raises(InvalidInputError, match=r"^The text is empty"):
            ask(text)
    with pytest.raises(InvalidInputError, match=r"^The prompt is empty"):
        HeadQuestion(text, 1, 1)
    with pytest.raises(InvalidInputError, match=r"^The prompt is empty"):
        InsightsQuestion(text, ("a",))
    with pytest.raises(InvalidInputError, match=r"^The first prompt is empty"):
        ComparisonQuestion(text, "a")
    with pytest.raises(InvalidInputError, match=r"^The second prompt is empty"):
        ComparisonQuestion("a", text)


def test_heads_are_a_set() -> None:
    assert AblationQuestion("a", ((8, 6), (7, 1), (8, 6))).heads == ((7, 1), (8, 6))


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    assert TokensQuestion("a\ud83d").text == "a\ufffd"
    assert ComparisonQuestion("\ud83d", "\udc4d").second == "\ufffd"
    assert SurpriseQuestion("a", "\ud83d").given == "\ufffd"
    assert InsightsQuestion("a", ("\ud83d",)).samples == ("\ufffd",)
    assert InsightsQuestion("a", ([1, 2],)).samples == ((1, 2),)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: NextTokensQuestion("a", SamplingParams(temperature=2.5)),
            "temperature must be from 0.0 to 2.0, not 2.5",
        ),
        (lambda: NextTokensQuestion("a", SamplingParams(top_k=-1)), "top_k must be from 0 to 1000"),
        (lambda: NextTokensQuestion("a", SamplingParams(top_p=float("nan"))), "top_p must be from 0 to 1"),
        (lambda: NextTokensQuestion("a", count=0), "count must be from 1 to 50"),
        (lambda: ComparisonQuestion("a", "b", count=51), "count must be from 1 to 50"),
        (lambda: AblationQuestion("a", ()), "The number of heads must be from 1 to 10, not 0"),
        (lambda: AblationQuestion("a", tuple((1, n) for n in range(11))), "must be from 1 to 10, not 11"),
        (lambda: WritingQuestion(REQUEST, 3), "sample must be from 1 to 2, not 3"),
        (lambda: WritingQuestion(REQUEST, most=41), "most must be from 1 to 40"),
        (lambda: LensQuestion("a", last=41), "last must be from 1 to 40"),
        (lambda: InductionQuestion(length=4), "length must be from 5 to 50"),
        (lambda: InductionQuestion(seed=-1), "seed must be from 0 to 4294967295"),
        (lambda: InsightsQuestion("a", ()), "samples must be from 1 to 10, not 0"),
        (lambda: TokensQuestion("a" * 6001), "The text has 6001 characters; at most 6000 fit"),
    ],
)
def test_what_is_out_of_range_is_refused(build: object, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        build()
