"""/continue through the real client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
import pytest

from bot.errors import UnavailableError
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.questions import TokensQuestion
from bot.gpt2.requests import ContinuationRequest, Queued, SamplingParams
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui.continuation import Written
from bot.ui.limits import LAYOUT_CHARACTERS, length
from bot.ui.literal import bold, literal
from cogs import continuations
from cogs.continuations import Continuations
from tests.cogs.conftest import Server, texts
from tests.loopback import rules

if TYPE_CHECKING:
    from bot.client import GPT2Client

PROMPT = "Hello, I'm a language model,"
UGLY_PROMPTS = (
    "@everyone <@123456789012345678> **x** `y`",
    "```\ncode\n```",
    "日本語 🎭 العربية \u202eabc\u202c \u200bzero",
    "$x^{$ \\frac",
    "half a surrogate \ud83d",
    "<|endoftext|>",
)


def json_texts(body: Any) -> list[str]:
    return [each["content"] for _, each in rules.walk(body["components"]) if each["type"] == rules.TEXT_DISPLAY]


async def test_samples_are_the_engines_own_in_one_public_message(server: Server, engine: LocalEngine) -> None:
    result = await server.slash("continue", prompt=PROMPT, seed=42)
    expected = await engine.continuation(ContinuationRequest(PROMPT, SamplingParams(42)))
    assert server.acknowledgements == [{"type": 5}], "acknowledged at once, for all to see"
    assert not result.response.ephemeral
    *samples, footer = texts(result.response)
    assert len(samples) == 5
    for shown, sample in zip(samples, expected.samples, strict=True):
        assert f"{bold(PROMPT)}{literal(sample.text)}" in shown
    assert "tiny-gpt2 · seed 42 · samples 5 · length 40 · temperature 1 · top_k 50 · top_p 1 · " in footer


async def test_every_option_reaches_the_engine(server: Server, engine: LocalEngine) -> None:
    options = {"samples": 2, "length": 12, "seed": 4294967295, "temperature": 0.7, "top_k": 9, "top_p": 0.95}
    result = await server.slash("continue", prompt=PROMPT, private=True, **options)
    expected = await engine.continuation(ContinuationRequest(PROMPT, SamplingParams(**options)))
    assert result.response.ephemeral
    *samples, footer = texts(result.response)
    assert [
        sample.text in shown or literal(sample.text) in shown
        for sample, shown in zip(expected.samples, samples, strict=True)
    ]
    assert "seed 4294967295 · samples 2 · length 12 · temperature 0.7 · top_k 9 · top_p 0.95" in footer


async def test_options_have_the_requests_defaults(simcord_bot: GPT2Client, server: Server) -> None:
    defaults = SamplingParams()
    parameters = {each.name: each.default for each in simcord_bot.tree.get_command("continue").parameters}
    for name in ("samples", "length", "temperature", "top_k", "top_p"):
        assert parameters[name] == getattr(defaults, name)


async def test_a_seed_is_drawn_and_shown_where_none_is_given(server: Server) -> None:
    footers = [texts((await server.slash("continue", prompt="a", samples=1, length=1)).response)[-1] for _ in range(3)]
    seeds = {footer.split("seed ")[1].split(" ")[0] for footer in footers}
    assert len(seeds) == 3


async def test_greedy_says_that_there_is_one_sample(server: Server) -> None:
    *samples, footer = texts((await server.slash("continue", prompt=PROMPT, temperature=0.0)).response)
    assert len(samples) == 1
    assert "every sample would be the same" in footer


@pytest.mark.parametrize("prompt", UGLY_PROMPTS)
async def test_ugly_prompts_come_back_as_written_and_ping_nobody(server: Server, prompt: str) -> None:
    result = await server.slash("continue", prompt=prompt, samples=2, length=3, seed=1)
    written = bold(prompt.replace("\ud83d", "\ufffd"))
    assert written in "\n".join(texts(result.response))
    sent = [request.json for request in server.env.http_requests if request.method == "PATCH"][-1]
    assert sent["allowed_mentions"]["parse"] == []
    message = result.response.message
    assert not message.mentions
    assert not message.mention_everyone


async def test_what_does_not_fit_is_shortened_and_attached_in_full(server: Server, engine: LocalEngine) -> None:
    prompt = "*" * 100
    result = await server.slash("continue", prompt=prompt, samples=10, length=28, seed=3, top_k=0)
    shown = texts(result.response)
    assert sum(map(length, shown)) <= LAYOUT_CHARACTERS
    expected = await engine.continuation(ContinuationRequest(prompt, SamplingParams(3, samples=10, length=28, top_k=0)))
    if result.response.attachments:
        whole = (await result.response.attachments[0].read()).decode()
        assert all(prompt + sample.text in whole for sample in expected.samples)
    else:
        assert all(literal(sample.text) in text for sample, text in zip(expected.samples, shown, strict=False))


async def test_without_a_prompt_a_form_asks_for_one(server: Server, engine: LocalEngine) -> None:
    asked = await server.slash("continue", seed=7, samples=2, length=5)
    assert asked.modal["title"] == "Continue a text with GPT-2"
    prompt = "two\nlines"
    result = await server.member.submit_modal(asked, {asked.modal["components"][0]["component"]["custom_id"]: prompt})
    expected = await engine.continuation(ContinuationRequest(prompt, SamplingParams(7, samples=2, length=5)))
    for shown, sample in zip(texts(result.response), expected.samples, strict=False):
        assert f"{bold(prompt)}{literal(sample.text)}" in shown


async def test_a_form_filled_with_spaces_is_refused_in_private(server: Server) -> None:
    asked = await server.slash("continue")
    field = asked.modal["components"][0]["component"]["custom_id"]
    result = await server.member.submit_modal(asked, {field: "   "})
    assert result.response.ephemeral
    assert result.response.content == "The prompt is empty: write at least one word."


@pytest.mark.parametrize("prompt", [" ", "\n\n", "\u200b\u2060"])
async def test_a_blank_prompt_is_refused(server: Server, prompt: str) -> None:
    assert "prompt is empty" in await server.refusal("continue", prompt=prompt)


async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(server: Server) -> None:
    refusal = await server.refusal("continue", prompt="\x01" * 100 + "x", length=40)
    assert "has 101 tokens" in refusal
    assert "at most 88 fit into tiny-gpt2's context of 128" in refusal


async def test_a_seed_that_is_not_given_comes_from_the_interaction_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So whoever answers the same interaction again gives the same words."""
    first = Continuations._answer

    async def twice(cog: Continuations, interaction: discord.Interaction, *request: Any, **how: Any) -> None:
        await first(cog, interaction, *request, **how)
        pending, payload = cog.client.pipeline.pending, Reply.of(interaction).payload
        Reply.resumed(interaction, payload, cog.client.catalogue, pending, private=False, age=0.0)
        await first(cog, interaction, *request, **how)  # as after a crash

    monkeypatch.setattr(Continuations, "_answer", twice)
    await server.slash("continue", prompt=PROMPT, samples=2, length=3)
    assert len(server.acknowledgements) == 1
    edits = [call for call in server.env.http_requests if call.method == "PATCH" and "@original" in call.path]
    once, again = ([shown for shown in json_texts(edit.json) if "tokens/s" not in shown] for edit in edits)
    assert once == again
    assert len(once) == 2


@pytest.mark.parametrize("private", [False, True])
async def test_a_request_that_fails_while_it_is_shown_leaves_a_private_word_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    async def shown_and_failed(ticket: Any, reply: Reply, show: Any, wait: Any) -> None:
        await reply.update(show(Queued(1, 2.0)))
        raise UnavailableError(say("Something went wrong while I computed this. Try again."))

    monkeypatch.setattr(continuations, "follow", shown_and_failed)
    result = await server.slash("continue", prompt=PROMPT, private=private)
    assert server.env.errors
    assert result.response is None
    (word,) = result.followups
    assert word.ephemeral
    assert word.content == "Something went wrong while I computed this. Try again."


@pytest.mark.parametrize("words", [("", ""), ("word", "")])
async def test_insights_leave_out_samples_without_a_word(
    server: Server, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    async def written(*_: Any) -> Written:
        return Written(PROMPT, words)

    answer = await server.slash("continue", prompt=PROMPT, samples=2, length=2)
    monkeypatch.setattr(continuations, "read_back", written)
    result = await server.member.click(answer.response, label="Insights")
    if any(words):
        assert "Empty samples are omitted." in "\n".join(texts(result.response))
    else:
        assert result.response.content == "There is nothing to look at: GPT-2 wrote nothing here."


async def test_insights_have_room_though_the_samples_fill_the_context(server: Server, engine: LocalEngine) -> None:
    """What was drawn as so many tokens may be more of them when it is read: half a character is three as U+FFFD."""
    prompt, length = "\x01" * 107 + "x", 20
    tokens = len(await engine.introspect(TokensQuestion(prompt)))
    assert tokens + length == (await engine.model()).context
    answer = await server.slash("continue", prompt=prompt, seed=1, samples=3, length=length, top_k=0)
    samples = (await engine.continuation(ContinuationRequest(prompt, SamplingParams(1, 3, length, top_k=0)))).samples
    assert max([len(await engine.introspect(TokensQuestion(sample.text))) for sample in samples]) > length
    result = await server.member.click(answer.response, label="Insights")
    assert result.response.attachments, result.response.content


async def test_a_message_is_continued_from_its_menu(server: Server) -> None:
    result = await server.member.context_menu(
        server.channel, "Continue with GPT-2", await server.member.send(server.channel, "Once *upon*")
    )
    assert all(bold("Once *upon*") in shown for shown in texts(result.response)[:-1])


async def test_it_works_in_direct_messages(server: Server) -> None:
    user = server.env.create_user("bob")
    result = await user.slash("continue", prompt="Hello", samples=1, length=2)
    assert texts(result.response)[0].startswith("-# 1\n**Hello**")
