"""The messages between a bot and a cluster: serialization of this program's values.

Unlike pickle, decoding can run no code: it builds only the frozen dataclasses that are listed here, through their
validating constructors. A message is JSON followed by the memory of its arrays, which decoding does not copy.
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
from bot.gpt2 import model_info, prediction, questions, requests, statistics, writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.gpt2.requests import Sample
    from bot.gpt2.statistics import Statistics
    from bot.text import Text

    Array = np.ndarray[Any, np.dtype[Any]]

MAX_BYTES: Final = 2**30
"""Size limit of a received message."""

_LENGTH: Final = struct.Struct(">I")
_KINDS: Final = "?biufc"  # arrays of numbers, no objects


class MalformedMessageError(ValueError):
    """A message that this version cannot decode."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The acceptance of a request.

    Attributes:
        prompt_tokens: Number of the prompt's tokens; None if no replica could count them.
    """

    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class Output:
    """The partial or complete output of a request.

    Attributes:
        prompt_tokens: Number of the prompt's tokens.
        samples: The samples as of now.
        seconds: Since the start of the computation.
        seconds_left: Until the estimated end.
        done: Whether the output is complete.
    """

    prompt_tokens: int
    samples: tuple[Sample, ...]
    seconds: float
    seconds_left: float
    done: bool

    @property
    def tokens(self) -> int:
        """Number of new tokens in all samples."""
        return sum(len(sample.token_ids) for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A serialized `UserError`.

    Attributes:
        kind: Name of its class.
        text: The text for the user.
    """

    kind: str
    text: Text


@dataclass(frozen=True, slots=True)
class About:
    """The model of a cluster's replicas.

    Attributes:
        model_name: The operator's name for it.
        model: Its public description.
        parameters: The entries of its state dict.
    """

    model_name: str
    model: ModelInfo
    parameters: tuple[ParameterInfo, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a cluster.

    Attributes:
        about: Hash of the current `About`; None while no replica has loaded the model.
        waiting: Continuations accepted and not yet answered, of all bots.
        replicas: Number of running replicas.
        computing: Names of the replicas heard of in the last minute.
        tokens_per_second: Recent speed of all replicas together; None before the first measurement.
        statistics: The work of each current replica by name.
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


def to_refusal(error: UserError) -> Refusal:
    """Convert an error for the user to a message."""
    return Refusal(type(error).__name__, error.text)


def to_error(refusal: Refusal) -> UserError:
    """Convert a refusal back to the error."""
    if refusal.kind == ModelNotLoadedError.__name__:
        return ModelNotLoadedError()
    return _REFUSALS.get(refusal.kind, UnavailableError)(refusal.text)


def encode(value: object) -> bytes:
    """Encode a value as a message.

    Args:
        value: None, numbers, text, bytes, lists, tuples, ranges, mappings, arrays of numbers, and the dataclasses and
            enums of `bot.text`, this module, and `requests`, `model_info`, `questions`, `writing` and `statistics` in
            `bot.gpt2`.

    Raises:
        TypeError: The value contains anything else.
    """
    arrays: list[Array] = []
    head = json.dumps(_pack(value, arrays), separators=(",", ":")).encode("ascii")
    return b"".join([_LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays)])


def decode(message: bytes) -> Any:
    """Decode a message.

    Raises:
        MalformedMessageError: The message cannot be decoded.
        InvalidInputError: Its value fails validation.
    """
    try:
        (length,) = _LENGTH.unpack_from(message)
        head = json.loads(message[_LENGTH.size : _LENGTH.size + length])
        return _Decoder(memoryview(message)[_LENGTH.size + length :]).unpack(head)
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
    """Prefix a message with its length, for a stream; an empty message is a keepalive."""
    return _LENGTH.pack(len(message)) + message


async def messages(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the messages of a stream, including empty ones.

    Raises:
        MalformedMessageError: A message is too long, or the stream ends within one.
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


def _serializable() -> dict[str, type[Any]]:
    """Return the types in messages by name: public frozen dataclasses, named tuples and enums of these modules."""
    types = [
        each
        for module in (text, requests, model_info, prediction, questions, writing, statistics)
        for name, each in vars(module).items()
        if isinstance(each, type) and each.__module__ == module.__name__ and not name.startswith("_")
    ]
    types += [Accepted, Output, Refusal, About, Status]
    return {
        each.__name__: each
        for each in types
        if dataclasses.is_dataclass(each) or issubclass(each, enum.Enum) or hasattr(each, "_fields")
    }


_TYPES: Final = _serializable()


def _pack(value: object, arrays: list[Array]) -> object:  # noqa: C901, PLR0911 # one for each kind
    """Convert to JSON: scalars stay, tuples become arrays, and everything else an object with the type's name."""
    kind = type(value)
    if _TYPES.get(kind.__name__) is kind:
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
                raise TypeError(f"an array of {array.dtype} cannot be encoded")
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
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} cannot be encoded")


class _Decoder:
    """The decoder of one message."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._offset = 0  # of the next array

    def unpack(self, value: Any) -> Any:  # noqa: PLR0911 # one for each kind
        """Convert from the JSON of `_pack`."""
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
        found = _TYPES[kind]
        if issubclass(found, enum.Enum):
            return found[parts]
        return found(*(self.unpack(part) for part in parts))

    def _array(self, dtype: np.dtype[Any], shape: list[int]) -> Array:
        if dtype.kind not in _KINDS or any(size < 0 for size in shape):
            raise ValueError(f"an array of {dtype}, {shape}")
        count = math.prod(shape)
        array = np.frombuffer(self._memory, dtype, count, self._offset) if count else np.empty(0, dtype)
        self._offset += array.nbytes
        return array.reshape(shape)
