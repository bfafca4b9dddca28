"""Pictures that move: every menu and button below them, in place for the person who asked, in private for others."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import discord
import pytest

from bot.gpt2.questions import NextTokensQuestion, TokensQuestion
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.ui.limits import CHOICE_CHARACTERS, COMPONENTS, CUSTOM_ID_CHARACTERS
from bot.ui.literal import bold, literal
from bot.ui.readback import body
from tests.cogs.conftest import Server, components, labelled, texts
from tests.loopback import rules
from tests.programs.running import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simcord import MemberActor, ResponseMessage

    from bot.client import GPT2Client
    from bot.gpt2.local.engine import LocalEngine

PROMPT = "Hello, I'm a language model, Hello, I'm"
IN_PLACE = {"type": 6}
IN_PRIVATE = {"type": 5, "data": {"flags": 64}}
MOVES = ("move.", "menu.", "choose.")


def alt(message: ResponseMessage) -> str:
    (item,) = (item for each in components(message) if each["type"] == rules.GALLERY for item in each["items"])
    return str(item["description"])


def menus(message: ResponseMessage) -> dict[str, dict[str, str]]:
    """Return for each menu, by its title, the labels and values of its options."""
    found = (each for each in components(message) if each["type"] == rules.STRING_SELECT)
    return {each["placeholder"]: {option["label"]: option["value"] for option in each["options"]} for each in found}


def enabled(message: ResponseMessage) -> list[str]:
    """Return the labels of the buttons that can be pressed."""
    return [each["label"] for each in components(message) if each["type"] == rules.BUTTON and not each.get("disabled")]


def check_limits(message: ResponseMessage) -> None:
    """Check Discord's limits of what stands below a picture."""
    found = components(message)
    assert len(found) <= COMPONENTS
    assert sum(each["type"] == rules.ROW for each in found) <= 5
    ids = [each["custom_id"] for each in found if "custom_id" in each]
    assert len(set(ids)) == len(ids)
    assert all(len(each) <= CUSTOM_ID_CHARACTERS for each in ids)
    values = [value for options in menus(message).values() for value in options.values()]
    assert all(0 < len(value) <= CHOICE_CHARACTERS for value in values)
    assert [each.filename.endswith(".png") for each in message.attachments].count(True) == 1


async def press(
    server: Server, message: ResponseMessage, label: str, *, member: MemberActor | None = None
) -> ResponseMessage:
    """Press a button and return the message that answers it."""
    return await _moved(server, (member or server.member).click(message, custom_id=labelled(message, label)), message)


async def choose(
    server: Server, message: ResponseMessage, menu: str, label: str, *, member: MemberActor | None = None
) -> ResponseMessage:
    """Choose an option and return the message that answers it."""
    value = menus(message)[menu][label]
    (custom_id,) = (each["custom_id"] for each in components(message) if each.get("placeholder") == menu)
    done = (member or server.member).select(message, [value], custom_id=custom_id)
    return await _moved(server, done, message)


async def _moved(server: Server, pressed: Any, message: ResponseMessage) -> ResponseMessage:
    result = await pressed
    if server.acknowledgements[-1] == IN_PLACE:
        check_limits(message)
        return message
    assert server.acknowledgements[-1] == IN_PRIVATE
    check_limits(result.response)
    return result.response  # type: ignore[no-any-return]


async def png(message: ResponseMessage) -> bytes:
    (picture,) = (each for each in message.attachments if each.filename.endswith(".png"))
    content: bytes = await picture.read()
    return content


async def test_heads_are_walked_in_place(server: Server, engine: LocalEngine, simcord_bot: GPT2Client) -> None:
    asked: list[Any] = []
    introspect = engine.introspect

    async def counted(question: Any, **rest: Any) -> Any:
        asked.append(question)
        return await introspect(question, **rest)

    engine.introspect = counted  # type: ignore[method-assign]
    message = (await server.slash("attention grid", prompt=PROMPT)).response
    check_limits(message)
    notable = next(iter(menus(message)["Open a notable head"]))
    layer, head = re.findall(r"^(\d)\.(\d) · previous token \d+%$", notable)[0]
    moved = await choose(server, message, "Open a notable head", notable)
    assert moved is message
    assert alt(message).startswith(f"Layer {layer}, head {head}")
    await choose(server, message, "Open a layer", "Layer 2")
    await choose(server, message, "Head", "Head 3")
    await press(server, message, "Remove first token")
    assert alt(message).startswith("Layer 2, head 3")
    other = (await server.slash("attention head", prompt=PROMPT, layer=2, head=3, sink="removed")).response
    assert await png(other) == await png(message)
    assert texts(other) == texts(message)
    await press(server, message, "Show first token")
    await press(server, message, "All heads")
    assert alt(message).startswith("Attention maps of 12 heads")
    await choose(server, message, "See this text another way", "Tokens")
    assert alt(message).startswith("Text split into")
    program = (await server.member.click(message, custom_id=labelled(message, "Show code"))).response
    assert f'text = "{PROMPT}"' in texts(program)[1]
    assert len(asked) == 2, "attention once, tokens once"


async def test_a_stranger_gets_a_picture_that_moves(server: Server) -> None:
    bob = server.member.guild.add_member(server.env.create_user("bob"))
    message = (await server.slash("attention head", prompt=PROMPT, layer=1, head=1)).response
    before = await png(message)
    private = await choose(server, message, "Open a layer", "Layer 2", member=bob)
    assert private.ephemeral
    assert alt(private).startswith("Layer 2, head 1")
    assert (await png(message), alt(message)[:15]) == (before, "Layer 1, head 1")
    moved = await choose(server, private, "Head", "Head 4", member=bob)
    assert moved is private
    assert alt(private).startswith("Layer 2, head 4")
    assert server.acknowledgements[-1] == IN_PLACE


@pytest.mark.parametrize(
    ("custom_id", "sentence"),
    [
        ("move.1:0:head.1:zz:1:1:raw", "made with a different model; I now run tiny-gpt2"),
        ("move.1:0:positional.1:zz:helix::%3A:clear", "made with a different model"),
        ("move.1:0:head.7:1", "from an older version of me"),
        ("move.1:0:future.1:1", "from an older version of me"),
        ("move.1:0", "from an older version of me"),
        ("move.2:0:head.1", "from an older version of me"),
    ],
)
async def test_a_move_that_is_refused_leaves_the_picture(
    server: Server, simcord_bot: GPT2Client, custom_id: str, sentence: str
) -> None:
    await server.env.settle()
    view = discord.ui.LayoutView()
    view.add_item(discord.ui.ActionRow(discord.ui.Button(label="Move", custom_id=custom_id)))
    message = await simcord_bot.get_channel(server.channel.id).send(view=view)
    answer = (await server.member.click(message, custom_id=custom_id)).response
    assert answer.ephemeral
    assert sentence in answer.content


async def test_buttons_of_version_0_1_still_show_their_code(server: Server) -> None:
    for command, options, older in (
        ("lens", {"prompt": PROMPT}, r"lens.1:\g<model>"),
        ("tokens surprise", {"text": PROMPT}, r"surprise.1:\g<model>"),
        ("tokens next", {"prompt": PROMPT, "top_k": 3}, r"next.1:\g<model>:1.0:3:1.0"),
        ("weights matrix", {"name": "wpe"}, r"matrix.1:\g<model>:transformer.wpe.weight:0%3A128:0%3A32:clear"),
    ):
        message = (await server.slash(command, **options)).response
        (button,) = (each for each in message._message.components[-1]["components"] if each["label"] == "Show code")
        now = texts((await server.member.click(message, custom_id=button["custom_id"])).response)[1]
        button["custom_id"] = re.sub(r"^[a-z]+\.2:(?P<model>\w+):.*", older, button["custom_id"])
        assert ".1:" in button["custom_id"]
        then = texts((await server.member.click(message, custom_id=button["custom_id"])).response)[1]
        assert then == now


async def test_a_long_text_is_seen_window_by_window(server: Server, engine: LocalEngine) -> None:
    text = "theatre of thoughts, " * 5
    tokens = len(await engine.introspect(TokensQuestion(text)))
    message = (await server.slash("lens", prompt=text)).response
    assert f"Showing the last 10 of {tokens} tokens." in texts(message)[1]
    seen = [range(tokens - 10, tokens)]
    while "Earlier" in enabled(message):
        await press(server, message, "Earlier")
        first, last = map(int, re.findall(r"Showing tokens (\d+) to (\d+) of", texts(message)[1])[0])
        seen.append(range(first - 1, last))
    assert {position for window in seen for position in window} == set(range(tokens))
    assert all(len(window) == 10 for window in seen)
    program = (await server.member.click(message, custom_id=labelled(message, "Show code"))).response
    assert "[:, 0:10]" in texts(program)[1]
    while "Later" in enabled(message):
        await press(server, message, "Later")
    assert f"Showing the last 10 of {tokens} tokens." in texts(message)[1]


async def test_surprise_moves_back_and_forth(server: Server) -> None:
    message = (await server.slash("tokens surprise", text="\n".join("of" for _ in range(40)))).response
    numbers = texts(message)[1].split("\n")[0]
    ((shown, tokens),) = re.findall(r"Showing the last (\d+) of (\d+) tokens", texts(message)[1])
    seen = set(range(int(tokens) - int(shown), int(tokens)))
    for direction in ("Earlier", "Later"):
        while direction in enabled(message):
            await press(server, message, direction)
            assert texts(message)[1].split("\n")[0] == numbers, "the numbers stay those of the whole text"
            window = re.findall(r"Showing tokens (\d+) to (\d+) of \d+; the numbers are of all", texts(message)[1])
            seen.update(position for first, last in window for position in range(int(first) - 1, int(last)))
        assert seen == set(range(int(tokens)))
    assert "Showing the last" in texts(message)[1]


async def test_a_text_is_written_token_by_token(server: Server, engine: LocalEngine, tiny_model: Any) -> None:
    prompt = "Hello, I'm a language model,"
    message = (await server.slash("tokens next", prompt=prompt, temperature=0.8, top_k=5)).response
    assert "Undo" not in enabled(message)
    pieces: list[bytes] = []
    for _ in range(3):
        answer = await engine.introspect(NextTokensQuestion(prompt, written=tuple(pieces)))
        # The tiny model also offers bytes that are no text, and the others have labels of their own.
        place = next(place for place, piece in enumerate(answer.candidates.pieces) if piece.isalpha())
        await choose(server, message, "Write a token", list(menus(message)["Write a token"])[place])
        pieces.append(answer.candidates.pieces[place])
    written = b"".join(pieces).decode()
    assert texts(message)[0] == f"-# What GPT-2 reads\n{bold(prompt)}{literal(written)}"
    assert body(texts(message)[0]) == prompt + written
    program = texts((await server.member.click(message, custom_id=labelled(message, "Show code"))).response)[1]
    assert run(program.removeprefix("```py\n").removesuffix("```"), tiny_model).figure
    assert "the tokens that were written after the prompt" in program
    await press(server, message, "Undo")
    await press(server, message, "Undo")
    assert body(texts(message)[0]) == prompt + pieces[0].decode()


async def test_gpt2_draws_what_its_seed_gives(server: Server, engine: LocalEngine) -> None:
    prompt, written = "Hello, I'm a language model,", "\ufffd"
    while "\ufffd" in written:  # a byte of a character, which can be neither read back nor undone
        message = (await server.slash("tokens next", prompt=prompt, temperature=0.8, top_k=40)).response
        await press(server, message, "Let GPT-2 draw")
        ((share, seed),) = re.findall(r"GPT-2 drew “.*” \(([\d.]+)%\) with seed (\d+)\.", texts(message)[-1])
        params = SamplingParams(int(seed), samples=1, length=1, temperature=0.8, top_k=40)
        written = (await engine.continuation(ContinuationRequest(prompt, params))).samples[0].text
    assert body(texts(message)[0]) == prompt + written
    assert 0 < float(share) <= 100
    await press(server, message, "Undo")
    assert body(texts(message)[0]) == prompt


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("weights positional", {"view": "lines", "dims": "3,5"}),
        ("weights attention", {"layer": 1}),
        ("weights matrix", {"name": "wte", "rows": "100:200", "columns": "8:16"}),
        ("weights matrix", {"name": "h.1.mlp.c_fc.bias", "rows": "0:32"}),
        ("tokens split", {"text": PROMPT}),
    ],
    ids=str,
)
async def test_every_control_leads_to_a_picture(server: Server, command: str, options: dict[str, Any]) -> None:
    message = (await server.slash(command, **options)).response
    check_limits(message)
    home = copy.deepcopy(message._message.components)
    for each, value in list(_presses(message)):
        message._message.components = copy.deepcopy(home)  # Discord's copy: as if each were pressed first
        if value is None:
            pressed = server.member.click(message, custom_id=each["custom_id"])
        else:
            pressed = server.member.select(message, [value], custom_id=each["custom_id"])
        assert await _moved(server, pressed, message) is message
        assert message._message.components != home
        assert len(alt(message)) > 20
    assert not server.env.errors


def _presses(message: ResponseMessage) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield every component that moves, a menu once for each of its options."""
    for each in components(message):
        if not each.get("custom_id", "").startswith(MOVES) or each.get("disabled"):
            continue
        for option in each.get("options") or [{"value": None}]:
            yield each, option["value"]


async def test_a_window_moves_over_a_matrix(server: Server) -> None:
    message = (await server.slash("weights matrix", name="wte", rows="100:200", columns="8:16")).response
    for label, bracket in (
        ("Up", "[0:100, 8:16]"),
        ("Down", "[100:200, 8:16]"),
        ("Left", "[100:200, 0:8]"),
        ("Right", "[100:200, 8:16]"),
        ("Zoom out", "[0:300, 0:32]"),
        ("Zoom in", "[100:200, 8:16]"),
    ):
        await press(server, message, label)
        program = texts((await server.member.click(message, custom_id=labelled(message, "Show code"))).response)[1]
        assert bracket in program or label == "Zoom out"
    assert "Layer after" not in enabled(message)
    bias = (await server.slash("weights matrix", name="h.0.mlp.c_fc.bias")).response
    assert "Layer before" not in enabled(bias)
    await press(server, bias, "Layer after")
    assert "transformer.h.1.mlp.c_fc.bias" in texts(bias)[0].replace("\\", "")


async def test_a_sample_is_looked_into(server: Server) -> None:
    asked = await server.slash("continue", prompt=PROMPT, samples=2, length=5, seed=1)
    message = asked.response
    options = menus(message)["Look inside"]
    assert list(options.values()) == [
        f"{n}:{view}" for n in (1, 2) for view in ("attention", "surprise", "lens", "tokens")
    ]
    bob = server.member.guild.add_member(server.env.create_user("bob"))
    for label, words in (
        ("Sample 2 · Attention of all heads", "Attention maps of"),
        ("Sample 1 · Surprise of each token", "Text coloured by surprise"),
        ("Sample 2 · What each layer would say next", "Logit lens"),
        ("Sample 1 · Tokens", "Text split into"),
    ):
        private = await choose(server, message, "Look inside", label, member=bob)
        assert private.ephemeral
        assert alt(private).startswith(words)
        assert body(texts(private)[0]).startswith(PROMPT)
        assert await choose(server, private, "See this text another way", "Next token", member=bob) is private
        assert server.acknowledgements[-1] == IN_PLACE


async def test_ten_samples_are_looked_into_one_by_one(server: Server) -> None:
    message = (await server.slash("continue", prompt=PROMPT * 9, samples=10, length=2, seed=1, top_k=0)).response
    options = menus(message)["Look inside"]
    assert len(components(message)) <= COMPONENTS
    assert list(options)[:10] == [f"Sample {number}" for number in range(1, 11)]
    private = await choose(server, message, "Look inside", "Sample 10")
    assert alt(private).startswith("Attention maps of")
    for label, words in (("Insights", "Samples coloured by surprise: 10"), ("Show code", "")):
        if label not in options:
            continue
        custom_id = next(each["custom_id"] for each in components(message) if each.get("placeholder") == "Look inside")
        answer = (await server.member.select(message, [options[label]], custom_id=custom_id)).response
        assert answer.ephemeral
        assert not words or alt(answer).startswith(words)
