"""Several models in one bot, through the real client."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import pytest

from bot.client import GPT2Client
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.monitoring.health import readiness
from bot.monitoring.metrics import Metrics
from bot.ui.limits import COMPONENTS, LAYOUT_CHARACTERS, length
from bot.ui.literal import bold, literal
from bot.ui.locales import Catalogue
from cogs import COGS
from tests.cogs.conftest import Server, components, labelled, texts
from tests.cogs.test_moving import alt, choose, press
from tests.models import several
from tests.programs.running import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import simcord

    from bot.figures import Renderer
    from bot.gpt2.models import Models

PROMPT = "Hello, I'm a language model,"
OTHER = "other-gpt2"
WITH_MODEL = (
    "attention grid", "attention head", "tokens split", "tokens next", "tokens surprise", "tokens induction", "lens",
    "ablate", "compare", "weights positional", "weights attention", "weights matrix", "weights list", "continue",
)  # fmt: skip


@pytest.fixture
async def models(tiny_model: Path, other_model: Path) -> AsyncIterator[Models]:
    async with several(tiny_model, other_model) as models:
        yield models


@pytest.fixture
def simcord_bot(models: Models, renderer: Renderer, translated_once: None) -> GPT2Client:
    return GPT2Client(models.default, renderer, Catalogue.shipped(), COGS, models=models, shard_count=1)


async def written(folder: Path, seed: int, samples: int = 2, length: int = 8) -> list[str]:
    """Return the samples of a model that is alone."""
    engine = LocalEngine(str(folder), device="cpu", threads=1)
    try:
        await engine.start()
        request = ContinuationRequest(PROMPT, SamplingParams(seed, samples, length))
        return [sample.text for sample in (await engine.continuation(request)).samples]
    finally:
        await engine.close()


def shown(message: Any) -> str:
    return "\n".join(texts(message))


async def program_of(server: Server, message: Any) -> str:
    """Press **Show code** and return the program."""
    code = texts((await server.member.click(message, custom_id=labelled(message, "Show code"))).response)[1]
    return code.removeprefix("```py\n").removesuffix("```")


async def test_a_chosen_model_writes_its_own_words(server: Server, other_model: Path) -> None:
    result = await server.slash("continue", prompt=PROMPT, seed=42, samples=2, length=8, model=OTHER)
    for text in await written(other_model, 42):
        assert f"{bold(PROMPT)}{literal(text)}" in shown(result.response)
    assert "other-gpt2 · seed 42 · samples 2 · length 8" in shown(result.response)


async def test_the_default_model_answers_where_none_is_chosen(server: Server, models: Models) -> None:
    result = await server.slash("continue", prompt=PROMPT, seed=42, samples=2, length=8)
    assert "tiny-gpt2 · seed 42" in shown(result.response)
    assert not models.engines[OTHER].ready, "nobody asked for it"


async def test_every_command_about_a_model_has_the_option(simcord_bot: GPT2Client, simcord_env: simcord.Env) -> None:
    commands = {each.qualified_name: each for each in simcord_bot.tree.walk_commands()}
    having = [
        name for name, each in commands.items() if any(p.name == "model" for p in getattr(each, "parameters", ()))
    ]
    assert sorted(having) == sorted(WITH_MODEL)


async def test_with_one_model_the_commands_are_those_of_before(
    simcord_bot: GPT2Client, simcord_env: simcord.Env, models: Models, renderer: Renderer
) -> None:
    """A client with several models in the same process must not change them either."""
    client = GPT2Client(models.default, renderer, Catalogue.shipped(), COGS)
    for cog in COGS:
        await client.add_cog(cog(client))
    ours = json.dumps([dict(each.to_dict(client.tree)) for each in client.tree.get_commands(type=None)])
    assert '"model"' not in ours
    (compare,) = (each for each in client.tree.get_commands() if each.name == "compare")
    assert [(each.name, each.required) for each in compare.parameters] == [("first", True), ("second", True)]


async def test_names_are_completed_the_default_first(server: Server, simcord_bot: GPT2Client) -> None:
    (command,) = (each for each in simcord_bot.tree.get_commands() if each.name == "continue")
    complete = cast("Any", command)._params["model"].autocomplete

    class Asked:
        client = simcord_bot

    assert [choice.value for choice in await complete(Asked, "")] == ["tiny-gpt2", OTHER]
    assert [choice.value for choice in await complete(Asked, "OTHER")] == [OTHER]


@pytest.mark.parametrize("command", ["continue", "tokens next", "lens", "compare"])
async def test_an_unknown_model_is_refused_with_the_nearest(server: Server, command: str) -> None:
    options = {"first" if command == "compare" else "prompt": PROMPT, "model": "other-gtp"}
    assert await server.refusal(command, **options) == "I have no model “other-gtp”. The nearest name is other-gpt2."


async def test_pictures_name_and_remember_their_model(server: Server, other_model: Path) -> None:
    message = (await server.slash("attention grid", prompt=PROMPT, model=OTHER)).response
    assert alt(message).startswith("Attention maps of 4 heads")
    assert "Model: other-gpt2" in shown(message).replace("\\", "")
    await choose(server, message, "Open a layer", "Layer 2")
    assert alt(message).startswith("Layer 2, head 1")
    await press(server, message, "All heads")
    await choose(server, message, "See this text another way", "What each layer would say next")
    assert alt(message).startswith("Logit lens of 2 layers")
    program = await program_of(server, message)
    assert 'model = "other-gpt2"' in program
    run(program, other_model)


async def test_weights_are_those_of_the_chosen_model(server: Server) -> None:
    message = (await server.slash("weights matrix", name="wpe", rows="0:10", columns="0:48", model=OTHER)).response
    assert "Model: other-gpt2" in shown(message).replace("\\", "")
    await press(server, message, "The tutorial's style")
    listed = (await server.slash("weights list", model=OTHER)).response
    assert "other-gpt2" in shown(listed).replace("\\", "")
    program = await program_of(server, listed)
    assert 'model = "other-gpt2"' in program


async def test_samples_are_continued_by_their_own_model(server: Server) -> None:
    message = (await server.slash("continue", prompt=PROMPT, seed=1, samples=1, length=4, model=OTHER)).response
    for label in ("Continue", "Re-roll"):
        again = (await server.member.click(message, custom_id=labelled(message, label))).response
        assert "other-gpt2 · seed" in shown(again)
    insights = (await server.member.click(message, custom_id=labelled(message, "Insights"))).response
    assert "Model: other-gpt2" in shown(insights).replace("\\", "")
    private = await choose(server, message, "Look inside", "Attention of all heads")
    assert alt(private).startswith("Attention maps of 4 heads")
    program = await program_of(server, message)
    assert 'model = "other-gpt2"' in program
    watched = (await server.member.click(message, custom_id=labelled(message, "Watch"))).response
    assert "Model: other-gpt2" in shown(watched).replace("\\", "")


async def test_the_form_remembers_the_chosen_model(server: Server) -> None:
    asked = await server.slash("continue", seed=7, samples=1, length=3, model=OTHER)
    field = asked.modal["components"][0]["component"]["custom_id"]
    result = await server.member.submit_modal(asked, {field: "two\nlines"})
    assert "other-gpt2 · seed 7" in shown(result.response)
    plain = await server.slash("continue", seed=7, samples=1, length=3)
    assert plain.modal["custom_id"].startswith("ask.1:")


async def test_messages_find_their_model_after_a_restart_with_another_default(
    server: Server, simcord_bot: GPT2Client, tiny_model: Path, other_model: Path
) -> None:
    sample = (await server.slash("continue", prompt=PROMPT, seed=1, samples=1, length=4)).response
    picture = (await server.slash("tokens split", text=PROMPT, model=OTHER)).response
    ids = [each["custom_id"] for each in components(picture) if "custom_id" in each]
    async with several(other_model, tiny_model) as restarted:
        simcord_bot.models, simcord_bot.engine = restarted, restarted.default
        again = (await server.member.click(sample, custom_id=labelled(sample, "Re-roll"))).response
        assert "tiny-gpt2 · seed" in shown(again)
        await choose(server, picture, "See this text another way", "What each layer would say next")
        assert alt(picture).startswith("Logit lens of 2 layers")
        same = (await server.slash("tokens split", text=PROMPT)).response
        assert [each["custom_id"] for each in components(same) if "custom_id" in each] == ids


async def test_a_model_that_is_gone_is_one_sentence(
    server: Server, simcord_bot: GPT2Client, tiny_model: Path, tmp_path: Path
) -> None:
    from tests.models import make_model  # noqa: PLC0415

    sample = (await server.slash("continue", prompt=PROMPT, seed=1, samples=1, length=4, model=OTHER)).response
    picture = (await server.slash("tokens split", text=PROMPT, model=OTHER)).response
    async with several(tiny_model, make_model(tmp_path / "new-gpt2", layers=1)) as restarted:
        simcord_bot.models, simcord_bot.engine = restarted, restarted.default
        for message, label in ((sample, "Re-roll"), (sample, "Insights"), (picture, "Show code")):
            answer = (await server.member.click(message, custom_id=labelled(message, label))).response
            assert answer.ephemeral
            assert answer.content == (
                "This was made with a model that I no longer have. I have tiny-gpt2, new-gpt2: ask for it again with "
                "one of them."
            )


async def test_two_models_are_compared_with_one_seed(server: Server, tiny_model: Path, other_model: Path) -> None:
    message = (await server.slash("compare", first=PROMPT, seed=5, length=8)).response
    assert alt(message).startswith("Two models compared. Likeliest next token: tiny-gpt2 ")
    text = shown(message).replace("\\", "")
    assert "Samples: seed 5 · samples 2 · length 8" in text
    for name, folder in (("tiny-gpt2", tiny_model), (OTHER, other_model)):
        for number, sample in enumerate(await written(folder, 5), 1):
            assert f"-# {literal(name)} · {number}\n" in shown(message)
            assert literal(sample) in shown(message)
    assert sum(map(length, texts(message))) <= LAYOUT_CHARACTERS
    assert len(components(message)) <= COMPONENTS
    program = await program_of(server, message)
    line = re.compile(r'^(first|second) = "([a-z0-9-]+)".*$', re.MULTILINE)
    folders = {"tiny-gpt2": tiny_model, OTHER: other_model}
    at_home = line.sub(lambda at: f"{at[1]} = {str(folders[at[2]])!r}", program)
    printed = run(f"model = ''\n{at_home}", tiny_model).printed
    for folder in (tiny_model, other_model):
        for sample in await written(folder, 5):
            assert PROMPT + sample in printed


async def test_a_longest_comparison_fits_into_its_message(server: Server) -> None:
    options = {"first": "*" * 40, "samples": 5, "length": 60, "model": OTHER, "other": "tiny-gpt2", "seed": 1}
    message = (await server.slash("compare", **options)).response
    assert alt(message).startswith("Two models compared. Likeliest next token: other-gpt2 ")
    assert sum(map(length, texts(message))) <= LAYOUT_CHARACTERS
    assert len(components(message)) <= COMPONENTS


async def test_two_prompts_are_still_compared(server: Server) -> None:
    message = (await server.slash("compare", first=PROMPT, second="Hello", model=OTHER)).response
    assert alt(message).startswith("Two prompts compared.")
    refusal = await server.refusal("compare", first=PROMPT, second="Hello", other=OTHER)
    assert refusal == "Compare two prompts or two models: leave out second or other."
    same = await server.refusal("compare", first=PROMPT, model=OTHER, other=OTHER)
    assert same == "Choose two different models to compare."


async def test_about_lists_the_models(server: Server) -> None:
    about = shown((await server.slash("about")).response).replace("\\", "")
    assert "**All models** tiny-gpt2, other-gpt2" in about
    assert "Loaded when somebody asks: other-gpt2" in about
    await server.slash("tokens split", text=PROMPT, model=OTHER)
    assert "Loaded when" not in shown((await server.slash("about")).response)


async def test_metrics_are_labelled_with_the_model(server: Server, simcord_bot: GPT2Client) -> None:
    metrics = Metrics(simcord_bot)
    await server.slash("continue", prompt=PROMPT, samples=1, length=5, model=OTHER)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("gpt2_tokens_total", model=OTHER) == 5
    assert value("gpt2_tokens_total", model="tiny-gpt2") == 0
    assert value("gpt2_model_loaded", model=OTHER) == 1
    assert value("gpt2_model_ready") == 1
    assert value("gpt2_workers") == 1
    assert readiness(simcord_bot)["model"] == "ok"
