"""The arrays are Transformers' own, and obey the laws that they must."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bot.errors import InvalidInputError
from bot.gpt2.local import introspection
from bot.gpt2.local.activations import ActivationReader
from bot.gpt2.local.runner import PREFILL_CHUNK
from bot.gpt2.local.scores import head_scores
from bot.gpt2.model.files import SHIPPED, SHIPPED_FOLDER
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.questions import (
    MAX_MAP_TOKENS,
    AblationQuestion,
    AttentionQuestion,
    ComparisonQuestion,
    HeadQuestion,
    InductionQuestion,
    InsightsQuestion,
    LensQuestion,
    NextTokensQuestion,
    SurpriseQuestion,
    TokensQuestion,
    VisibleEnd,
)
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.writing import WritingQuestion
from tests.models import PARTIAL, make_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bot.gpt2.questions import Question

TEXT = "Hello, I'm a language model, and the theatre of thoughts goes on and on"
TEXTS = (TEXT, "a b", "  two spaces\n\n\tand a tab", "日本語 🎭 العربية", "half a surrogate \ud83d", "<|endoftext|>x")
CLOSE = 1e-5


class Pair(NamedTuple):
    """The same model twice: as the bot computes with it, and as Transformers does."""

    loaded: LoadedModel
    network: GPT2LMHeadModel

    def ids(self, text: str) -> list[int]:
        return self.loaded.tokenizer(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))["input_ids"]

    @torch.inference_mode()
    def theirs(self, ids: list[int]) -> Any:
        return self.network(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)


def ask(loaded: LoadedModel, question: Question[Any]) -> Any:
    """The answer, all steps of it."""
    steps = introspection.answer(question, loaded)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 # our own


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with room for several chunks."""
    return make_model(tmp_path_factory.mktemp("models") / "long", context=512, seed=3)


@pytest.fixture(
    scope="session", params=["tiny", "long", "shipped", pytest.param("gpt2-partial", marks=pytest.mark.slow)]
)
def pair(request: pytest.FixtureRequest, tiny_model: Path, long_model: Path) -> Pair:
    folder = {"tiny": tiny_model, "long": long_model, "shipped": SHIPPED_FOLDER, "gpt2-partial": PARTIAL}[request.param]
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    loaded = load(SHIPPED if request.param == "shipped" else str(folder), device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # fills what the file lacks with what ours was filled with
        network = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return Pair(loaded, network)


@pytest.fixture(scope="session")
def loaded(tiny_model: Path) -> LoadedModel:
    return load(str(tiny_model), device="cpu")


def close(ours: NDArray[Any], theirs: torch.Tensor, tolerance: float = CLOSE) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=tolerance, atol=tolerance)


def attentions(output: Any) -> torch.Tensor:
    return torch.stack(output.attentions)[:, 0]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_tokens_are_those_of_the_tokenizer_and_their_bytes_are_the_texts(loaded: LoadedModel, text: str) -> None:
    tokens = ask(loaded, TokensQuestion(text))
    sound = text.replace("\ud83d", "\ufffd")
    assert list(tokens.ids) == loaded.tokenizer(sound)["input_ids"]
    assert b"".join(tokens.pieces) == sound.encode()
    assert len(tokens) == len(tokens.ids) == len(tokens.pieces)


def test_a_token_of_half_a_character_has_the_bytes_of_it(loaded: LoadedModel) -> None:
    assert ask(loaded, TokensQuestion("€")).pieces == (b"\xe2", b"\x82", b"\xac")


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_attention_is_that_of_transformers(pair: Pair, text: str) -> None:
    attention = ask(pair.loaded, AttentionQuestion(text))
    read = pair.ids(text)[-MAX_MAP_TOKENS:]
    assert list(attention.tokens.ids) == read
    close(attention.weights, attentions(pair.theirs(read)))


def test_attention_rows_sum_to_one_and_nothing_looks_ahead(pair: Pair) -> None:
    weights = ask(pair.loaded, AttentionQuestion(TEXT)).weights
    info, tokens = pair.loaded.info, len(pair.ids(TEXT)[-MAX_MAP_TOKENS:])
    assert weights.shape == (info.layers, info.heads, tokens, tokens)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=CLOSE)
    assert not np.triu(weights, 1).any()
    assert weights.min() >= 0


def test_of_a_long_prompt_the_last_tokens_are_read_alone(pair: Pair) -> None:
    text = TEXT * 3
    attention = ask(pair.loaded, AttentionQuestion(text))
    ids = pair.ids(text)
    assert attention.left_out == len(ids) - MAX_MAP_TOKENS > 0
    # For this one Transformers' float32 is itself 1e-5 from its float64 in GPT-2 small, and ours 2e-5.
    close(attention.weights, attentions(pair.theirs(ids[-MAX_MAP_TOKENS:])), tolerance=2e-5)


def test_one_head_is_that_of_transformers(pair: Pair) -> None:
    expected = attentions(pair.theirs(pair.ids(TEXT)))
    for layer, head in ((1, 1), (2, 3), (pair.loaded.info.layers, pair.loaded.info.heads)):
        answer = ask(pair.loaded, HeadQuestion(TEXT, layer, head))
        assert list(answer.tokens.ids) == pair.ids(TEXT)
        close(answer.weights, expected[layer - 1, head - 1])
    assert ask(pair.loaded, HeadQuestion(TEXT * 3, 1, 1)).left_out == len(pair.ids(TEXT * 3)) - MAX_MAP_TOKENS


def test_one_head_has_the_bits_of_all_heads(pair: Pair) -> None:
    weights = ask(pair.loaded, AttentionQuestion(TEXT)).weights
    for layer in range(1, pair.loaded.info.layers + 1):
        assert np.array_equal(ask(pair.loaded, HeadQuestion(TEXT, layer, 2)).weights, weights[layer - 1, 1])


def test_one_head_needs_no_later_layers(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[int] = []
    attend = ActivationReader._attend

    def counted(self: ActivationReader, layer: int, qkv: torch.Tensor) -> Any:
        layers.append(layer)
        return attend(self, layer, qkv)

    monkeypatch.setattr(ActivationReader, "_attend", counted)
    ask(loaded, HeadQuestion(TEXT, 2, 1))
    assert layers == [0, 1]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 50, 1.0), (1.5, 0, 0.9), (2.0, 5, 0.5)]
)
def test_next_tokens_before_and_after_the_settings_are_those_of_transformers(
    pair: Pair, temperature: float, top_k: int, top_p: float
) -> None:
    answer = ask(
        pair.loaded,
        NextTokensQuestion(TEXT, SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p), count=10),
    )
    logits = pair.theirs(pair.ids(TEXT)).logits[:, -1]
    before = logits.softmax(-1)[0]
    for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k or 10**9), TopPLogitsWarper(top_p)):
        logits = warper(torch.LongTensor(), logits)
    after = logits.softmax(-1)[0]
    chosen = list(answer.candidates.ids)
    close(answer.before, before.topk(10).values)
    close(answer.before, before[chosen])
    close(answer.after, after[chosen])
    assert answer.kept == after.count_nonzero()
    assert answer.rest_before == pytest.approx(1 - before.topk(10).values.sum().item(), abs=CLOSE)
    assert answer.rest_after == pytest.approx(1 - after[chosen].sum().item(), abs=CLOSE)
    assert answer.before.sum() + answer.rest_before == pytest.approx(1, abs=CLOSE)
    assert answer.after.sum() + answer.rest_after == pytest.approx(1, abs=CLOSE)


def test_greedy_leaves_the_likeliest_token_alone(loaded: LoadedModel) -> None:
    answer = ask(loaded, NextTokensQuestion(TEXT, SamplingParams(temperature=0.0)))
    assert answer.after.tolist() == [1.0] + [0.0] * 9
    assert answer.rest_after == 0
    assert answer.kept == 1


def test_written_tokens_are_read_as_they_are(pair: Pair) -> None:
    """One byte a token, as no tokenizer splits them; then one that was chosen, and one that is drawn."""
    byte = [pair.loaded.tokenizer.convert_tokens_to_ids(name) for name in "Ġtheater"]
    chosen = pair.ids("!")[0]
    written, params = tuple(bytes([each]) for each in b" theater"), SamplingParams(7, temperature=0.8, top_k=9)
    answer = ask(pair.loaded, NextTokensQuestion(TEXT, params, written=written, chosen=chosen))
    ids = [*pair.ids(TEXT), *byte, chosen]
    assert answer.tokens.ids == tuple(ids)
    assert answer.written.ids == (*byte, chosen)
    close(answer.before, pair.theirs(ids).logits[0, -1].softmax(-1)[list(answer.candidates.ids)])
    drawn = ask(pair.loaded, NextTokensQuestion(TEXT, params, written=(*written, b"!"), draw=True))
    token = drawn.written.ids[-1]
    assert token in answer.candidates.ids
    assert drawn.share == pytest.approx(answer.after[answer.candidates.ids.index(token)], abs=CLOSE)
    close(drawn.before, pair.theirs([*ids, token]).logits[0, -1].softmax(-1)[list(drawn.candidates.ids)])


def test_bytes_of_no_token_are_refused(loaded: LoadedModel) -> None:
    with pytest.raises(InvalidInputError, match="can no longer read the prompt"):
        ask(loaded, NextTokensQuestion(TEXT, written=(b"no such token as this",)))
    end = ask(loaded, NextTokensQuestion(TEXT, written=(b"<|endoftext|>",)))
    assert end.written.pieces == (b"<|endoftext|>",)
    assert len(end.written) == 1


def test_candidates_come_in_falling_order(loaded: LoadedModel) -> None:
    answer = ask(loaded, NextTokensQuestion(TEXT, SamplingParams(top_k=0), count=50))
    assert len(answer.candidates) == 50
    assert (np.diff(answer.before) <= 0).all()
    assert (np.diff(answer.after) <= 0).all()


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_surprise_sums_to_the_loss(pair: Pair, text: str) -> None:
    answer = ask(pair.loaded, SurpriseQuestion(text))
    ids = torch.tensor([pair.ids(text)])
    with torch.inference_mode():
        loss = pair.network(ids, labels=ids).loss.item()
    assert math.isnan(answer.bits[0])
    assert np.nanmean(answer.bits) * math.log(2) == pytest.approx(loss, rel=CLOSE)


def test_surprise_of_each_token_is_the_log_of_its_probability(pair: Pair) -> None:
    given, text = "Hello, I'm", " a language model, and the theatre"
    answer = ask(pair.loaded, SurpriseQuestion(text, given))
    ids, before = [*pair.ids(given), *pair.ids(text)], len(pair.ids(given))
    logs = pair.theirs(ids).logits[0, before - 1 : -1].log_softmax(-1) / -math.log(2)
    close(answer.bits, logs[torch.arange(len(ids) - before), ids[before:]])
    assert list(answer.tokens.ids) == ids[before:]


def test_surprise_over_several_chunks(long_model: Path) -> None:
    pair = Pair(load(str(long_model), device="cpu"), GPT2LMHeadModel.from_pretrained(long_model))
    for count in (PREFILL_CHUNK - 1, PREFILL_CHUNK, PREFILL_CHUNK + 1, 2 * PREFILL_CHUNK + 5, 512):
        text = "\x01" * (count - 1) + "x"
        ids = torch.tensor([pair.ids(text)])
        with torch.inference_mode():
            loss = pair.network(ids, labels=ids).loss.item()
        bits = ask(pair.loaded, SurpriseQuestion(text)).bits
        assert len(bits) == count
        assert np.nanmean(bits) * math.log(2) == pytest.approx(loss, rel=CLOSE)


def test_the_lens_is_the_final_norm_and_the_output_matrix_put_to_each_layer(pair: Pair) -> None:
    lens = ask(pair.loaded, LensQuestion(TEXT, last=7))
    ids = pair.ids(TEXT)
    states = torch.stack(pair.theirs(ids).hidden_states)[:, 0, -7:]
    with torch.inference_mode():
        states[:-1] = pair.network.transformer.ln_f(states[:-1])  # the last has been normed by Transformers
        expected = pair.network.lm_head(states).softmax(-1)
    assert lens.positions == range(len(ids) - 7, len(ids))
    assert lens.shown == lens.tokens.pieces[-7:]
    assert lens.probabilities.shape == (pair.loaded.info.layers + 1, 7)
    close(lens.probabilities, expected.max(-1).values)
    chosen = torch.tensor([tops.ids for tops in lens.tops])
    close(lens.probabilities, expected.gather(-1, chosen.unsqueeze(-1)).squeeze(-1))


def test_the_lens_ends_in_the_models_answer(pair: Pair) -> None:
    lens = ask(pair.loaded, LensQuestion(TEXT, last=40))
    logits = pair.theirs(pair.ids(TEXT)).logits[0, lens.positions.start :]
    assert list(lens.tops[-1].ids) == logits.argmax(-1).tolist()
    close(lens.probabilities[-1], logits.softmax(-1).max(-1).values)
    following = ask(pair.loaded, NextTokensQuestion(TEXT))
    assert lens.tops[-1].ids[-1] == following.candidates.ids[0]


def test_the_lens_settles_where_the_answer_stands_to_the_end(pair: Pair) -> None:
    lens = ask(pair.loaded, LensQuestion(TEXT, last=20))
    for column, settled in enumerate(lens.settled):
        tops = [row.ids[column] for row in lens.tops]
        assert set(tops[settled:]) == {tops[-1]}
        assert settled == 0 or tops[settled - 1] != tops[-1]


def test_a_window_of_the_lens_is_a_part_of_the_whole(pair: Pair) -> None:
    whole, window = ask(pair.loaded, LensQuestion(TEXT, last=40)), ask(pair.loaded, LensQuestion(TEXT, 3, until=5))
    assert window.positions == range(2, 5)
    assert window.tokens == whole.tokens
    assert [row.ids for row in window.tops] == [row.ids[2:5] for row in whole.tops]
    np.testing.assert_allclose(window.probabilities, whole.probabilities[:, 2:5], atol=CLOSE)
    assert ask(pair.loaded, LensQuestion(TEXT, 3, until=5_000)).positions.stop == len(whole.tokens)


def test_the_lens_over_several_chunks_looks_at_the_end(long_model: Path) -> None:
    loaded = load(str(long_model), device="cpu")
    text = "\x01" * (PREFILL_CHUNK * 2) + "xyz"  # the last positions lie in two chunks
    lens = ask(loaded, LensQuestion(text, last=9))
    assert lens.positions == range(2 * PREFILL_CHUNK - 6, 2 * PREFILL_CHUNK + 3)
    following = ask(loaded, NextTokensQuestion(text))
    assert lens.tops[-1].ids[-1] == following.candidates.ids[0]
    assert lens.probabilities[-1, -1] == pytest.approx(following.before[0], abs=CLOSE)


def test_two_prompts_compared_are_what_each_is_alone(pair: Pair) -> None:
    first, second = "Hello, I'm a language model", "Hello, I'm a theatre of"
    answer = ask(pair.loaded, ComparisonQuestion(first, second, count=6))
    for prompt, surprise, probabilities in zip(
        (first, second), (answer.first, answer.second), answer.probabilities, strict=True
    ):
        alone = ask(pair.loaded, SurpriseQuestion(prompt))
        assert surprise.tokens == alone.tokens
        np.testing.assert_allclose(surprise.bits, alone.bits, rtol=CLOSE)
        expected = pair.theirs(pair.ids(prompt)).logits[0, -1].softmax(-1)
        close(probabilities, expected[list(answer.candidates.ids)])
        assert expected.argmax().item() in answer.candidates.ids
    highest = answer.probabilities.max(axis=0)
    assert (np.diff(highest) <= 0).all()


def test_the_difference_of_attention_is_there_where_the_tokens_can_be_laid_side_by_side(pair: Pair) -> None:
    first, second = "the theatre: of", "of theatre: the"
    assert len(pair.ids(first)) == len(pair.ids(second))
    difference = ask(pair.loaded, ComparisonQuestion(first, second)).difference
    expected = attentions(pair.theirs(pair.ids(second))) - attentions(pair.theirs(pair.ids(first)))
    close(difference, expected)
    assert ask(pair.loaded, ComparisonQuestion(first, first + " x")).difference is None
    assert ask(pair.loaded, ComparisonQuestion("a", "b")).difference is None
    assert ask(pair.loaded, ComparisonQuestion(TEXT * 3, TEXT * 3)).difference is None


def test_a_token_said_twice_in_a_row_is_no_occasion_for_induction() -> None:
    assert np.isnan(head_scores(np.eye(2, dtype=np.float32)[None, None], [4, 4])["induction"]).all()


def test_induction_is_the_mean_of_the_stripe(pair: Pair) -> None:
    answer = ask(pair.loaded, InductionQuestion(length=40, seed=7))
    ids = list(answer.tokens.ids)
    assert len(ids) > PREFILL_CHUNK, "so that it is read in several chunks"
    assert ids[:40] == ids[40:]
    assert len(set(ids)) == 40
    expected = attentions(pair.theirs(ids)).diagonal(-39, dim1=-2, dim2=-1)[..., 1:].mean(-1)
    close(answer.scores, expected)
    assert answer.scores[answer.layer - 1, answer.head - 1] == answer.scores.max()
    close(answer.weights, attentions(pair.theirs(ids))[answer.layer - 1, answer.head - 1])


def test_induction_draws_its_tokens_from_its_seed(loaded: LoadedModel) -> None:
    drawn = [ask(loaded, InductionQuestion(length=10, seed=seed)).tokens.ids for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert drawn[2][:10] == tuple(torch.randperm(loaded.info.vocabulary)[:10].tolist())


def test_induction_that_the_model_cannot_read_is_refused(tmp_path: Path) -> None:
    short = load(str(make_model(tmp_path / "short", context=30)), device="cpu")
    with pytest.raises(InvalidInputError, match="short can read at most 15 random tokens twice over, not 16"):
        ask(short, InductionQuestion(length=16))
    ask(short, InductionQuestion(length=15))


def test_insights_are_the_surprise_of_each_sample_after_the_prompt(pair: Pair) -> None:
    samples = (" and the theatre", " of thoughts, and I go on", "", " of")
    answer = ask(pair.loaded, InsightsQuestion("Hello, I'm a language model,", samples))
    for sample, surprise in zip(samples, answer.samples, strict=True):
        if sample:
            alone = ask(pair.loaded, SurpriseQuestion(sample, "Hello, I'm a language model,"))
            np.testing.assert_allclose(surprise.bits, alone.bits, rtol=CLOSE)
        assert b"".join(surprise.tokens.pieces) == sample.encode()
        assert not np.isnan(surprise.bits).any()


def test_insights_take_token_ids_too(loaded: LoadedModel) -> None:
    ids = tuple(loaded.tokenizer(" of thoughts")["input_ids"])
    by_text = ask(loaded, InsightsQuestion("Hello", (" of thoughts",)))
    by_ids = ask(loaded, InsightsQuestion("Hello", (ids,)))
    assert by_ids.samples[0].tokens == by_text.samples[0].tokens
    np.testing.assert_array_equal(by_ids.samples[0].bits, by_text.samples[0].bits)


@pytest.mark.parametrize("text", [*TEXTS[:4], " ".join(TEXTS[:4] * 5), "\x01" * 300 + "word", "日本語🎭" * 50])
@pytest.mark.parametrize(("length", "behind"), [(1, ()), (100, ()), (20, ("\ufffd" * 10, "a"))])
def test_the_visible_end_leaves_room_for_all_that_comes_behind_it(
    loaded: LoadedModel, text: str, length: int, behind: tuple[str, ...]
) -> None:
    end = ask(loaded, VisibleEnd(text, length, behind))
    longest = max([length, *(len(loaded.tokenizer(each)["input_ids"]) for each in behind)])
    assert end
    assert text.endswith(end)
    assert len(loaded.tokenizer(end)["input_ids"]) <= loaded.info.context - longest
    if len(loaded.tokenizer(text)["input_ids"]) <= loaded.info.context - longest:
        assert end == text


def test_similarity_is_the_share_of_tokens_in_common(loaded: LoadedModel) -> None:
    answer = ask(loaded, InsightsQuestion("Hello", ((5, 6, 7, 7), (7, 6, 5), (7, 8), (9,), ())))
    nan = math.nan
    np.testing.assert_allclose(
        answer.similarity,
        [[1, 1, 0.25, 0, 0], [1, 1, 0.25, 0, 0], [0.25, 0.25, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, nan]],
    )


@pytest.mark.parametrize("heads", [((1, 1),), ((2, 3), (3, 1), (3, 2))], ids=str)
def test_silenced_heads_are_zeros_before_c_proj_in_transformers(pair: Pair, heads: tuple[tuple[int, int], ...]) -> None:
    answer = ask(pair.loaded, AblationQuestion(TEXT, heads, count=5))
    ids = pair.ids(TEXT)
    size = pair.network.config.n_embd // pair.network.config.n_head
    whole = pair.theirs(ids).logits[0]
    hooks = []
    for layer, head in heads:

        def zero(module: torch.nn.Module, inputs: tuple[torch.Tensor], head: int = head) -> tuple[torch.Tensor]:
            outputs = inputs[0].clone()
            outputs[..., (head - 1) * size : head * size] = 0
            return (outputs,)

        hooks.append(pair.network.transformer.h[layer - 1].attn.c_proj.register_forward_pre_hook(zero))
    try:
        rest = pair.theirs(ids).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    assert (whole - rest).abs().max() > 1e-3
    for row, logits in enumerate((whole, rest)):
        close(answer.probabilities[row], logits[-1].softmax(-1)[list(answer.candidates.ids)])
        logs = logits[:-1].log_softmax(-1) / -math.log(2)
        close(answer.bits[row, 1:], logs[torch.arange(len(ids) - 1), ids[1:]], tolerance=3e-5)
    assert np.isnan(answer.bits[:, 0]).all()
    assert list(answer.tokens.ids) == ids


def test_without_induction_heads_the_shipped_model_repeats_badly() -> None:
    shipped = load(SHIPPED, device="cpu")
    first, again = "The old wizard Gandrel met Misty Quorb at Zarn Hill.", " The old wizard Gandrel met Misty Quorb at"
    induction = ask(shipped, AblationQuestion(first + again, ((7, 1), (8, 6))))
    second = len(ask(shipped, TokensQuestion(first)))
    harm = np.nanmean(induction.bits[1, second:]) - np.nanmean(induction.bits[0, second:])
    assert harm > 1, "bits per token"
    assert b" Z" in induction.candidates.pieces
    place = induction.candidates.pieces.index(b" Z")
    assert induction.probabilities[1, place] < induction.probabilities[0, place] / 2


@pytest.mark.parametrize(
    ("question", "refusal"),
    [
        (AttentionQuestion("a"), "The prompt is a single token"),
        (HeadQuestion("a", 1, 1), "The prompt is a single token"),
        (SurpriseQuestion("a"), "The text is a single token"),
        (HeadQuestion("a b", 4, 1), "There is no layer 4: tiny-gpt2 has 3, counted from 1"),
        (HeadQuestion("a b", 0, 1), "There is no layer 0"),
        (HeadQuestion("a b", 1, 5), "There is no head 5: each layer of tiny-gpt2 has 4, counted from 1"),
        (NextTokensQuestion("\x01" * 128 + "x"), "The prompt has 129 tokens; at most 128 fit"),
        (LensQuestion("\x01" * 128 + "x"), "The prompt has 129 tokens; at most 128 fit"),
        (SurpriseQuestion("\x01" * 128 + "x"), "The text has 129 tokens; at most 128 fit"),
        (SurpriseQuestion("\x01" * 99 + "x", "\x01" * 99), "The text has 100 tokens; at most 29 fit"),
        (AblationQuestion("a b", ((1, 1), (4, 1))), "There is no layer 4: tiny-gpt2 has 3"),
        (AblationQuestion("a b", ((1, 5),)), "There is no head 5"),
        (AblationQuestion("\x01" * 128 + "x", ((1, 1),)), "The prompt has 129 tokens; at most 128 fit"),
        (ComparisonQuestion("a", "\x01" * 128 + "x"), "The second prompt has 129 tokens; at most 128 fit"),
        (InsightsQuestion("\x01" * 99 + "x", (" of" * 40,)), "The prompt has 100 tokens; at most "),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_refused_in_the_first_step(
    loaded: LoadedModel, question: Question[Any], refusal: str
) -> None:
    with pytest.raises(InvalidInputError, match=refusal):
        next(introspection.answer(question, loaded))


def test_what_is_no_question_has_no_answer(loaded: LoadedModel) -> None:
    with pytest.raises(TypeError, match="str is no question about tiny-gpt2"):
        introspection.answer("What?", loaded)


@pytest.mark.parametrize(
    "question",
    [
        TokensQuestion(TEXT),
        AttentionQuestion(TEXT),
        HeadQuestion(TEXT, 1, 2),
        NextTokensQuestion(TEXT),
        SurpriseQuestion(TEXT),
        LensQuestion(TEXT),
        ComparisonQuestion("a b", "c d"),
        AblationQuestion(TEXT, ((1, 2),)),
        WritingQuestion(ContinuationRequest(TEXT, SamplingParams(42, 2, 5)), 2),
        InductionQuestion(),
        InsightsQuestion(TEXT, (" a", (5, 6))),
    ],
    ids=lambda question: type(question).__name__,
)
def test_questions_and_answers_can_be_sent_to_another_process(loaded: LoadedModel, question: Question[Any]) -> None:
    assert sent(question) == question
    answer = ask(loaded, question)
    assert type(sent(answer)) is type(answer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(answer, dataclasses.fields(answer)[0].name, None)
    assert "torch" not in pickle.dumps(answer).decode("latin-1")


def test_bytes_are_those_of_gpt2s_own_tokenizer() -> None:
    tokenizer = GPT2Tokenizer.from_pretrained(SHIPPED_FOLDER)
    shipped = load(SHIPPED, device="cpu")
    text = "O, she doth teach the torches to burn bright! 🎭\u200b\x00"
    tokens = ask(shipped, TokensQuestion(text))
    for token, piece in zip(tokens.ids, tokens.pieces, strict=True):
        assert tokenizer.decode([token]) == piece.decode(errors="replace")
