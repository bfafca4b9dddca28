"""/weights through the real client: the right slice, a real picture, words for it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import discord
import pytest
from PIL import Image

from bot.figures import DiskCache
from bot.ui import buttons
from bot.ui.code import model_checksum
from tests.cogs.conftest import Server, labelled, texts
from tests.programs.running import run
from tests.programs.test_source import model

if TYPE_CHECKING:
    from pathlib import Path

    from simcord import ResponseMessage

    from bot.client import GPT2Client
    from bot.figures import Renderer

PICTURES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("weights positional", {}, "transformer.wpe.weight"),
    ("weights positional", {"view": "lines"}, "transformer.wpe.weight"),
    ("weights positional", {"view": "lines", "dims": "3, 5", "positions": "10:20"}, "transformer.wpe.weight"),
    ("weights positional", {"positions": "16"}, "transformer.wpe.weight"),
    ("weights positional", {"view": "similarity"}, "transformer.wpe.weight"),
    ("weights positional", {"view": "helix", "positions": "100"}, "transformer.wpe.weight"),
    ("weights attention", {}, "transformer.h.1.attn.c_attn.weight"),
    ("weights attention", {"view": "heads", "layer": 1}, "transformer.h.0.attn.c_attn.weight"),
    ("weights attention", {"layer": 3, "rows": "4:9", "columns": "30:"}, "transformer.h.2.attn.c_attn.weight"),
    ("weights matrix", {"name": "transformer.h.0.mlp.c_fc.weight"}, "transformer.h.0.mlp.c_fc.weight"),
    ("weights matrix", {"name": "ln_f.bias"}, "transformer.ln_f.bias"),
    ("weights matrix", {"name": "wte", "rows": "7:8", "columns": "1"}, "transformer.wte.weight"),
    ("weights matrix", {"name": "h.0.attn.c_attn.bias", "rows": "5"}, "transformer.h.0.attn.c_attn.bias"),
)


def gallery(message: ResponseMessage) -> dict[str, Any]:
    (item,) = message.components[0]["components"][0]["items"]
    return item


async def image(message: ResponseMessage) -> Image.Image:
    (attachment,) = message.attachments
    picture = Image.open(io.BytesIO(await attachment.read()))
    picture.load()
    return picture


async def pictured(server: Server, command: str, options: dict[str, Any], parameter: str) -> ResponseMessage:
    """The answer: a picture with its description and a caption that names the parameter."""
    result = await server.slash(command, **options)
    assert server.acknowledgements[-1] == {"type": 5}, "acknowledged at once, for all to see"
    assert not result.response.ephemeral
    picture = await image(result.response)
    assert picture.format == "PNG"
    assert picture.width > picture.height > 300
    item = gallery(result.response)
    assert 20 < len(item["description"]) <= 256
    assert result.response.attachments[0].description.startswith(item["description"][:200])
    assert parameter in texts(result.response)[0].replace("\\", "")
    return result.response


# Heatmaps, lines and slices have the tutorial's style.
@pytest.mark.parametrize(("command", "options", "parameter"), [PICTURES[index] for index in (0, 1, 6, 10)], ids=str)
async def test_the_articles_picture_comes_with_words_for_it(
    server: Server, command: str, options: dict[str, Any], parameter: str
) -> None:
    await pictured(server, command, {"style": "article", **options}, parameter)


async def test_a_cached_picture_reads_no_weights(
    server: Server, renderer: Renderer, tiny_model: Path, tmp_path: Path
) -> None:
    renderer._disk_cache = DiskCache(tmp_path, 1_000_000, "1.0")
    first = await server.slash("weights matrix", name="wpe")
    renderer._writer.shutdown()  # it has written the picture
    renderer._cached.clear()  # as after a restart
    weights = tiny_model / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    try:
        second = await server.slash("weights matrix", name="wpe")
    finally:
        (tmp_path / "elsewhere").rename(weights)
    assert await first.response.attachments[0].read() == await second.response.attachments[0].read()
    assert texts(first.response) == texts(second.response)


async def test_the_same_picture_is_drawn_once(server: Server) -> None:
    first = await server.slash("weights positional")
    second = await server.slash("weights positional")
    assert await first.response.attachments[0].read() == await second.response.attachments[0].read()


def code_button(message: ResponseMessage) -> str:
    """Return the custom_id of the button that shows the program behind a picture."""
    return labelled(message, "Show code")


@pytest.mark.parametrize(("command", "options", "parameter"), PICTURES, ids=str)
async def test_a_picture_comes_with_its_words_and_its_program(
    server: Server, tiny_model: Path, command: str, options: dict[str, Any], parameter: str
) -> None:
    message = await pictured(server, command, options, parameter)
    result = await server.member.click(message, custom_id=code_button(message))
    assert result.response.ephemeral
    assert server.acknowledgements[-1] == {"type": 5, "data": {"flags": 64}}
    program = texts(result.response)[1].removeprefix("```py\n").removesuffix("```")
    assert f'"{parameter}"' in program
    assert run(program, tiny_model).figure


async def test_the_list_shows_its_program(server: Server, tiny_model: Path) -> None:
    message = (await server.slash("weights list", filter=" LN_1 ")).response
    result = await server.member.click(message, custom_id=code_button(message))
    printed = run(texts(result.response)[1].removeprefix("```py\n").removesuffix("```"), tiny_model).printed
    assert printed == (await message.attachments[0].read()).decode()


async def press(server: Server, bot: GPT2Client, custom_id: str) -> ResponseMessage:
    """Press a button that another process has posted."""
    view = discord.ui.LayoutView()
    view.add_item(discord.ui.ActionRow(discord.ui.Button(label="Show code", custom_id=custom_id)))
    message = await bot.get_channel(server.channel.id).send(view=view)
    return (await server.member.click(message, custom_id=custom_id)).response


TINY = buttons._in_base_36(model_checksum(model(name="tiny-gpt2")))


async def test_a_button_holds_all_that_its_program_needs(server: Server, simcord_bot: GPT2Client) -> None:
    message = (await server.slash("weights attention", layer=3, rows="4:9", columns="30:")).response
    custom_id = f"cattn.1:{TINY}:slice:3:4%3A9:30%3A96:clear"
    assert code_button(message) == custom_id
    answer = await press(server, simcord_bot, custom_id)
    assert "[4:9, 30:96]" in texts(answer)[1]


@pytest.mark.parametrize(
    ("custom_id", "sentence"),
    [
        ("cattn.1:zz:slice:3:4%3A9:30%3A96:clear", "made with a different model; I now run tiny-gpt2"),
        ("listed.1:zz:wpe", "made with a different model; I now run tiny-gpt2"),
        (f"cattn.1:{TINY}:slice:9:4%3A9:30%3A96:clear", "There is no layer 9"),
        (f"matrix.1:{TINY}:nowhere:::clear", "There is no parameter “nowhere”"),
        ("cattn.0:3", "from an older version of me"),
    ],
)
async def test_a_button_without_a_program_says_why(
    server: Server, simcord_bot: GPT2Client, custom_id: str, sentence: str
) -> None:
    await server.env.settle()
    answer = await press(server, simcord_bot, custom_id)
    assert answer.ephemeral
    assert sentence in answer.content


@pytest.mark.parametrize(
    ("command", "options", "sentence"),
    [
        ("weights matrix", {"name": "wpee"}, "Did you mean transformer.wpe.weight"),
        ("weights matrix", {"name": "wpe", "rows": "5:2"}, "rows “5:2” is empty"),
        ("weights matrix", {"name": "wpe", "rows": "abc"}, "rows “abc” is not a slice"),
        ("weights matrix", {"name": "wpe", "columns": "0:33"}, "this dimension has 32 entries, 0 to 31"),
        ("weights matrix", {"name": "ln_f.bias", "columns": "3"}, "has one dimension"),
        ("weights attention", {"view": "heads", "rows": "5"}, "leave out rows and columns"),
        ("weights attention", {"layer": 4}, "There is no layer 4: tiny-gpt2 has 3"),
        ("weights attention", {"rows": "-1:"}, "not a slice"),
        ("weights positional", {"view": "lines", "dims": "32"}, "whole numbers from 0 to 31"),
        ("weights positional", {"view": "lines", "dims": "0,1,2,3,4,5,6,7,8"}, "at most 8"),
        ("weights positional", {"positions": "129"}, "positions “129” is out of range: this dimension has 128 entries"),
        ("weights list", {"filter": "conv"}, "No parameter's name contains “conv”"),
        ("weights matrix", {"name": "**x** `y`"}, "There is no parameter “\\*\\*x\\*\\* \\`y\\`”"),
        ("weights matrix", {"name": "@everyone"}, "There is no parameter “\\@everyone”"),
    ],
    ids=str,
)
async def test_invalid_requests_are_refused_in_private(
    server: Server, command: str, options: dict[str, Any], sentence: str
) -> None:
    assert sentence in await server.refusal(command, **options)


async def test_names_complete_while_typing(server: Server) -> None:
    async def complete(typed: str) -> list[str]:
        result = await server.member.autocomplete(server.channel, "weights matrix", "name", typed)
        choices = result.autocomplete_choices if hasattr(result, "autocomplete_choices") else result
        return [choice["value"] for choice in choices]

    assert len(await complete("")) == 25
    assert await complete("h.1 c_attn w") == ["transformer.h.1.attn.c_attn.weight"]
    assert await complete("💥") == []


async def test_the_list_groups_layers_and_attaches_everything(server: Server) -> None:
    result = await server.slash("weights list")
    title, table, totals = texts(result.response)
    assert title == "**tiny-gpt2**: the state dict"
    assert "transformer.h.*.attn.c_attn.weight ×3 32×96 float32" in table
    assert totals.startswith("41 entries, 61,472 values (51,872 counting shared ones once)")
    printout = (await result.response.attachments[0].read()).decode().splitlines()
    assert len(printout) == 41
    assert printout[0] == "transformer.wte.weight torch.Size([300, 32])"


async def test_a_filtered_list_names_single_layers(server: Server) -> None:
    result = await server.slash("weights list", filter="h.1.ln_1")
    assert "transformer.h.1.ln_1.weight" in texts(result.response)[1]
    assert len((await result.response.attachments[0].read()).decode().splitlines()) == 2
