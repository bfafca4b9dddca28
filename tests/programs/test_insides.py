"""The programs find in the model what the bot finds."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bot import programs
from bot.gpt2 import questions
from bot.gpt2.requests import SamplingParams
from tests.figures.builders import contrast
from tests.programs.running import run

if TYPE_CHECKING:
    from pathlib import Path

    from bot.gpt2.local.engine import LocalEngine

PROMPTS = (
    "Hello, I'm a language model",
    '"a $x^{$ 日本語 🎭 \u202eabc\n\\ ```',
    "many words " * 9,  # more than the picture of all heads shows
    "tab\there\r\n\n\x07 \N{ZERO WIDTH SPACE}",
)
# Every prompt, and both pictures of the one that is cut and of the plain one: a prompt and a sink meet nowhere else.
WITH_SINK = (*((prompt, "raw") for prompt in PROMPTS), (PROMPTS[0], "removed"), (PROMPTS[2], "removed"))
close = {"atol": 1e-5, "rtol": 1e-4, "equal_nan": True}


def rescaled(weights: Any) -> Any:
    rest = weights[..., 1:, 1:]
    return rest / rest.sum(axis=-1, keepdims=True)


def mosaic(maps: Any) -> Any:
    layers, heads = maps.shape[:2]
    return np.block([[maps[layer, head] for head in range(heads)] for layer in range(layers)])


@pytest.mark.parametrize(("prompt", "sink"), WITH_SINK, ids=ascii)
async def test_the_attention_of_all_heads(engine: LocalEngine, tiny_model: Path, prompt: str, sink: Any) -> None:
    question = questions.AttentionQuestion(prompt)
    expected = (await engine.introspect(question)).weights
    expected = expected if sink == "raw" else rescaled(expected)
    done = run(programs.attention_grid(question, sink, await engine.model()), tiny_model)
    assert done.figure
    (image,) = done.figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), mosaic(expected), **close)


@pytest.mark.parametrize(("prompt", "sink"), WITH_SINK, ids=ascii)
async def test_the_attention_of_one_head(engine: LocalEngine, tiny_model: Path, prompt: str, sink: Any) -> None:
    question = questions.HeadQuestion(prompt, 2, 3)
    answer = await engine.introspect(question)
    expected = answer.weights if sink == "raw" else rescaled(answer.weights)
    done = run(programs.attention_head(question, sink, await engine.model()), tiny_model)
    assert done.figure
    axes = done.figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), expected, **close)
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == len(expected)
    rows = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(above.y0 > below.y0 + 0.8 * below.height for above, below in pairwise(rows))


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
async def test_the_tokens_of_a_text(engine: LocalEngine, tiny_model: Path, prompt: str) -> None:
    question = questions.TokensQuestion(prompt)
    printed = run(programs.token_split(question, await engine.model()), tiny_model).printed
    assert [int(line.split()[1]) for line in printed.splitlines()] == [*(await engine.introspect(question)).ids]


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [
        (PROMPTS[0], {}),
        (PROMPTS[1], {}),
        (PROMPTS[0], {"temperature": 0.0}),
        (PROMPTS[1], {"temperature": 0.7, "top_k": 3, "top_p": 0.8}),
        (PROMPTS[0], {"top_k": 0}),
        (PROMPTS[0], {"top_k": 0, "top_p": 0.5}),
        (PROMPTS[1], {"top_k": 1000, "temperature": 1.5}),
    ],
    ids=ascii,
)
async def test_what_may_come_next(engine: LocalEngine, tiny_model: Path, prompt: str, settings: dict[str, Any]) -> None:
    question = questions.NextTokensQuestion(prompt, SamplingParams(**settings), count=5)
    answer = await engine.introspect(question)
    done = run(programs.next_tokens(question, await engine.model()), tiny_model)
    assert done.names["best"].tolist() == [*answer.candidates.ids]
    assert done.figure
    before, after = done.figure.axes[0].containers
    np.testing.assert_allclose([bar.get_width() for bar in before], answer.before, **close)
    np.testing.assert_allclose([bar.get_width() for bar in after], answer.after, **close)
    numbers = done.printed.removeprefix("All other tokens: ").replace(",", "").split()
    assert [float(numbers[0]), float(numbers[2])] == pytest.approx([answer.rest_before, answer.rest_after], abs=1e-4)


async def test_what_may_come_after_written_tokens(engine: LocalEngine, tiny_model: Path) -> None:
    written = tuple(bytes([byte]) for byte in ' "é€\n\\'.encode())
    question = questions.NextTokensQuestion(PROMPTS[0], written=written, count=5)
    answer = await engine.introspect(question)
    done = run(programs.next_tokens(question, await engine.model(), answer.written.ids), tiny_model)
    assert done.names["ids"][0].tolist() == [*answer.tokens.ids]
    assert done.names["best"].tolist() == [*answer.candidates.ids]


@pytest.mark.parametrize(
    ("prompt", "given"), [*((prompt, "") for prompt in PROMPTS), (PROMPTS[1], "The theatre of")], ids=ascii
)
async def test_the_surprise_of_a_text(engine: LocalEngine, tiny_model: Path, prompt: str, given: str) -> None:
    question = questions.SurpriseQuestion(prompt, given)
    answer = await engine.introspect(question)
    done = run(programs.surprise(question, await engine.model()), tiny_model)
    np.testing.assert_allclose(done.names["bits"], answer.bits[0 if given else 1 :], **close)
    assert done.figure
    labels, boxes = done.figure.axes[0].texts, done.figure.axes[0].patches
    assert len(labels) == len(boxes) == len(answer.tokens)
    for label, box in zip(labels, boxes, strict=True):
        assert label.get_text().isprintable()
        assert box.get_window_extent().x0 <= label.get_window_extent().x0
        assert box.get_window_extent().x1 >= label.get_window_extent().x1
        assert contrast(to_hex(box.get_facecolor()), to_hex(label.get_color())) >= 4.5


@pytest.mark.parametrize(
    ("prompt", "last", "until"), [(PROMPTS[0], 12, None), (PROMPTS[1], 3, 4), (PROMPTS[2], 40, None)], ids=ascii
)
async def test_what_each_layer_would_say(
    engine: LocalEngine, tiny_model: Path, prompt: str, last: int, until: int | None
) -> None:
    question = questions.LensQuestion(prompt, last, until)
    answer = await engine.introspect(question)
    done = run(programs.lens(question, await engine.model()), tiny_model)
    assert done.figure
    (image,) = done.figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), answer.probabilities, **close)
    assert done.names["tops"].tolist() == [[*row.ids] for row in answer.tops]
    for text, shade in zip(done.figure.axes[0].texts, image.to_rgba(image.get_array()).reshape(-1, 4), strict=True):
        assert contrast(to_hex(shade), to_hex(text.get_color())) > 4
    bold = [text.get_weight() == "bold" for text in done.figure.axes[0].texts]
    rows = np.arange(len(answer.tops))[:, None]
    assert bold == (rows >= answer.settled).ravel().tolist()


async def test_the_heads_that_repeat(engine: LocalEngine, tiny_model: Path) -> None:
    question = questions.InductionQuestion(length=12, seed=3)
    answer = await engine.introspect(question)
    done = run(programs.induction(question, await engine.model()), tiny_model)
    assert done.figure
    scores, stripe = (axes.images[0].get_array() for axes in done.figure.axes)
    np.testing.assert_allclose(scores, answer.scores, **close)
    np.testing.assert_allclose(stripe, answer.weights, **close)


@pytest.mark.parametrize("second", ["Hello, I'm a language theory", PROMPTS[1], "a"], ids=ascii)
async def test_two_prompts_side_by_side(engine: LocalEngine, tiny_model: Path, second: str) -> None:
    question = questions.ComparisonQuestion(PROMPTS[0], second)
    answer = await engine.introspect(question)
    done = run(programs.compare(question, await engine.model()), tiny_model)
    assert done.figure
    bars, lines, difference = done.figure.axes
    assert done.names["best"].tolist() == [*answer.candidates.ids]
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["A", "B"]
    widths = [[bar.get_width() for bar in container] for container in bars.containers]
    np.testing.assert_allclose(widths, answer.probabilities, **close)
    for line, surprise in zip(lines.lines, (answer.first, answer.second), strict=True):
        np.testing.assert_allclose(line.get_ydata(), surprise.bits[1:], **close)
    if answer.difference is None:
        assert not difference.images
        assert not difference.axison
    else:
        np.testing.assert_allclose(difference.images[0].get_array(), mosaic(answer.difference), **close)


@pytest.mark.parametrize(("prompt", "heads"), [(PROMPTS[0], ((2, 3),)), (PROMPTS[1], ((1, 1), (3, 4)))], ids=ascii)
async def test_the_model_without_some_heads(
    engine: LocalEngine, tiny_model: Path, prompt: str, heads: tuple[tuple[int, int], ...]
) -> None:
    question = questions.AblationQuestion(prompt, heads)
    answer = await engine.introspect(question)
    done = run(programs.ablation(question, await engine.model()), tiny_model)
    assert done.figure
    bars, lines = done.figure.axes
    assert done.names["best"].tolist() == [*answer.candidates.ids]
    widths = [[bar.get_width() for bar in container] for container in bars.containers]
    np.testing.assert_allclose(widths, answer.probabilities, **close)
    for line, bits in zip(lines.lines, answer.bits, strict=True):
        np.testing.assert_allclose(line.get_ydata(), bits[1:], **close)


@pytest.mark.parametrize("as_ids", [True, False])
async def test_several_continuations(engine: LocalEngine, tiny_model: Path, as_ids: bool) -> None:
    samples: tuple[Any, ...] = (" and I go on\nand on", ' "on $x^{$ and', " 日本語")
    if as_ids:
        samples = ((3, 4, 5, 299), (3, 7), (8,))
    question = questions.InsightsQuestion(PROMPTS[0], samples)
    answer = await engine.introspect(question)
    done = run(programs.insights(question, await engine.model()), tiny_model)
    assert done.figure
    lines, similarity = done.figure.axes
    for line, sample in zip(lines.lines, answer.samples, strict=True):
        np.testing.assert_allclose(line.get_ydata(), sample.bits, **close)
    np.testing.assert_allclose(similarity.images[0].get_array(), answer.similarity, **close)
