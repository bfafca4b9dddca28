"""The message that answers /continue, at Discord's limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.gpt2.requests import Continuation, ContinuationRequest, Loading, ModelInfo, Progress, Queued, Sample
from bot.ui.continuation import (
    Asked,
    ContinuationLayout,
    Edited,
    Insights,
    ProgressLayout,
    Stop,
    join_transcript,
    split_transcript,
    standing,
)
from bot.ui.forms import Ask
from bot.ui.limits import COMPONENTS, CUSTOM_ID_CHARACTERS, LAYOUT_CHARACTERS, length
from bot.ui.locales import Catalogue
from tests.loopback import rules

USER = 2**63 - 1
LONG_FLOATS = (0.30000000000000004, 1.0000000000000002, 2.2250738585072014e-308, 5e-324, 1.9999999999999998, 1 / 3)
CATALOGUE = Catalogue.shipped()

_texts = st.text(st.sampled_from("ab *_`\\\n\x07😀日-#.:/@<|"), max_size=900)


def model(name: str = "gpt2") -> ModelInfo:
    return ModelInfo(name, 12, 12, 768, 1024, 50257, 124_439_808, "cpu")


def walked(layout: Any) -> list[dict[str, Any]]:
    return [component for _, component in rules.walk(layout.to_components())]


def answered(request: ContinuationRequest, whole: str, texts: list[str]) -> tuple[Asked, Continuation]:
    samples = tuple(Sample((1,) * request.length, text, ended=True) for text in texts)
    return Asked(request, USER, whole), Continuation(request, 5, samples, 1.0, stopped=True)


def check(layout: Any) -> list[dict[str, Any]]:
    """What Discord asks of any message."""
    components = walked(layout)
    assert len(components) <= COMPONENTS
    shown = [component["content"] for component in components if component["type"] == rules.TEXT_DISPLAY]
    assert all(shown)
    assert sum(map(length, shown)) <= LAYOUT_CHARACTERS
    ids = [component["custom_id"] for component in components if "custom_id" in component]
    assert len(set(ids)) == len(ids)
    assert all(len(each) <= CUSTOM_ID_CHARACTERS for each in ids)
    return components


@settings(deadline=None, max_examples=60)
@given(
    prompt=_texts.filter(lambda text: text.strip(" \n\x07")),
    older=st.just("") | _texts,
    texts=st.lists(_texts, min_size=1, max_size=10),
    floats=st.sampled_from(LONG_FLOATS).flatmap(lambda one: st.tuples(st.just(one), st.sampled_from(LONG_FLOATS))),
    name=st.sampled_from(["gpt2", "*" * 300]),
    language=st.sampled_from(["en-US", *sorted(CATALOGUE.locales)]),
    late=st.booleans(),
)
def test_any_answer_fits(
    prompt: str, older: str, texts: list[str], floats: tuple[float, float], name: str, language: str, late: bool
) -> None:
    temperature, top_p = floats[0], min(floats[1], 1.0)
    request = ContinuationRequest(prompt, 2**32 - 1, len(texts), 200, temperature, 1000, top_p)
    translate = CATALOGUE.translate_to(language)
    asked, continuation = answered(request, older + prompt, texts)
    layout = ContinuationLayout(asked, continuation, model(name), translate, late=late)
    components = check(layout)
    assert layout.attached == any(component["type"] == rules.FILE for component in components)
    sections = [component for component in components if component["type"] == rules.SECTION]
    assert len(sections) == len(texts)
    progress = Progress(tuple((1,) for _ in texts), tuple(texts), 3.0)
    for update in (Loading(), Queued(200, 839.0), progress):
        check(ProgressLayout(asked, update, Stop(USER, 2**64 - 1), translate))


def test_the_largest_answer_has_forty_components_and_not_one_more() -> None:
    request = ContinuationRequest("€" * 6000, 1, 10, 200)
    asked, continuation = answered(request, "older " + request.prompt, ["word " * 400] * 10)
    assert len(check(ContinuationLayout(asked, continuation, model(), str))) == COMPONENTS


@pytest.mark.parametrize("temperature", LONG_FLOATS)
@pytest.mark.parametrize("top_p", [each for each in LONG_FLOATS if each <= 1])
def test_every_setting_fits_into_a_custom_id(temperature: float, top_p: float) -> None:
    most = (2**64 - 1, 2**32 - 1, 10, 200, temperature, 1000, top_p, 36**4 - 1, 36**4 - 1, 36**4 - 1)
    for action in (Insights(*most), Edited(*most), Ask(2**32 - 1, 10, 200, temperature, 1000, top_p, True)):
        assert len(action.custom_id) <= CUSTOM_ID_CHARACTERS


@given(heading=_texts, texts=st.lists(_texts | st.just("\n----- 2 -----\n"), min_size=1, max_size=10))
def test_a_transcript_is_read_back_exactly(heading: str, texts: list[str]) -> None:
    assert split_transcript(join_transcript(heading, texts)) == texts


@pytest.mark.parametrize("file", ["", "\n\n", "anything", "----- 1 -----\n"])
def test_what_is_no_transcript_has_no_texts(file: str) -> None:
    assert split_transcript(file) == []


@pytest.mark.parametrize(
    ("update", "sentence"),
    [
        (Loading(), "Waiting for the model, which is being loaded"),
        (Queued(3, 0.2), "Number 3 in the queue · about 1 s to go"),
        (Queued(3, 89.1), "Number 3 in the queue · about 90 s to go"),
        (Queued(40, 91.0), "Number 40 in the queue · about 2 min to go"),
        (Progress(((1, 2), (3,)), ("a", "b"), 4.4), "3 of 80 tokens · about 5 s to go"),
    ],
)
def test_how_it_is_getting_on_is_said_in_words(update: Any, sentence: str) -> None:
    assert str(standing(ContinuationRequest("a", 1, samples=2), update)) == sentence
