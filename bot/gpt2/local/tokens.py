"""Texts to tokens, and tokens to texts and to the bytes that pictures show."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from transformers.convert_slow_tokenizer import bytes_to_unicode

from bot.errors import InvalidInputError
from bot.gpt2.questions import Tokens
from bot.gpt2.requests import Sample
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from bot.gpt2.model.loading import LoadedModel
    from bot.gpt2.requests import ContinuationRequest

_BYTES: Final = {character: bytes([byte]) for byte, character in bytes_to_unicode().items()}
_BYTE_TOKEN: Final = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's, for a character without a token
# How vocabularies mark a space, and two tokens "a" and "b" with one between them.
_SPACES: Final = (("\u2581", ("a", "\u2581b")), ("</w>", ("a</w>", "b")))


def encode(model: LoadedModel, text: str) -> list[int]:
    """Return the token ids of a text, as the text-generation pipeline has them.

    Raises:
        InvalidInputError: The tokenizer has no token for any of it, or one that the model does not know.
    """
    ids: list[int] = model.tokenizer(text, verbose=False)["input_ids"]
    if text and not ids:
        raise InvalidInputError(
            say("{model} has no token for any character of this text. Write something else.", model=model.info.name)
        )
    unknown = next((token for token in ids if token >= model.info.vocabulary), None)
    if unknown is not None:
        raise InvalidInputError(
            say(
                "The token “{token}” in this text was added to {model}'s tokenizer, but the model never learned it. "
                "Leave it out.",
                token=model.tokenizer.convert_ids_to_tokens(unknown),
                model=model.info.name,
            )
        )
    return ids


def tokenize_prompt(model: LoadedModel, request: ContinuationRequest) -> list[int]:
    """Return the prompt's token ids.

    Raises:
        InvalidInputError: The model cannot read the prompt, or prompt and continuation exceed the context.
    """
    ids = encode(model, request.prompt)
    room = model.info.context - request.params.length
    if len(ids) > room:
        raise InvalidInputError(
            say(
                "The prompt has {count} tokens. With a length of {length}, at most {room} fit into {model}'s context "
                "of {context}: shorten the prompt or the length.",
                count=len(ids),
                length=request.params.length,
                room=max(room, 0),
                model=model.info.name,
                context=model.info.context,
            )
        )
    return ids


def decode_samples(model: LoadedModel, rows: Sequence[Sequence[int]]) -> tuple[Sample, ...]:
    """Decode the new tokens of each sample, without special ones, as `TextGenerationPipeline` does.

    `generate` pads samples that ended early to the length of the longest, and the pipeline decodes the padding, too. It
    shows only if a model pads with a token that is not special.
    """
    longest, padding = max(map(len, rows)), model.endings.padding
    samples = []
    for row in rows:
        padded = list(row) if padding is None else [*row, *[padding] * (longest - len(row))]
        text = str(model.tokenizer.decode(padded, skip_special_tokens=True))
        samples.append(Sample(tuple(row), text, ended=bool(row) and row[-1] in model.endings.tokens))
    return tuple(samples)


def decode_so_far(model: LoadedModel, tokens: tuple[int, ...]) -> str:
    """Decode as `decode_samples` does without padding, and without an incomplete character at the end."""
    return str(model.tokenizer.decode(list(tokens), skip_special_tokens=True)).rstrip("\ufffd")


def describe(model: LoadedModel, ids: Sequence[int]) -> Tokens:
    """Return the tokens with the bytes that each stands for.

    A token that was added to the vocabulary, such as ``<|endoftext|>``, is stored as plain text. The model's
    vocabulary may be larger than the tokenizer's; tokens beyond it have no bytes.
    """
    added, in_bytes = model.tokenizer.added_tokens_decoder, _spelling(model.tokenizer)
    names = (name or "" for name in model.tokenizer.convert_ids_to_tokens(list(ids)))
    pieces = (name.encode() if token in added else in_bytes(name) for token, name in zip(ids, names, strict=True))
    return Tokens(tuple(ids), tuple(pieces))


def look_up(model: LoadedModel, pieces: Sequence[bytes]) -> list[int]:
    """Return the token that stands for each of these bytes: the inverse of `describe`.

    Raises:
        InvalidInputError: The vocabulary lacks one of them.
    """
    found = find_pieces(model, pieces)
    known = [token for token in found if token is not None]
    if len(known) < len(found):
        raise InvalidInputError(say("I can no longer read the prompt from this message. Use the command again."))
    return known


def find_pieces(model: LoadedModel, pieces: Sequence[bytes]) -> list[int | None]:
    """Return the token that stands for each of these bytes, or None where the vocabulary has none."""
    if not pieces:
        return []
    vocabulary = range(min(model.info.vocabulary, len(model.tokenizer)))
    # Of tokens with the same bytes the last: SentencePiece begins with its tokens for single bytes.
    by_piece = dict(zip(describe(model, vocabulary).pieces, vocabulary, strict=True))
    return [by_piece.get(piece) for piece in pieces]


def _spelling(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], bytes]:
    """Return the function from a token's name in the vocabulary to its bytes, as the tokenizer's decoder reads it."""
    read = tokenizer.convert_tokens_to_string
    if read(["a", "\u0120b"]) == "a b":
        return _byte_level
    marks = tuple(mark for mark, tokens in _SPACES if read(list(tokens)) == "a b")
    return functools.partial(_plain, marks=marks, byte_tokens=read(["<0x41>"]) == "A")


def _byte_level(name: str) -> bytes:
    """Return the bytes of a token whose name has a character for each (GPT-2's bytes_to_unicode)."""
    parts = [_BYTES.get(character) for character in name]
    known = [part for part in parts if part is not None]
    return b"".join(known) if len(known) == len(parts) else name.encode()


def _plain(name: str, *, marks: Sequence[str], byte_tokens: bool) -> bytes:
    """Return the bytes of a token whose name is text; ``##`` of WordPiece stays, as its decoder shows it."""
    byte = _BYTE_TOKEN.fullmatch(name) if byte_tokens else None
    if byte:
        return bytes.fromhex(byte[1])
    for mark in marks:
        name = name.replace(mark, " ")
    return name.encode()
