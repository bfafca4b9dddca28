"""A text that grows token by token: a prompt, and the tokens written after it.

The message shows the whole text, and buttons hold the lengths of the written tokens, so that GPT-2 reads exactly these
tokens again, and the last one can be taken back. A token may end within a character; its bytes, which no text can show
yet, stand in the buttons too.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from bot.errors import InvalidInputError
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOKENS: Final = 36
"""Tokens that the 100 characters of a custom_id can hold beside the settings; earlier ones join the prompt."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class WrittenText:
    """A prompt and the tokens after it.

    Attributes:
        prompt: The text that the tokenizer splits.
        pieces: The bytes of each token after it.
    """

    prompt: str
    pieces: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, text: str, lengths: str, tail: str) -> WrittenText:
        """Return the text that a message and its buttons hold.

        Raises:
            InvalidInputError: They do not fit together.
        """
        whole, ends, prompt = b"", [-1], ""
        try:
            whole, sizes = text.encode() + bytes.fromhex(tail), [int(digit, 36) for digit in lengths]
            ends = list(accumulate(sizes, initial=len(whole) - sum(sizes)))
            prompt = whole[: max(ends[0], 0)].decode()
        except ValueError:
            ends = [-1]
        if ends[0] < 0:
            raise InvalidInputError(say("I can no longer read the prompt from this message. Use the command again."))
        return cls(prompt, tuple(whole[start:stop] for start, stop in pairwise(ends)))

    @classmethod
    def of(cls, prompt: str, pieces: Sequence[bytes]) -> WrittenText:
        """Return a text that a message and its buttons can hold.

        The first tokens join the prompt if there are too many, or if one is too long for its digit. So do all if
        their bytes are no text: they become U+FFFD, as in any decoded continuation.
        """
        pieces = [piece for piece in pieces if piece]  # a model may have tokens that its tokenizer lacks
        first = max((place for place, piece in enumerate(pieces, 1) if len(piece) >= len(_DIGITS)), default=0)
        first = max(first, len(pieces) - MAX_TOKENS)
        try:
            _decoded(b"".join(pieces))
            # The prompt must not end within a character.
            while first < len(pieces) and _decoded(b"".join(pieces[:first]))[1]:
                first += 1
            return cls(prompt + b"".join(pieces[:first]).decode(), tuple(pieces[first:]))
        except UnicodeDecodeError:
            return cls(prompt + b"".join(pieces).decode(errors="replace"))

    @property
    def text(self) -> str:
        """The whole text, without an incomplete character at its end."""
        return self.prompt + self.written

    @property
    def written(self) -> str:
        """The text of the tokens, without an incomplete character at its end."""
        return _decoded(b"".join(self.pieces))[0]

    @property
    def lengths(self) -> str:
        """The number of bytes of each token, a digit each."""
        return "".join(_DIGITS[len(piece)] for piece in self.pieces)

    @property
    def tail(self) -> str:
        """The bytes of an incomplete character at the end, in hexadecimal."""
        return _decoded(b"".join(self.pieces))[1].hex()


def _decoded(content: bytes) -> tuple[str, bytes]:
    """Return the text of bytes, and those of an incomplete character at their end.

    Raises:
        UnicodeDecodeError: They are no beginning of a text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    return decoder.decode(content), decoder.getstate()[0]
