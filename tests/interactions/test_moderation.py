"""What the classifier says, and what docs/hosting.md says of it."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bot.client import GPT2Client
from bot.errors import InvalidInputError, NotInstalledError
from bot.gpt2.requests import Continuation, ContinuationRequest, Progress, Sample, SamplingParams
from bot.interactions.moderation import WINDOW_WORDS, Moderation, windows
from bot.ui.literal import literal
from bot.ui.locales import Catalogue
from cogs import COGS
from tests.cogs.conftest import server as server  # noqa: PLC0414 # a fixture
from tests.cogs.conftest import texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot.config import SafetyMode
    from bot.figures import Renderer
    from bot.gpt2.local.engine import LocalEngine
    from tests.cogs.conftest import Server

CLEAN = " ".join(["The old man walked slowly along the wall and thought of letters."] * 12)


@pytest.fixture(scope="module")
def moderation() -> Iterator[Moderation]:
    moderation = Moderation("hide")
    yield moderation
    moderation.close()


async def test_swearing_is_found_and_plain_text_is_not(moderation: Moderation) -> None:
    texts = ("Shit happens", "Hello, I'm a language model", "go fuck yourself", "")
    assert await moderation.classify(texts) == (True, False, True, False)


async def test_a_text_that_grows_is_blurred_or_refused(moderation: Moderation) -> None:
    with pytest.raises(InvalidInputError, match="Choose another token"):
        await moderation.blurs_written(" go fuck yourself")
    assert not await moderation.blurs_written(" walked slowly")
    moderation.mode = "spoiler"
    try:
        assert await moderation.blurs_written(" go fuck yourself")
    finally:
        moderation.mode = "hide"


@pytest.mark.parametrize("place", ["{bad} {clean}", "{clean} {bad}", "{clean} {bad} {clean}"])
async def test_a_bad_word_counts_among_many_others(moderation: Moderation, place: str) -> None:
    assert await moderation.classify([place.format(bad="fuck you", clean=CLEAN), CLEAN]) == (True, False)


@pytest.mark.parametrize(
    ("text", "offensive"),
    [
        ("What the hell is going on?", True),
        ("The bitch had four puppies", True),
        ("All of them should be exterminated", False),
        ("Women belong in the kitchen", False),
        ("f u c k", False),
        ("puta madre", False),
    ],
)
async def test_it_errs_as_the_docs_say(moderation: Moderation, text: str, *, offensive: bool) -> None:
    assert await moderation.classify([text]) == (offensive,)


@pytest.mark.parametrize("text", ["\ud83d", "\x00", "🎭" * 500, "日本語", "a" * 10_000, "a " * 10_000])
async def test_any_text_can_be_judged(moderation: Moderation, text: str) -> None:
    assert await moderation.classify([text]) in {(True,), (False,)}


async def test_nothing_is_judged_where_it_is_off() -> None:
    before = threading.active_count()
    moderation = Moderation()
    assert await moderation.classify(["Shit happens", "a"]) == (False, False)
    assert await moderation.classify([]) == ()
    assert threading.active_count() == before
    moderation.close()


def test_a_missing_extra_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(NotInstalledError, match=r"SAFETY needs its extra: python -m pip install"):
        Moderation("spoiler")


def test_windows_cover_every_pair_of_words() -> None:
    words = [str(number) for number in range(57)]
    pieces = [piece.split() for piece in windows(" ".join(words))]
    assert {word for piece in pieces for word in piece} == set(words)
    assert all(len(piece) <= WINDOW_WORDS for piece in pieces)
    for pair in itertools.pairwise(words):
        assert any(set(pair) <= set(piece) for piece in pieces)
    assert windows("") == [""]


PROMPT = "Hello, I'm a language model,"


@pytest.fixture(params=["spoiler", "hide"])
def mode(request: pytest.FixtureRequest) -> SafetyMode:
    mode: SafetyMode = request.param
    return mode


@pytest.fixture
def simcord_bot(
    engine: LocalEngine,
    renderer: Renderer,
    mode: SafetyMode,
    translated_once: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[GPT2Client]:
    """Return a bot whose classifier finds every sample offensive, since the tiny model writes noise."""
    monkeypatch.setattr("bot.interactions.moderation.THRESHOLD", 0.0)
    moderation = Moderation(mode)
    yield GPT2Client(engine, renderer, Catalogue.shipped(), COGS, moderation=moderation, shard_count=1)
    moderation.close()


async def test_offensive_samples_are_veiled_before_anybody_sees_them(
    server: Server, engine: LocalEngine, mode: SafetyMode
) -> None:
    result = await server.slash("continue", prompt=PROMPT, seed=42, samples=3, length=60)
    written = (await engine.continuation(ContinuationRequest(PROMPT, SamplingParams(42, samples=3, length=60)))).samples
    sent = [call.json for call in server.env.http_requests if call.method == "PATCH"]
    assert sent
    for message in sent:
        shown = json.dumps(message, ensure_ascii=False)
        (container,) = message["components"]
        if mode == "hide":
            assert not container["spoiler"]
            assert not any(
                json.dumps(literal(sample.text[:20]), ensure_ascii=False)[1:-1] in shown for sample in written
            )
        elif "tokens/s" in shown:
            assert container["spoiler"]
    said = "\n".join(texts(result.response))
    assert said.count("My operator's filter found this sample offensive, so it is hidden.") == (
        3 if mode == "hide" else 0
    )
    assert (literal(written[0].text) in said) == (mode == "spoiler")


async def test_a_veiled_sample_can_be_gone_on_from(server: Server, mode: SafetyMode) -> None:
    result = await server.slash("continue", prompt=PROMPT, seed=42, samples=1, length=3)
    pressed = await server.member.click(result.response.message, label="Continue")
    assert "tokens/s" in texts(pressed.response)[-1]


@pytest.mark.parametrize("mode", ["spoiler"], indirect=True)
@pytest.mark.parametrize("label", ["Continue", "Re-roll", "Edit"])
async def test_continuations_of_a_blurred_sample_are_blurred(
    server: Server, engine: LocalEngine, simcord_bot: GPT2Client, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    asked = ContinuationRequest(PROMPT, SamplingParams(42, samples=1, length=12))
    (sample,) = (await engine.continuation(asked)).samples
    offensive = max(sample.text.split(), key=len)
    # Of all words that are ever written here, this one alone.
    monkeypatch.setattr("bot.interactions.moderation.THRESHOLD", 0.8)
    monkeypatch.setattr(
        simcord_bot.moderation, "_probabilities", lambda pieces: [float(offensive in piece) for piece in pieces]
    )
    person = await server.slash("continue", prompt=f"{PROMPT} {offensive}", seed=1, samples=1, length=2)
    assert not person.response.components[0]["spoiler"], "what people write is not judged"
    again = await server.member.click(person.response.message, label="Re-roll")
    assert not again.response.components[0]["spoiler"], "nor when it is asked for again"

    first = await server.slash("continue", prompt=PROMPT, seed=42, samples=1, length=12)
    assert first.response.components[0]["spoiler"]
    further = await server.member.click(first.response.message, label="Continue")
    assert literal(offensive) in "\n".join(texts(further.response))
    if label == "Edit":
        form = await server.member.click(further.response.message, label="Edit")
        fields = [part["component"] for part in form.modal["components"]]
        result = await server.member.submit_modal(form, {each["custom_id"]: each.get("value", "") for each in fields})
    else:
        result = await server.member.click(further.response.message, label=label)
    for answer in (further, result):
        assert answer.response.components[0]["spoiler"]


async def test_a_moderated_ticket_is_still_a_ticket(engine: LocalEngine, mode: SafetyMode) -> None:
    moderation = Moderation(mode)
    request = ContinuationRequest("Hello", SamplingParams(1, samples=10, length=100))
    ticket = moderation.moderate(await engine.submit(request))
    assert ticket.request == request
    async for update in ticket.updates():
        if isinstance(update, Progress) and any(update.token_ids):
            ticket.stop()
    assert (await ticket.result()).stopped
    ticket.abandon()
    moderation.close()


@pytest.mark.parametrize(("chosen", "text", "veil"), [("spoiler", "Shit happens", "blurred"), ("hide", "", "hidden")])
async def test_only_the_offensive_sample_is_veiled(chosen: SafetyMode, text: str, veil: str) -> None:
    clean = Sample((1,), "Good things happen", ended=True)
    both = Continuation(
        ContinuationRequest("a", SamplingParams(1)), 1, (Sample((2,), "Shit happens", ended=False), clean), 1.0
    )
    moderation = Moderation(chosen)
    bad, good = (await moderation.moderate_continuation(both)).samples
    assert (bad.text, bad.veil) == (text, veil)
    assert good == clean
    moderation.close()
