"""The trainer, with a network of a few thousand values: the whole program, and what it promises of its parts."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from tools import train as script

if TYPE_CHECKING:
    from collections.abc import Iterator

TOY = {"vocabulary": 280, "context": 256, "width": 16, "layers": 2, "heads": 2, "steps": 4, "batch": 4}
OPTIONS = [part for name, value in TOY.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(autouse=True)
def _generator_of_its_own(_global_generator_is_never_touched: None) -> Iterator[None]:
    """Training seeds torch's global generator, as a program of its own may; the other tests must not notice."""
    with torch.random.fork_rng():
        yield


def write_corpus(folder: Path) -> Path:
    folder.mkdir()
    for source in ("storybooks", "letters"):
        documents = [f"This is document {index} of the {source}. " * 5 for index in range(40)]
        (folder / f"docs-{source}.xz").write_bytes(lzma.compress("\0".join(documents).encode()))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("train") / "corpus")


def arguments(corpus: Path, folder: Path) -> list[str]:
    folders = ["--corpus", str(corpus), "--work", str(folder / "work"), "--output", str(folder / "model")]
    return [*folders, "--device", "cpu", "--every", "2", "--rows", "2", *OPTIONS]


@pytest.fixture(scope="module")
def trained(corpus: Path) -> Path:
    """The folder of a run that nothing interrupted."""
    with torch.random.fork_rng():
        script.main(arguments(corpus, corpus.parent / "straight"))
    return corpus.parent / "straight"


def test_a_resumed_run_equals_a_straight_one(
    corpus: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = script.Trainer.save

    def save_and_die(self: script.Trainer, path: Path) -> None:
        save(self, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script.Trainer, "save", save_and_die)
        with pytest.raises(SystemExit, match="goes on from the last checkpoint"):
            script.main(arguments(corpus, tmp_path))
    assert torch.load(tmp_path / "work/checkpoint.pt")["step"] == 2
    torch.manual_seed(99)
    script.main(arguments(corpus, tmp_path))
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "model" / file).read_bytes() == (trained / "model" / file).read_bytes()


def test_the_export_equals_the_trained_network(trained: Path) -> None:
    exported = GPT2LMHeadModel.from_pretrained(trained / "model", dtype=torch.float32).eval()
    network = script.build_model(script.Recipe(**TOY)).eval()
    network.load_state_dict(torch.load(trained / "work/checkpoint.pt")["model"])
    rounded = network.half().float()  # the export is float16
    ids = torch.arange(280).remainder(256)[None, :256]
    with torch.no_grad():
        torch.testing.assert_close(exported(ids).logits, rounded(ids).logits, atol=1e-5, rtol=0)
    config = exported.config
    assert (config.activation_function, config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (
        "gelu_new",
        0,
        0,
        0,
    )
    assert (config.bos_token_id, config.eos_token_id, config.vocab_size) == (0, 0, 280)


@pytest.fixture(scope="module")
def tokenizer(trained: Path) -> GPT2Tokenizer:
    return AutoTokenizer.from_pretrained(trained / "model")


def test_the_tokenizer_gives_any_text_back(tokenizer: GPT2Tokenizer) -> None:
    everywhere = "".join(chr(code) for code in range(0, 0x110000, 61) if not 0xD800 <= code < 0xE000)
    text = f"  It's\t naïve ,\r\n\n 🎭\u200d\x00 — 東京  ok <|endoftext|> {everywhere} "
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_documents_begin_with_an_end_of_text(tokenizer: GPT2Tokenizer) -> None:
    first, second = script.encode(tokenizer, ["One.", "Two."])
    assert (first[0], second[0]) == (0, 0)
    assert tokenizer.decode(np.concatenate([first, second])) == "<|endoftext|>One.<|endoftext|>Two."


def test_held_out_documents_are_never_trained_on(corpus: Path, trained: Path) -> None:
    train, held_out = script.read_corpus(corpus, script.Recipe())
    assert held_out == json.loads(lzma.decompress((corpus / script.HELD_OUT).read_bytes()))
    assert {source: (len(train[source]), len(held_out[source])) for source in train} == {
        "letters": (39, 1),
        "storybooks": (39, 1),
    }
    assert not {*train["letters"]} & {*held_out["letters"]}


def test_an_epoch_takes_documents_as_often_as_they_weigh() -> None:
    documents = {"one": ["a"], "half": [str(index) for index in range(400)]}
    taken = script.epoch(documents, script.Recipe(weights={"one": 3, "half": 1.5}))
    assert taken.count("a") == 3
    assert {taken.count(each) for each in documents["half"]} == {1, 2}
    assert len(taken) == pytest.approx(603, abs=40)
    assert taken == script.epoch(documents, script.Recipe(weights={"one": 3, "half": 1.5}))
    assert taken != sorted(taken)


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    recipe = script.Recipe(steps=100, warmup=0.1, decay=0.2)
    assert [recipe.rate_factor(step) for step in (5, 10, 80, 90, 100)] == pytest.approx([0.5, 1, 1, 0.5, 0])


def test_muon_steps_by_an_orthogonal_matrix() -> None:
    wide, tall = (torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 32), (32, 8)))
    before = [each.detach().clone() for each in (wide, tall)]
    (wide.square().sum() + tall.square().sum()).backward()
    muon = script.Muon([wide, tall], weight_decay=0)
    for group in muon.param_groups:
        group["lr"] = 0.1
    muon.step()
    for each, old, stretch in zip((wide, tall), before, (2, 1), strict=True):
        moved = torch.linalg.svdvals((old - each.detach()) / 0.1)
        torch.testing.assert_close(moved, torch.full((8,), float(stretch)), atol=0.1 * stretch, rtol=0)


def test_what_cannot_be_trained_is_refused_in_a_sentence(corpus: Path, trained: Path, tmp_path: Path) -> None:
    given_tokenizer = ["--tokenizer", str(trained / "model")]
    for changes, reason in (
        ([*arguments(corpus, trained), "--set", "seed=7"], "another recipe or other tokens"),
        ([*arguments(corpus, tmp_path), "--set", "stepz=7"], "no number 'stepz'"),
        ([*arguments(corpus, tmp_path), "--set", "context=9999999"], "too few"),
        (arguments(tmp_path, tmp_path), "has no docs-SOURCE.xz"),
        ([*arguments(corpus, tmp_path), "--tokenizer", "nowhere"], "nowhere is no folder"),
        ([*arguments(corpus, tmp_path / "new"), *given_tokenizer, "--set", "vocabulary=99"], "has 280 tokens"),
    ):
        with pytest.raises(SystemExit, match=reason):
            script.main(changes)


def test_evaluation_prints_the_figures_of_a_card(
    corpus: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(["--corpus", str(corpus), "--device", "cpu", "--evaluate", str(trained / "model")])
    printed = capsys.readouterr().out
    assert "attention to the first token: " in printed
    assert "| storybooks |" in printed
    assert printed.count("--- sample\nHello, I'm a language model,") == 5
