"""/attention, /tokens, /lens and /compare through the real client: a picture, words for it, and what it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord
import pytest

from bot.gpt2.questions import AttentionQuestion, InductionQuestion
from bot.ui.limits import LAYOUT_CHARACTERS, length
from bot.ui.literal import bold
from tests.cogs.conftest import Server, labelled, texts
from tests.cogs.test_weights import image
from tests.programs.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from simcord import ResponseMessage

    from bot.client import GPT2Client
    from bot.gpt2.local.engine import LocalEngine

PROMPT = "Hello, I'm a language model,"
UGLY = (
    "@everyone <@123456789012345678> **x** `y`",
    "```\ncode\n```",
    "日本語 🎭 العربية \u202eabc\u202c \u200bzero",
    "$x^{$ \\frac",
    "half a surrogate \ud83d",
    "<|endoftext|> and more",
    "\x01\x02 control\x07",
    "x " * 60,
)
OF_A_PROMPT: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("attention grid", {"prompt": PROMPT}, "Attention maps of 12 heads"),
    ("attention grid", {"prompt": PROMPT, "sink": "removed"}, "Attention maps of 12 heads"),
    ("attention head", {"prompt": PROMPT, "layer": 2, "head": 3}, "Layer 2, head 3"),
    ("attention head", {"prompt": PROMPT, "layer": 2, "head": 3, "sink": "removed"}, "Layer 2, head 3"),
    ("tokens split", {"text": PROMPT}, "Text split into"),
    ("tokens next", {"prompt": PROMPT}, "Next token:"),
    ("tokens next", {"prompt": PROMPT, "temperature": 0.0, "top_k": 3, "top_p": 0.5}, "Next token:"),
    ("tokens surprise", {"text": PROMPT}, "Text coloured by surprise"),
    ("lens", {"prompt": PROMPT}, "Logit lens of 3 layers"),
    ("ablate", {"prompt": PROMPT, "layer": 2, "head": 3}, "Without heads 2.3 (layer.head)"),
    ("ablate", {"prompt": PROMPT, "layer": 1, "head": 1, "heads": "3.2, 1.1 2.4"}, "Without heads 1.1, 2.4, 3.2"),
)


def gallery(message: ResponseMessage) -> dict[str, Any]:
    (item,) = (item for part in message.components[0]["components"] if part["type"] == 12 for item in part["items"])
    return item


async def check_picture(server: Server, message: ResponseMessage, alt: str) -> None:
    """Check that a message is public, has one picture with alt text, and keeps Discord's limits."""
    assert server.acknowledgements[-1] == {"type": 5}, "acknowledged at once, for all to see"
    assert not message.ephemeral
    assert gallery(message)["description"].startswith(alt)
    assert len(gallery(message)["description"]) <= 256
    assert sum(map(length, texts(message))) <= LAYOUT_CHARACTERS
    pictures = [each for each in message.attachments if each.filename.endswith(".png")]
    assert len(pictures) == 1
    assert pictures[0].description.startswith(alt)


def button(message: ResponseMessage) -> str:
    """Return the custom_id of the button that shows the program behind a picture."""
    return labelled(message, "Show code")


async def program(message: ResponseMessage) -> str:
    """Return the program in a message, or in the file of one that is too long."""
    if message.attachments:
        return (await message.attachments[0].read()).decode()
    return texts(message)[1].removeprefix("```py\n").removesuffix("```")


@pytest.mark.parametrize(("command", "options", "alt"), OF_A_PROMPT, ids=str)
async def test_a_picture_comes_with_its_words_and_its_program(
    server: Server, tiny_model: Path, command: str, options: dict[str, Any], alt: str
) -> None:
    message = (await server.slash(command, **options)).response
    await check_picture(server, message, alt)
    assert (await image(message)).width == 1649
    prompt, caption = texts(message)
    assert prompt == f"-# What GPT-2 reads\n{bold(PROMPT)}"
    assert caption.count("\n-# ") >= 1
    answer = (await server.member.click(message, custom_id=button(message))).response
    assert answer.ephemeral
    shown = await program(answer)
    assert f'"{PROMPT}"' in shown
    done = run(shown, tiny_model)
    assert done.figure or done.printed


async def test_a_head_is_silenced_below_its_picture(server: Server) -> None:
    message = (await server.slash("attention head", prompt=PROMPT, layer=2, head=3)).response
    answer = (await server.member.click(message, custom_id=labelled(message, "Silence this head"))).response
    assert not answer.ephemeral
    assert gallery(answer)["description"].startswith("Without heads 2.3 (layer.head): next token")
    assert texts(answer)[0] == f"-# What GPT-2 reads\n{bold(PROMPT)}"
    code = (await server.member.click(answer, custom_id=button(answer))).response
    assert "heads = [(1, 2)]" in await program(code)


async def test_the_program_has_the_settings_and_both_prompts(server: Server) -> None:
    message = (await server.slash("tokens next", prompt=PROMPT, temperature=0.7, top_k=3, top_p=0.5)).response
    shown = await program((await server.member.click(message, custom_id=button(message))).response)
    assert "logits / 0.7" in shown
    assert "TopKLogitsWarper(3)" in shown
    message = (await server.slash("compare", first="one prompt", second="another")).response
    shown = await program((await server.member.click(message, custom_id=button(message))).response)
    assert shown.index('"one prompt"') < shown.index('"another"')
    message = (await server.slash("tokens induction", length=10, seed=3)).response
    shown = await program((await server.member.click(message, custom_id=button(message))).response)
    assert "manual_seed(3)" in shown


async def test_programs_contain_the_whole_prompt(server: Server) -> None:
    message = (await server.slash("attention grid", prompt="theatre of thoughts " * 20)).response
    answer = (await server.member.click(message, custom_id=button(message))).response
    assert (await program(answer)).count("theatre") == 20


async def press(server: Server, bot: GPT2Client, custom_id: str) -> str:
    """Press the button of a message without anything else, and return the sentence of the answer."""
    view = discord.ui.LayoutView()
    view.add_item(discord.ui.ActionRow(discord.ui.Button(label="Show code", custom_id=custom_id)))
    message = await bot.get_channel(server.channel.id).send(view=view)
    return (await server.member.click(message, custom_id=custom_id)).response.content


async def test_a_button_without_a_program_says_why(server: Server, simcord_bot: GPT2Client) -> None:
    message = (await server.slash("lens", prompt=PROMPT)).response
    assert "made with a different model; I now run tiny-gpt2" in await press(server, simcord_bot, "lens.1:zz")
    assert "can no longer read the prompt from this message" in await press(server, simcord_bot, button(message))


async def test_two_prompts_are_both_shown(server: Server) -> None:
    message = (await server.slash("compare", first=PROMPT, second="Hello, I'm a theatre")).response
    await check_picture(server, message, "Two prompts compared")
    assert texts(message)[:2] == [f"-# A\n{bold(PROMPT)}", "-# B\n**Hello, I'm a theatre**"]


async def test_induction_needs_no_prompt(server: Server, engine: LocalEngine) -> None:
    message = (await server.slash("tokens induction", length=10, seed=3)).response
    answer = await engine.introspect(InductionQuestion(10, 3))
    await check_picture(server, message, f"Induction: layer {answer.layer}, head {answer.head}")
    assert len(texts(message)) == 1


# Every ugly prompt under one command, and under every command the one that would ping.
@pytest.mark.parametrize(
    ("command", "option", "prompt"),
    [
        *(("tokens split", "text", prompt) for prompt in UGLY),
        ("attention grid", "prompt", UGLY[0]),
        ("attention grid", "prompt", UGLY[-1]),
        ("tokens next", "prompt", UGLY[0]),
        ("tokens surprise", "text", UGLY[0]),
        ("lens", "prompt", UGLY[0]),
    ],
    ids=ascii,
)
async def test_ugly_prompts_are_shown_as_written(server: Server, command: str, option: str, prompt: str) -> None:
    message = (await server.slash(command, **{option: prompt})).response
    written = prompt.replace("\ud83d", "\ufffd")
    assert texts(message)[0].removesuffix("\u200b") == f"-# What GPT-2 reads\n{bold(written)}"
    sent = [request.json for request in server.env.http_requests if request.method == "PATCH"][-1]
    assert sent["allowed_mentions"]["parse"] == []


async def test_a_long_prompt_is_shortened_and_attached(server: Server) -> None:
    prompt = "theatre of thoughts " * 20
    message = (await server.slash("attention grid", prompt=prompt)).response
    await check_picture(server, message, "Attention maps of 12 heads over 40 tokens")
    assert texts(message)[0].endswith("…**")
    assert length(texts(message)[0]) < 330
    (file,) = (each for each in message.attachments if each.filename == "prompt.txt")
    assert (await file.read()).decode() == prompt
    assert "The model was given only the last 40 of" in texts(message)[1]


async def test_the_menu_shows_attention_on_another_members_message(server: Server, engine: LocalEngine) -> None:
    bob = server.member.guild.add_member(server.env.create_user("bob"))
    written = await bob.send(server.channel, PROMPT)
    message = (await server.member.context_menu(server.channel, "Show attention", written)).response
    tokens = len((await engine.introspect(AttentionQuestion(PROMPT))).tokens)
    await check_picture(server, message, f"Attention maps of 12 heads over {tokens} tokens")
    assert bold(PROMPT) in texts(message)[0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "That message has no text to look at. Choose another one."),
        ("\u200b", "That message has no text to look at. Choose another one."),
        ("a", "The prompt is a single token, with nothing before it to look at. Write at least two words."),
    ],
    ids=ascii,
)
async def test_the_menu_refuses_a_message_without_text(server: Server, content: str, sentence: str) -> None:
    picture = [] if content else [("picture.png", b"not empty")]
    written = await server.member.send(server.channel, content, attachments=picture)
    result = await server.member.context_menu(server.channel, "Show attention", written)
    assert result.response.ephemeral
    assert result.response.content == sentence
    assert server.env.errors


async def test_the_menu_refuses_a_picture_of_ours(server: Server) -> None:
    ours = (await server.slash("attention grid", prompt=PROMPT)).response
    result = await server.member.context_menu(server.channel, "Show attention", ours.message)
    assert result.response.ephemeral
    assert result.response.content == "That message has no text to look at. Choose another one."
    assert server.env.errors


async def test_the_menu_shows_what_another_bot_has_written(server: Server) -> None:
    robot = server.member.guild.add_member(server.env.create_user("robot", bot=True))
    written = await robot.send(server.channel, PROMPT)
    message = (await server.member.context_menu(server.channel, "Show attention", written)).response
    await check_picture(server, message, "Attention maps of 12 heads")


@pytest.mark.parametrize(
    ("command", "options", "sentence"),
    [
        ("attention grid", {"prompt": "a"}, "The prompt is a single token"),
        ("attention grid", {"prompt": "\u200b"}, "The prompt is empty: write at least one word."),
        ("attention head", {"prompt": PROMPT, "layer": 4, "head": 1}, "There is no layer 4: tiny-gpt2 has 3"),
        (
            "attention head",
            {"prompt": PROMPT, "layer": 1, "head": 5},
            "There is no head 5: each layer of tiny-gpt2 has",
        ),
        ("tokens split", {"text": " "}, "The text is empty"),
        ("tokens surprise", {"text": "a"}, "The text is a single token"),
        ("tokens surprise", {"text": "€" * 50}, "The text has 150 tokens; at most 128 fit here. Shorten it."),
        ("tokens next", {"prompt": "\x01\x02"}, "The prompt is empty"),
        ("tokens next", {"prompt": "€" * 50}, "The prompt has 150 tokens; at most 128 fit here"),
        ("lens", {"prompt": "€" * 50}, "The prompt has 150 tokens; at most 128 fit here"),
        ("ablate", {"prompt": PROMPT}, "Name a head by layer and head, or several with heads, as in 7.1, 8.6."),
        ("ablate", {"prompt": PROMPT, "layer": 1}, "Name a head by layer and head"),
        ("ablate", {"prompt": PROMPT, "head": 1, "heads": "1.1"}, "Name a head by layer and head"),
        ("ablate", {"prompt": PROMPT, "heads": "7"}, "“7” can't be used: name heads as layer.head"),
        ("ablate", {"prompt": PROMPT, "heads": "1.1, 4.1"}, "There is no layer 4: tiny-gpt2 has 3"),
        ("ablate", {"prompt": PROMPT, "heads": ",".join(f"1.{n}" for n in range(1, 12))}, "from 1 to 10, not 11"),
        ("compare", {"first": "a", "second": "  "}, "The second prompt is empty"),
        ("compare", {"first": "\n", "second": "b"}, "The first prompt is empty"),
        ("compare", {"first": "a", "second": "€" * 50}, "The second prompt has 150 tokens"),
    ],
    ids=str,
)
async def test_invalid_requests_are_refused_in_private(
    server: Server, command: str, options: dict[str, Any], sentence: str
) -> None:
    assert sentence in await server.refusal(command, **options)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("tokens split", {"text": "a"}),
        ("tokens next", {"prompt": "a"}),
        ("lens", {"prompt": "a"}),
        ("compare", {"first": "a", "second": "b"}),
        ("compare", {"first": PROMPT, "second": PROMPT}),
        ("ablate", {"prompt": "a", "heads": ",".join(["1.1"] * 25)}),
        ("attention grid", {"prompt": "a b", "sink": "removed"}),
        ("attention head", {"prompt": "ab", "layer": 1, "head": 1, "sink": "removed"}),
    ],
    ids=str,
)
async def test_the_shortest_prompts_make_pictures(server: Server, command: str, options: dict[str, Any]) -> None:
    message = (await server.slash(command, **options)).response
    assert (await image(message)).format == "PNG"
