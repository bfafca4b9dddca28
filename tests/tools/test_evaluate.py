"""The measures of a model's card, against the same ones done slowly or by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tools import evaluate as script

SYMBOLS = 20


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        config = GPT2Config(vocab_size=SYMBOLS, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
        return GPT2LMHeadModel(config).eval()


def straightforward_bits(model: GPT2LMHeadModel, ids: script.Ids) -> float:
    """The same measure, one token at a time."""
    bits = 0.0
    for target in range(1, len(ids)):
        start = 0 if target <= 16 else 8 * math.ceil((target - 16) / 8)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids[None, start:target])).logits[0, -1]
        bits -= logits.log_softmax(-1)[ids[target]].item() / math.log(2)
    return bits


@pytest.mark.parametrize("length", [2, 16, 17, 18, 24, 25, 26, 60])
def test_every_token_is_scored_once_with_the_window_it_says(model: GPT2LMHeadModel, length: int) -> None:
    ids = np.random.default_rng(0).integers(0, SYMBOLS, length)
    assert script.score(model, ids, rows=3) == pytest.approx(straightforward_bits(model, ids), rel=1e-5)


def test_ngrams_interpolate_as_kneser_and_ney_do() -> None:
    ngrams = script.NGrams(np.array([0, 1, 0, 1, 0, 2]), symbols=3, order=2)
    # Of the 2-grams 01, 10, 02: once 1 (02), twice 2. Of the symbols: 1 and 2 once, 0 once, by what they follow.
    two, one = 1.5 / 6, 3.5 / 4
    alone = [(1 - one) / 3 + one * 3 / 3 / 3] * 3
    after_0 = (2 - two) / 3 + two * 2 / 3 * alone[1]
    assert ngrams.bits(np.array([0, 1])) == pytest.approx(-math.log2(alone[0]) - math.log2(after_0))


@pytest.mark.parametrize("start", [[], [0], [0, 3], [3, 3, 1]])
def test_ngrams_make_a_distribution(start: list[int]) -> None:
    ngrams = script.NGrams(np.random.default_rng(0).integers(0, 4, 300), symbols=5, order=3)
    chances = [2 ** -ngrams.bits(np.array([*start, last])) for last in range(5)]
    assert sum(chances) == pytest.approx(2 ** -ngrams.bits(np.array(start, np.int64)))
    assert min(chances) > 0


def test_an_order_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit 63 bits"):
        script.NGrams(np.arange(9), symbols=8192, order=5)


def test_packing_finds_what_was_there_before() -> None:
    train, test = (np.random.default_rng(seed).integers(0, 256, 2000, dtype=np.uint8) for seed in (0, 1))
    assert script.packed_bits(train, test) > 15_000
    assert script.packed_bits(train, train) < 1_000


def test_copies_of_held_out_runs_are_found() -> None:
    words = [str(number) for number in range(20)]
    tokens = [np.array([0])]
    copied = script.Source([" ".join(["so", *words[:14], "on"])], tokens, [" ".join(words)], tokens)
    clean = script.Source(["nothing"], tokens, [" ".join(words[::-1])], tokens)
    (line,) = script.copies({"copied": copied, "clean": clean})
    assert line == "copied: 2 of 8 held-out runs of 13 words, 0 of 1 documents mostly"


def test_what_should_not_be_in_a_text_is_counted() -> None:
    texts = [
        "Write to ann@example.org, (555) 010-4477 or @ann.",
        "See https://example.org/@ann <br> for CC BY-NC.",
        "@ann",
    ]
    lines = script.unwanted(
        {"letters": script.Source(texts, [], [], []), "clean": script.Source(["Nothing."], [], [], [])}
    )
    found = dict(line.split(": ") for line in lines)
    one = "1 in 1 documents; 1 of them in letters"
    assert [name for name, counts in found.items() if counts == one] == [
        "e-mail addresses",
        "telephone numbers",
        "web addresses",
        "HTML tags",
        "mentions of non-commercial or share-alike licences",
    ]
    assert found["account names"] == "3 in 3 documents; 3 of them in letters"


def test_the_strongest_heads_are_named_from_one() -> None:
    heads = np.array([[0.1, 0.9], [0.5, 0.2]])
    assert script.strongest(heads, 2) == "1.2 90%, 2.1 50%; over a half: 1 of 4 heads"
