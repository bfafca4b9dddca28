"""Encoding and decoding of messages, which can build only the listed types."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import InvalidInputError, ModelNotLoadedError, UnavailableError
from bot.gpt2 import model_info, questions, requests, statistics, writing
from bot.gpt2.cluster import protocol
from bot.gpt2.model_info import ModelInfo, ParameterInfo, ParameterSlice
from bot.gpt2.requests import Continuation, ContinuationRequest, Progress, Queued, Sample, SamplingParams
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

REQUEST = ContinuationRequest("a “b”\n\x00 ではない", SamplingParams(2**32 - 1, samples=3, temperature=0.1))
INFO = ParameterInfo("wpe", (3, 4), "float16", stored=True)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(range, st.integers(0, 99), st.integers(0, 99))
    ),
    max_leaves=20,
)


@given(values)
def test_what_is_sent_arrives(value: Any) -> None:
    arrived = protocol.decode(protocol.encode(value))
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        REQUEST,
        Continuation(REQUEST, 5, (Sample((1, 2), "x", ended=True),), 1.5, stopped=True),
        Queued(3, 0.25),
        Progress(((1,), ()), ("a", ""), 1.0),
        ParameterSlice(INFO, range(2), range(1, 4)),
        ModelInfo("m", 1, 2, 3, 4, 5, 6, "cpu", missing=("a", "b")),
        say("{a} and {b}", a=say("inner {c}", c=1), b="@everyone"),
        protocol.Output(4, (Sample((), "\ufffd", ended=False),), 0.5, 1.0, done=False),
        protocol.Status(None, 0, 2, ("a",), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_the_engine_exchanges_can_be_sent(value: object) -> None:
    assert protocol.decode(protocol.encode(value)) == value


@pytest.mark.parametrize(
    "module", [requests, model_info, questions, writing, statistics], ids=lambda module: module.__name__
)
def test_every_dataclass_that_can_be_asked_is_known(module: ModuleType) -> None:
    own = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
    frozen = {each.__name__ for each in own if isinstance(each, type) and dataclasses.is_dataclass(each)}
    assert frozen
    assert frozen <= protocol._TYPES.keys()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.zeros((0, 4), dtype=np.int64),
        np.array(7.5, dtype=np.float16),
        np.array([True, False]),
        np.array([[np.nan, -np.inf]]),
    ],
    ids=str,
)
def test_arrays_keep_shape_type_and_values(array: Any) -> None:
    first, between, second = protocol.decode(protocol.encode((array, "between", {"deep": [array]})))
    for arrived in (first, second["deep"][0]):
        assert (arrived.shape, arrived.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(arrived, array)
    assert between == "between"
    assert protocol.decode(protocol.encode(np.float32(2.5))) == np.float32(2.5)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, np.array([object()]), print], ids=["object", "set", "array", "function"]
)
def test_anything_else_is_not_sent(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be encoded"):
        protocol.encode(value)


def message(head: str) -> bytes:
    return struct.pack(">I", len(head)) + head.encode()


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xff\xff\xff\xff{}",
        pickle.dumps(print),
        message("{"),
        message('{"eval":["1"]}'),
        message('{"Popen":["true"]}'),
        message('{"ContinuationRequest":[]}'),
        message('{"Sample":[[1],"a",true,4,5]}'),
        message('{"array":["<f4",1000000]}'),
        message('{"array":["<f4",-1]}'),
        message('{"array":["O",1]}'),
        message('{"range":["a"]}'),
        message('{"a":1,"b":2}'),
        message("[" * 100_000),
    ],
    ids=range(14),
)
def test_bytes_that_are_no_message_are_told_so(hostile: bytes) -> None:
    with pytest.raises(protocol.MalformedMessageError):
        protocol.decode(hostile)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_else(noise: bytes) -> None:
    with contextlib.suppress(protocol.MalformedMessageError):
        protocol.decode(message(noise.decode("latin-1")) if len(noise) % 2 else noise)


def test_a_request_is_validated_where_it_arrives() -> None:
    head = protocol.encode(REQUEST)[4:].replace(b'"ContinuationRequest":[', b'"ContinuationRequest":[').decode()
    with pytest.raises(InvalidInputError, match="samples must be from 1 to 10, not 99"):
        protocol.decode(message(head.replace(",3,40,", ",99,40,")))


@pytest.mark.parametrize(
    "error",
    [InvalidInputError(say("a {b}", b=1)), UnavailableError(say("c")), ModelNotLoadedError()],
    ids=lambda error: type(error).__name__,
)
def test_refusals_arrive_as_the_errors_they_were(error: Any) -> None:
    arrived = protocol.to_error(protocol.decode(protocol.encode(protocol.to_refusal(error))))
    assert (type(arrived), arrived.text) == (type(error), error.text)


@given(st.lists(st.binary(max_size=9)), st.integers(1, 7))
async def test_messages_are_found_in_any_pieces_of_a_stream(sent: list[bytes], size: int) -> None:
    stream = b"".join(map(protocol.framed, sent))

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(stream), size):
            yield stream[begin : begin + size]

    assert [each async for each in protocol.messages(pieces())] == sent


@pytest.mark.parametrize("stream", [b"\x00", b"\x00\x00\x00\x05abc", b"\xff\xff\xff\xff"], ids=repr)
async def test_a_broken_stream_is_told_so(stream: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield stream

    with pytest.raises(protocol.MalformedMessageError):
        await anext(aiter(protocol.messages(pieces())))
