"""What goes between a bot and the cluster that computes for it: values of this program as bytes, and back.

Not pickle, whose bytes are a program: reading here builds nothing but the frozen dataclasses that are listed, through
their own constructors, which validate. A message is JSON, followed by the memory of the arrays in it; arrays are not
copied when they are read.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from bot import text
from bot.errors import InvalidInputError, ModelNotLoadedError, UnavailableError, UserError
from bot.gpt2 import questions, requests, statistics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.gpt2.requests import Sample
    from bot.gpt2.statistics import Statistics
    from bot.text import Text

    Array = np.ndarray[Any, np.dtype[Any]]

MAX_BYTES: Final = 2**30
"""Longest message that is read."""

_LENGTH: Final = struct.Struct(">I")
_KINDS: Final = "?biufc"  # arrays of numbers, no objects


class MalformedMessageError(ValueError):
    """Bytes that are no message of this program's version."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was taken.

    Attributes:
        prompt_tokens: How many tokens its prompt has; None while no model can count them.
    """

    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class Output:
    """What a request has so far, or all of it.

    Attributes:
        prompt_tokens: How many tokens its prompt has.
        samples: As they would be if it were stopped now.
        seconds: Since its computation began.
        left: Seconds until it is done.
        done: Whether this is all.
    """

    prompt_tokens: int
    samples: tuple[Sample, ...]
    seconds: float
    left: float
    done: bool

    @property
    def tokens(self) -> int:
        """New tokens of all samples."""
        return sum(len(sample.token_ids) for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A `UserError` on its way.

    Attributes:
        kind: Its class.
        text: What the user reads.
    """

    kind: str
    text: Text


@dataclass(frozen=True, slots=True)
class About:
    """The model of a cluster, which all replicas have.

    Attributes:
        model_name: As the cluster's host gave it.
        shipped: Whether it is the one that ships with the bot.
        model: What people may know of it.
        parameters: The entries of its state dict.
    """

    model_name: str
    shipped: bool
    model: ModelInfo
    parameters: tuple[ParameterInfo, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """How a cluster is doing.

    Attributes:
        about: Tells one `About` from another; None while no replica has loaded the model.
        waiting: Continuations accepted and not yet answered, of all bots.
        replicas: How many can compute.
        computing: The names of those that were heard of in the last minute.
        tokens_per_second: Of late, all replicas together; None before anything was measured.
        statistics: What each replica of today has done, by its name.
    """

    about: str | None
    waiting: int
    replicas: int
    computing: tuple[str, ...]
    tokens_per_second: float | None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)


_REFUSALS: Final[dict[str, type[UserError]]] = {
    kind.__name__: kind for kind in (InvalidInputError, UnavailableError, ModelNotLoadedError)
}


def refusal(error: UserError) -> Refusal:
    """An error for the user, to be sent."""
    return Refusal(type(error).__name__, error.text)


def to_error(sent: Refusal) -> UserError:
    """The error that was sent."""
    if sent.kind == ModelNotLoadedError.__name__:
        return ModelNotLoadedError()
    return _REFUSALS.get(sent.kind, UnavailableError)(sent.text)


def encode(value: object) -> bytes:
    """A message.

    Args:
        value: None, numbers, text, bytes, lists, tuples, ranges, mappings, arrays of numbers, and the dataclasses and
            enums of `bot.gpt2.requests`, `questions` and `tally`, `bot.text` and this module.

    Raises:
        TypeError: Something else is in it.
    """
    arrays: list[Array] = []
    head = json.dumps(_pack(value, arrays), separators=(",", ":")).encode("ascii")
    return b"".join([_LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays)])


def decode(message: bytes) -> Any:
    """The value of a message.

    Raises:
        MalformedMessageError: This is no message.
        InvalidInputError: Its sender asks for what cannot be.
    """
    try:
        (length,) = _LENGTH.unpack_from(message)
        head = json.loads(message[_LENGTH.size : _LENGTH.size + length])
        return _Reader(memoryview(message)[_LENGTH.size + length :]).unpack(head)
    except UserError:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        raise MalformedMessageError(f"not a message of this version: {error!r}") from error


def framed(message: bytes) -> bytes:
    """A message with its length before it, for a stream of several. No bytes at all say: I am still here."""
    return _LENGTH.pack(len(message)) + message


async def messages(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages of a stream, the empty ones too.

    Raises:
        MalformedMessageError: The stream is not one of ours, or ends within a message.
    """
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > MAX_BYTES:
                raise MalformedMessageError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(buffer) < end:
                break
            message = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            yield message
    if buffer:
        raise MalformedMessageError("the stream ended within a message")


def _known() -> dict[str, type[Any]]:
    """By name, what may be in a message: the public frozen dataclasses, named tuples and enums of these modules."""
    spoken = [
        each
        for module in (text, requests, questions, statistics)
        for name, each in vars(module).items()
        if isinstance(each, type) and each.__module__ == module.__name__ and not name.startswith("_")
    ]
    spoken += [Accepted, Output, Refusal, About, Status]
    return {
        each.__name__: each
        for each in spoken
        if dataclasses.is_dataclass(each) or issubclass(each, enum.Enum) or hasattr(each, "_fields")
    }


_KNOWN: Final = _known()


def _pack(value: object, arrays: list[Array]) -> object:  # noqa: C901, PLR0911 # one for each kind
    """JSON: scalars are themselves, arrays are tuples, an object with one entry is whatever its name says."""
    kind = type(value)
    if _KNOWN.get(kind.__name__) is kind:
        if isinstance(value, enum.Enum):
            return {kind.__name__: value.name}
        if isinstance(value, tuple):
            return {kind.__name__: [_pack(each, arrays) for each in value]}
        parts = [getattr(value, field.name) for field in dataclasses.fields(cast("Any", value)) if field.init]
        return {kind.__name__: [_pack(part, arrays) for part in parts]}
    match value:
        case np.ndarray() | np.generic():
            array = np.asarray(value)
            if array.dtype.kind not in _KINDS:
                raise TypeError(f"an array of {array.dtype} cannot be sent")
            arrays.append(array)
            return {"scalar" if isinstance(value, np.generic) else "array": [array.dtype.str, *array.shape]}
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return [_pack(each, arrays) for each in value]
        case bytes():
            return {"bytes": value.hex()}
        case list():
            return {"list": [_pack(each, arrays) for each in value]}
        case range():
            return {"range": [value.start, value.stop, value.step]}
        case Mapping():
            return {"dict": [[_pack(key, arrays), _pack(each, arrays)] for key, each in value.items()]}
        case _:
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be sent")


class _Reader:
    """Builds the value of one message."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._begin = 0  # of the next array

    def unpack(self, value: Any) -> Any:  # noqa: PLR0911 # one for each kind
        if isinstance(value, list):
            return tuple(self.unpack(each) for each in value)
        if not isinstance(value, dict):
            return value
        ((kind, parts),) = value.items()
        match kind:
            case "array" | "scalar":
                array = self._array(np.dtype(parts[0]), parts[1:])
                return array if kind == "array" else array[()]
            case "bytes":
                return bytes.fromhex(parts)
            case "list":
                return [self.unpack(each) for each in parts]
            case "range":
                return range(*parts)
            case "dict":
                return {self.unpack(key): self.unpack(each) for key, each in parts}
        known = _KNOWN[kind]
        if issubclass(known, enum.Enum):
            return known[parts]
        return known(*(self.unpack(part) for part in parts))

    def _array(self, dtype: np.dtype[Any], shape: list[int]) -> Array:
        if dtype.kind not in _KINDS or any(size < 0 for size in shape):
            raise ValueError(f"an array of {dtype}, {shape}")
        count = math.prod(shape)
        array = np.frombuffer(self._memory, dtype, count, self._begin) if count else np.empty(0, dtype)
        self._begin += array.nbytes
        return array.reshape(shape)
