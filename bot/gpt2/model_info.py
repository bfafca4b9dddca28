"""The public description of the loaded model: its size, its parameters, and slices of them."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from bot.errors import InvalidInputError
from bot.gpt2.validation import well_formed
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Iterable

POSITIONAL_EMBEDDING: Final = "transformer.wpe.weight"
DEFAULT_WINDOW: Final = 300  # rows and columns of a matrix shown by default, as in the tutorial
MAX_SLICE_VALUES: Final = 8_000_000  # 32 MB of float32: c_attn of the largest GPT-2, whole
_CHECKSUMS: Final = 36**4 - 1
_HEAD: Final = re.compile(r"(?P<layer>[0-9]{1,4})\.(?P<head>[0-9]{1,4})")
Origin = Literal["hub", "folder", "shipped"]


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """An entry of the model's state dict, without its values.

    Attributes:
        name: Its key, such as ``transformer.h.1.attn.c_attn.weight``.
        shape: One or two dimensions.
        dtype: As stored in the file ("float16"), or "float32" if the file does not hold it.
        stored: Whether the model's file holds it; if not, loading filled it with random values.
        tied_to: The entry whose tensor it shares (``lm_head.weight``), or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: bool
    tied_to: str | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The shape of a two-dimensional parameter."""
        rows, columns = self.shape
        return rows, columns


@dataclass(frozen=True, slots=True)
class ParameterSlice:
    """A parameter, or a part of it.

    Attributes:
        info: The parameter.
        rows: Indices along the first dimension.
        columns: Indices along the second dimension; an empty range for a one-dimensional parameter.

    Raises:
        InvalidInputError: More values than one picture can show.
    """

    info: ParameterInfo
    rows: range
    columns: range

    def __post_init__(self) -> None:
        if self.size > MAX_SLICE_VALUES:
            raise InvalidInputError(
                say(
                    "This slice of {name} has {count} values; at most {limit} fit in one picture. "
                    "Choose fewer rows or columns.",
                    name=self.info.name,
                    count=self.size,
                    limit=MAX_SLICE_VALUES,
                )
            )

    @property
    def flat(self) -> bool:
        """Return whether the parameter has one dimension."""
        return len(self.info.shape) == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return (len(self.rows),) if self.flat else (len(self.rows), len(self.columns))

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @classmethod
    def parse(cls, info: ParameterInfo, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """Parse a user's slice.

        The defaults are the first 300 rows and columns of a matrix, as in the tutorial, and all of a vector.

        Raises:
            InvalidInputError: An invalid slice, or too many values for one picture.
        """
        if len(info.shape) == 1:
            if columns is not None:
                raise InvalidInputError(
                    say("{name} has one dimension: choose its entries with rows and leave out columns.", name=info.name)
                )
            return cls(info, _window(rows, info.shape[0], info.shape[0], say("rows")), range(0))
        return cls(
            info,
            _window(rows, info.shape[0], DEFAULT_WINDOW, say("rows")),
            _window(columns, info.shape[1], DEFAULT_WINDOW, say("columns")),
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The public description of the loaded model.

    Attributes:
        name: The hub name, or the last part of the folder's path.
        layers: Number of transformer blocks.
        heads: Attention heads per block.
        width: Size of the embedding, d_model.
        context: Maximum number of positions, prompt and continuation together.
        vocabulary: Number of tokens.
        parameters: Number of learned values, shared ones counted once.
        device: "cpu" or "cuda".
        precision: Of the weights in memory, "float32", "float16" or "bfloat16"; only float32 equals Transformers.
        missing: State-dict entries that the file does not hold, with random values.
        origin: The hub, a folder of the operator's, or this package.
        fingerprint: Changes with the model's files and with the random values of missing entries.
        unused_settings: Generation settings of the model's files that the bot does not use, such as
            ``repetition_penalty``.
    """

    name: str
    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int
    parameters: int
    device: str
    precision: str = "float32"
    missing: tuple[str, ...] = ()
    origin: Origin = "hub"
    fingerprint: str = ""
    unused_settings: tuple[str, ...] = ()

    def attention_parameter(self, layer: int) -> str:
        """Return the name of a layer's matrix for queries, keys and values; layers count from 1.

        Raises:
            InvalidInputError: There is no such layer.
        """
        self.check_layer(layer)
        return f"transformer.h.{layer - 1}.attn.c_attn.weight"

    def check_layer(self, layer: int) -> None:
        """Refuse a layer that does not exist; layers count from 1.

        Raises:
            InvalidInputError: There is no such layer.
        """
        if not 1 <= layer <= self.layers:
            raise InvalidInputError(
                say(
                    "There is no layer {layer}: {model} has {count}, counted from 1.",
                    layer=layer,
                    model=self.name,
                    count=self.layers,
                )
            )

    def check_head(self, head: int) -> None:
        """Refuse a head that does not exist; heads count from 1.

        Raises:
            InvalidInputError: There is no such head.
        """
        if not 1 <= head <= self.heads:
            raise InvalidInputError(
                say(
                    "There is no head {head}: each layer of {model} has {count}, counted from 1.",
                    head=head,
                    model=self.name,
                    count=self.heads,
                )
            )


def name_checksum(name: str) -> int:
    """Return a checksum of a model's name, never 0, by which buttons know the model of their message."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % _CHECKSUMS + 1


def parse_slice(text: str, length: int, *, what: Text | str) -> range:
    """Parse a user's slice, such as ``"0:300"``, ``"300"`` (the first 300), ``"700:"``, ``":5"`` or ``"7:8"``.

    Args:
        text: The user's input.
        length: Size of the dimension.
        what: The option's name, for messages.

    Raises:
        InvalidInputError: Not a slice, or it is reversed, empty, negative or out of range.
    """
    begin, colon, end = (part.strip() for part in text.strip().partition(":"))
    if not colon:
        begin, end = "0", begin
        if not end:
            raise _not_a_slice(text, what, length)
    start = _index(begin, default=0)
    stop = _index(end, default=length)
    if start is None or stop is None:
        raise _not_a_slice(text, what, length)
    if start >= length or stop > length:
        raise InvalidInputError(
            say(
                "{what} “{text}” is out of range: this dimension has {length} entries, 0 to {last}.",
                what=what,
                text=_shortened(text),
                length=length,
                last=length - 1,
            )
        )
    if start >= stop:
        raise InvalidInputError(
            say(
                "{what} “{text}” is empty: the first number must be smaller than the second, as in {example}.",
                what=what,
                text=_shortened(text),
                example=f"0:{min(300, length)}",
            )
        )
    return range(start, stop)


def parse_indices(text: str, length: int, *, what: Text | str, limit: int) -> tuple[int, ...]:
    """Parse a user's list of indices, such as ``"0, 1, 2"``; keep its order and drop repetitions.

    Raises:
        InvalidInputError: No indices, not numbers, not below `length`, or more than `limit`.
    """
    parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
    indices = tuple(dict.fromkeys(_index(part, default=None) for part in parts))
    known = tuple(index for index in indices if index is not None and index < length)
    if not known or len(known) != len(indices):
        raise InvalidInputError(
            say(
                "{what} “{text}” can't be used: give whole numbers from 0 to {last}, separated by commas, as in 0,1,2.",
                what=what,
                text=_shortened(text),
                last=length - 1,
            )
        )
    if len(known) > limit:
        raise InvalidInputError(
            say("{what} names {count}; at most {limit} fit in one picture.", what=what, count=len(known), limit=limit)
        )
    return known


def parse_heads(text: str) -> tuple[tuple[int, int], ...]:
    """Parse a user's list of heads, such as ``"7.1, 8.6"``: layer and head of each, counted from 1.

    Raises:
        InvalidInputError: No heads, or something else among them.
    """
    parts = re.split(r"[,;\s]+", text.strip(" ,;\n"))
    heads = [_HEAD.fullmatch(part) for part in parts]
    if not all(heads):
        raise InvalidInputError(
            say(
                "“{text}” can't be used: name heads as layer.head, separated by commas, as in 7.1, 8.6.",
                text=_shortened(text),
            )
        )
    return tuple((int(head["layer"]), int(head["head"])) for head in heads if head)


def heads_text(heads: Iterable[tuple[int, int]]) -> str:
    """Return what `parse_heads` parses: ``"7.1,8.6"``."""
    return ",".join(f"{layer}.{head}" for layer, head in heads)


def _window(text: str | None, size: int, default: int, what: Text) -> range:
    return range(min(default, size)) if text is None else parse_slice(text, size, what=what)


def _index(text: str, *, default: int | None) -> int | None:
    """Parse a non-negative number in ASCII digits; return `default` for an empty text, None for anything else."""
    if not text:
        return default
    # Nine digits are enough for any dimension, and far from the limit of int() itself.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None  # noqa: PLR2004


def _shortened(text: str, limit: int = 40) -> str:
    text = well_formed(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _not_a_slice(text: str, what: Text | str, length: int) -> InvalidInputError:
    return InvalidInputError(
        say(
            "{what} “{text}” is not a slice: write it as {example}, 300 (the first 300) or 700: (from 700 on).",
            what=what,
            text=_shortened(text),
            example=f"0:{min(300, length)}",
        )
    )
