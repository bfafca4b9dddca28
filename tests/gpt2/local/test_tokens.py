# ruff: noqa: S106 # the name of a special token is no password
"""Every tokenizer's tokens as their text, and prompts that it cannot read refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from bot.errors import InvalidInputError
from bot.figures.drawing.tokens import token_labels
from bot.gpt2.local.tokens import describe, encode

if TYPE_CHECKING:
    from bot.gpt2.model.loading import LoadedModel


def model_with(tokenizer: Tokenizer, **special: str) -> LoadedModel:
    """Return what `bot.gpt2.local.tokens` knows of a model."""
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]
    info = SimpleNamespace(name="tiny", vocabulary=tokenizer.get_vocab_size())
    return cast("LoadedModel", SimpleNamespace(tokenizer=fast, info=info))


def numbered(*names: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def wordpiece() -> LoadedModel:
    vocabulary = numbered("[UNK]", "[CLS]", "[SEP]", "你", "好", "think", "##ing", "##好")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return model_with(tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def metaspace() -> LoadedModel:
    pieces = [("<unk>", 0.0), ("\u2581안녕", -1.0), ("하세요", -1.0), ("\u2581세계", -1.0), ("\u2581", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return model_with(tokenizer, unk_token="<unk>")


def sentencepiece() -> LoadedModel:
    """As LLaMA's: characters without a token become tokens for their bytes."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "h", "i", "\u2581h", "\u2581hi"]
    merges = [("\u2581", "h"), ("\u2581h", "i")]
    tokenizer = Tokenizer(models.BPE(numbered(*names), merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return model_with(tokenizer, unk_token="<unk>")


def byte_level(*names: str) -> LoadedModel:
    """As GPT-2's, but only with these tokens."""
    tokenizer = Tokenizer(models.BPE(numbered("<|endoftext|>", *names), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return model_with(tokenizer, eos_token="<|endoftext|>")


def character_bpe() -> LoadedModel:
    tokenizer = Tokenizer(models.BPE(numbered("h", "i", "i</w>"), [], end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder()
    return model_with(tokenizer)


def words() -> LoadedModel:
    tokenizer = Tokenizer(models.WordLevel(numbered("[UNK]", "hello", "世界"), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return model_with(tokenizer, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("model", "text", "labels"),
    [
        (wordpiece(), "你好 thinking 日", ["[CLS]", "你", "好", "think", "##ing", "[UNK]", "[SEP]"]),
        (metaspace(), "안녕하세요 세계", ["·안녕", "하세요", "·세계"]),
        (sentencepiece(), "hi 日", ["·hi", "·", "日 E6", "日 97", "日 A5"]),
        (byte_level("h", "i", "\u0120", "æ", "Ĺ", "¥"), "hi 日", ["h", "i", "·", "日 E6", "日 97", "日 A5"]),
        (character_bpe(), "hi", ["h", "i·"]),
        (words(), "hello 世界 x", ["hello", "世界", "[UNK]"]),
    ],
)
def test_tokens_are_drawn_as_their_text(model: LoadedModel, text: str, labels: list[str]) -> None:
    assert token_labels(describe(model, encode(model, text)).pieces) == labels


def test_a_token_that_no_tokenizer_has_is_nothing() -> None:
    assert describe(byte_level("h"), [1, 99]).pieces == (b"h", b"")


def test_a_name_that_is_not_in_bytes_stays_as_it_is() -> None:
    """A word that was put into a byte-level vocabulary by hand."""
    assert describe(byte_level("日本"), [1]).pieces == ("日本".encode(),)


def test_a_text_without_any_token_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="tiny has no token for any character of this text"):
        encode(byte_level("h", "i"), "日本語")
    assert encode(byte_level("h", "i"), "") == []
