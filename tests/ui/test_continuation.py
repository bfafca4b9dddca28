"""The message that answers /continue, at Discord's limits."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from discord.components import _component_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.gpt2.model_info import ModelInfo
from bot.gpt2.requests import Continuation, ContinuationRequest, Loading, Progress, Queued, Sample, SamplingParams
from bot.gpt2.validation import has_visible_character, well_formed
from bot.ui.buttons import Action, OutdatedError
from bot.ui.continuation import (
    ContinuationLayout,
    ContinueSample,
    Insights,
    OwnedRequest,
    ProgressLayout,
    Reroll,
    Stop,
    SubmitEdit,
    Written,
    read_back,
    transcript,
)
from bot.ui.forms import SubmitPrompt
from bot.ui.limits import COMPONENTS, CUSTOM_ID_CHARACTERS, LAYOUT_CHARACTERS, length
from bot.ui.locales import Catalogue
from bot.ui.standing import standing
from bot.ui.transcript import join_transcript, split_transcript
from tests.loopback import rules

if TYPE_CHECKING:
    import discord

USER = 2**63 - 1
LONG_FLOATS = (0.30000000000000004, 1.0000000000000002, 2.2250738585072014e-308, 5e-324, 1.9999999999999998, 1 / 3)
CATALOGUE = Catalogue.shipped()

_texts = st.text(st.sampled_from("ab *_`\\\n\x07😀日-#.:/@<|"), max_size=900)

# What markdown, Discord's parser and Discord's trimming make something of, and what looks like the bot's own marks.
_NASTY = (
    *"*_~|`<>[]()#-+=&@:!.\\/ \n\t1a$^{}…␀",
    *("**", "||", "```", "```py\n", "\n\n", "\n \n", "\n-# ", "\n# ", "\n> ", "\n>>> ", "\n- ", "\n1. ", "\n---\n"),
    *("@everyone", "<@1>", "<:name:1>", "<t:0>", "<t:0:R>", "</continue:1>", "[text](https://x.y)", "discord.gg/x"),
    *("\\\\", "\\*", "\\n", "-# 1\n", "-# Prompt\n", "\n----- 2 -----\n", "<|endoftext|>", "$x^{$"),
    *("\r", "\r\n", "\x00", "\x07", "\x0b", "\x0c", "\x1b", "\x1c", "\x1f", "\x7f", "\x85", "\x9b"),
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e", "\u202e", "\u2066", "\u2028", "\u2029", "\u3000"),
    *(
        "\u0301",
        "\ufe0f",
        "😀",
        "👩\u200d🚀",
        "\U0001fae9",
        "日本語",
        "العربية",
        "\ud83d",
        "\ufffd",
        "\uffff",
        "\ue000",
    ),
)
_nasty = st.lists(st.sampled_from(_NASTY), max_size=30).map("".join).map(well_formed)
_samples = st.lists(_nasty | _nasty.map(lambda text: text * 20), min_size=1, max_size=10)


def model(name: str = "gpt2") -> ModelInfo:
    return ModelInfo(name, 12, 12, 768, 1024, 50257, 124_439_808, "cpu")


def walked(layout: Any) -> list[dict[str, Any]]:
    return [component for _, component in rules.walk(layout.to_components())]


def answered(
    request: ContinuationRequest, whole: str, texts: list[str], *, ended: bool = True
) -> tuple[OwnedRequest, Continuation]:
    samples = tuple(Sample((1,) * request.params.length, text, ended) for text in texts)
    return OwnedRequest(request, USER, whole), Continuation(request, 5, samples, 1.0, stopped=True)


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
    request = ContinuationRequest(prompt, SamplingParams(2**32 - 1, len(texts), 200, temperature, 1000, top_p))
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


def received(layout: ContinuationLayout, file: bytes) -> discord.Message:
    """The message as it comes back from Discord with a press of one of its buttons."""

    async def get_from_cdn(_: str) -> bytes:
        return file

    components = layout.to_components()
    for _, component in rules.walk(components):
        if component["type"] == rules.TEXT_DISPLAY:
            component["content"] = re.sub(r"\A[\s\ufeff\u180e]+|[\s\ufeff\u180e]+\Z", "", component["content"])
        if component["type"] == rules.FILE:
            component |= {"name": "continuation.txt", "size": len(file), "file": {"url": "x", "proxy_url": "x"}}
    message: Any = SimpleNamespace(
        id=1,
        attachments=[],
        components=[_component_factory(component) for component in components],
        _state=SimpleNamespace(http=SimpleNamespace(get_from_cdn=get_from_cdn)),
    )
    return message


@settings(deadline=None, max_examples=150)
@given(
    prompt=_nasty.filter(has_visible_character),
    older=st.just("") | _nasty,
    texts=_samples,
    ended=st.booleans(),
    name=st.sampled_from(["gpt2", "my_own*model*", "_" * 255]),
    language=st.sampled_from(["en-US", *sorted(CATALOGUE.locales)]),
)
def test_any_answer_is_read_back_exactly_by_each_of_its_buttons(
    prompt: str, older: str, texts: list[str], ended: bool, name: str, language: str
) -> None:
    whole, translate = older + prompt, CATALOGUE.translate_to(language)
    asked, continuation = answered(
        ContinuationRequest(prompt, SamplingParams(1, len(texts), 200)), whole, texts, ended=ended
    )
    layout = ContinuationLayout(asked, continuation, model(name), translate, late=True)
    shown = [component["content"] for component in check(layout) if component["type"] == rules.TEXT_DISPLAY]
    # Discord drops the others, or refuses the message.
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", "".join(shown))
    message = received(layout, transcript(asked, continuation, model(name), translate).fp.read())
    numbers = range(1, len(texts) + 1)
    actions = {each["custom_id"].partition(":") for each in walked(layout) if "custom_id" in each}
    encoded = {fields for kind, _, fields in actions if kind == "continue.1"}
    for button in (ContinueSample.decode("1", fields) for fields in encoded):
        written = asyncio.run(read_back(message, button))
        assert written == Written(whole, tuple(texts))
        assert written.prompt[button.unseen :] == prompt
        assert written.until(button.sample) == whole + texts[button.sample - 1]
    assert {ContinueSample.decode("1", fields).sample for fields in encoded} == set(numbers)


@pytest.mark.parametrize("name", ["gpt2", "_" * 255], ids=["gpt2", "the longest name of a folder"])
def test_the_largest_answer_has_forty_components_and_not_one_more(name: str) -> None:
    request = ContinuationRequest("€" * 6000, SamplingParams(1, 10, 200))
    asked, continuation = answered(request, "older " + request.prompt, ["word " * 400] * 10)
    assert len(check(ContinuationLayout(asked, continuation, model(name), str, late=True))) == COMPONENTS


def test_a_file_names_the_model_without_the_escapes_that_a_message_needs() -> None:
    asked, continuation = answered(ContinuationRequest("a", SamplingParams(1, 1, 200)), "a", ["b"])
    file = transcript(asked, continuation, model("my_model*"), str).fp.read().decode()
    assert file.startswith("my_model* · seed 1 · ")


@pytest.mark.parametrize("temperature", LONG_FLOATS)
@pytest.mark.parametrize("top_p", [each for each in LONG_FLOATS if each <= 1])
def test_every_setting_fits_into_a_custom_id(temperature: float, top_p: float) -> None:
    params = SamplingParams(2**32 - 1, 10, 200, temperature, 1000, top_p)
    most = (2**64 - 1, params, 36**4 - 1, 36**4 - 1, 36**4 - 1)
    for action in (Insights(*most), SubmitEdit(*most), SubmitPrompt(params, True)):
        assert len(action.custom_id) <= CUSTOM_ID_CHARACTERS


@pytest.mark.parametrize(
    ("custom_id", "action"),
    [
        (
            "continue.1:xrls1wq49ji:16:5:14:0.7:1e:0.95:s:3:rj:4",
            ContinueSample(123456789012345678, SamplingParams(42, 5, 40, 0.7, 50, 0.95), 28, 3, 991, 4),
        ),
        (
            "reroll.1:7:1z141z3:a:5k:1.0:0:1.0:4mo:0:1",
            Reroll(7, SamplingParams(2**32 - 1, 10, 200, 1, 0, 1), 6000, 0, 1),
        ),
        ("ask.1::5:14:1.0:1e:1.0:1", SubmitPrompt(SamplingParams(), True)),
    ],
)
def test_buttons_of_version_0_1_still_work(custom_id: str, action: Action) -> None:
    _, version, fields = re.fullmatch(r"(\w+)\.(\d+):(.*)", custom_id).groups()
    assert type(action).decode(version, fields) == action
    assert action.custom_id == custom_id


@pytest.mark.parametrize(
    "fields", ["1:2", "7:1z141z3:a:5k:1.0:0:1.0:4mo:0", "7:1z141z3:a:5k:1.0:0:1.0:4mo:0:1:1", "7:x:x:x:x:x:x:1:0:1", ""]
)
def test_a_damaged_button_is_outdated(fields: str) -> None:
    with pytest.raises(OutdatedError):
        Reroll.decode("1", fields)


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
    assert str(standing(ContinuationRequest("a", SamplingParams(1, samples=2)), update)) == sentence
