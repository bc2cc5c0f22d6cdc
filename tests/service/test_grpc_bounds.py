"""Messages of very many parts: counted before they are read, and refused."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import repository
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from test_held_memory import MIB, grown

from service.protocols import grpc_messages
from service.protocols.grpc_bounds import MOST_FIELDS, texts, within

CLASSES = grpc_messages.classes()


def field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


MANY: dict[str, Callable[[int], bytes]] = {
    "inputs": lambda n: field(5, b"") * n,
    "outputs": lambda n: field(6, b"") * n,
    "parameters": lambda n: field(4, b"") * n,
    "an input's parameters": lambda n: field(5, field(4, b"") * (n - 1)),
    "an output's parameters": lambda n: field(6, field(2, b"") * (n - 1)),
    "values": lambda n: field(5, field(4, field(2, b"\x08\x01" * (n - 3)))),
    "unknown numbers": lambda n: b"\x78\x01" * n,
    "unknown fixed": lambda n: b"\x79" + (b"\x00" * 8 + b"\x79") * (n - 1) + b"\x00" * 8,
}


@pytest.mark.parametrize("kind", MANY)
def test_each_field_counts_at_each_depth(kind: str):
    assert within(MANY[kind](50), "ModelInfer", 50)
    assert not within(MANY[kind](51), "ModelInfer", 50)


def test_tensors_are_few_fields_however_long_they_are():
    request = CLASSES["ModelInferRequest"](model_name="m", id="1")
    request.parameters["a"].int64_param = 3
    entry = request.inputs.add(name="x", datatype="FP32", shape=[100_000])
    entry.contents.fp32_contents.extend([1.0] * 100_000)
    entry.parameters["b"].string_param = "text"
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    request.raw_input_contents.append(b"\xff" * 100_000)
    text = entry.contents.bytes_contents
    text.extend([b""] * 20_000)
    assert within(request.SerializeToString(), "ModelInfer", 30)


@given(st.binary(max_size=60), st.sampled_from(["ModelInfer", "RepositoryModelLoad", "ServerLive"]))
def test_any_bytes_are_counted_without_an_error(data: bytes, method: str):
    counts = [within(data, method, most) for most in range(len(data) + 2)]
    assert counts == sorted(counts)  # more is allowed, never less
    assert counts[-1]  # a field takes at least a byte


@given(st.text(max_size=9), st.text(max_size=9), st.binary(min_size=1, max_size=300))
def test_texts_are_found_without_reading_the_rest(name: str, version: str, data: bytes):
    request = CLASSES["ModelInferRequest"](model_name=name, model_version=version, id="1")
    request.raw_input_contents.append(data)
    request.parameters["a"].double_param = 1.5
    text = request.SerializeToString()
    assert texts(text, [1, 2]) == [name, version]
    assert texts(text + field(1, b"last"), [1, 2]) == ["last", version]  # as protobuf has it
    assert texts(text[:-1], [1, 2]) is None
    assert texts(text + field(2, b"\xff"), [1, 2]) is None
    assert texts(text, [1, 2], most=2) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_searched_as_protobuf_would(data: bytes):
    found = texts(data, [1, 2])
    try:
        read = CLASSES["ModelInferRequest"].FromString(data)
    except DecodeError:
        return
    assert found in (None, [read.model_name, read.model_version])


HOSTILE = {
    "inputs": field(5, b"") * (8 * MIB),
    "an input's parameters": field(5, field(4, b"") * (8 * MIB - 4)),
    "outputs": field(6, b"") * (8 * MIB),
}


def test_such_messages_take_no_more_memory_than_any_of_their_size(start, tmp_path: Path):
    repository.publish(tmp_path, "m", repository.linear())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    served = start(tmp_path, "--grpc-port", str(port))
    served.wait_for("  ready ")
    options = [("grpc.max_send_message_length", -1)]
    said = []

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for message in HOSTILE.values():
                with pytest.raises(grpc.RpcError) as refused:
                    call(message, timeout=60)
                said.append((refused.value.code(), refused.value.details()))

    most = grown(served.process.pid, ask)
    for code, text in said:
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text.startswith(f"The message has more than {MOST_FIELDS} fields.")
    # gRPC holds each message some times over; one that is read into objects takes far more.
    assert most < 300 * MIB, f"{most / MIB:.0f} MB"
    assert served.stop() == 0
