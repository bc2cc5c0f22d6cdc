"""The Open Inference Protocol over gRPC, with NVIDIA's own client and with bare messages."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import repository
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from conftest import Served
from test_process import command, sentence
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from service.protocols import grpc_messages

pytestmark = pytest.mark.slow

X = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)
KEY = "the-key-that-changes-models"


def address(served: Served) -> str:
    served.wait_for("  ready ")
    return re.search(r"^  grpc +(\S+)$", served.out, re.MULTILINE)[1]


@pytest.fixture(scope="module")
def target(start, zoo: Path) -> str:
    flags = ("--grpc-port", "0", "--max-body-bytes", "2000000", "--grpc-outputs", "mirror")
    return address(start(zoo, *flags))


@pytest.fixture(scope="module")
def connected(target: str) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(target)
    yield client
    client.close()


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    return repository.reference(repository.linear(), {"x": X})["scores"]


def given(name: str, array: np.ndarray) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def repeated(field) -> bool:
    """protobuf 5 says it otherwise, which newer ones warn about."""
    if hasattr(field, "is_repeated"):
        return field.is_repeated
    return field.label == field.LABEL_REPEATED


def test_the_messages_are_those_of_the_client():
    """Names, numbers, types and repetition of every field, as in stubs made by protoc."""
    ours = grpc_messages.classes()
    for name, cls in ours.items():
        outer = name.partition(".")[0]
        theirs = service_pb2 if hasattr(service_pb2, outer) else model_config_pb2
        for part in name.split("."):
            theirs = getattr(theirs, part)
        known = {field.name: field for field in theirs.DESCRIPTOR.fields}
        for field in cls.DESCRIPTOR.fields:
            if field.name not in known:
                # Added to the specification after this version of the client.
                assert (name, field.name) in {
                    ("InferParameter", "double_param"),
                    ("InferParameter", "uint64_param"),
                    ("ModelMetadataResponse", "properties"),
                }
                continue
            other = known[field.name]
            assert (field.number, field.type, repeated(field)) == (
                other.number, other.type, repeated(other),
            ), (name, field.name)  # fmt: skip
            if field.enum_type is not None:
                assert [(v.name, v.number) for v in field.enum_type.values] == [
                    (v.name, v.number) for v in other.enum_type.values
                ][: len(field.enum_type.values)]
            if field.message_type is not None:
                assert field.message_type.name == other.message_type.name
                assert (
                    field.message_type.GetOptions().map_entry
                    == other.message_type.GetOptions().map_entry
                )


def test_it_finds_the_server_and_the_model(connected):
    assert connected.is_server_live()
    assert connected.is_server_ready()
    assert connected.is_model_ready("animals")
    assert connected.is_model_ready("animals", "1")
    assert not connected.is_model_ready("animals", "2")
    assert not connected.is_model_ready("nope")
    assert connected.get_server_metadata().name == "foldserve"
    metadata = connected.get_model_metadata("animals")
    assert list(metadata.versions) == ["1"]
    (tensor,) = metadata.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [-1, 4])
    rows = connected.get_model_repository_index().models
    assert ("animals", "1", "READY") in [(r.name, r.version, r.state) for r in rows]


def test_it_infers(connected, scores: np.ndarray):
    for outputs in (None, [triton.InferRequestedOutput("scores")]):
        result = connected.infer("animals", [given("x", X)], outputs=outputs, request_id="r7")
        np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-5, atol=1e-6)
        assert result.get_response().id == "r7"
        assert result.get_response().model_version == "1"


def test_two_inputs_and_every_dtype(connected):
    a, b = X[:, :2].copy(), X[:, 2:].copy()
    result = connected.infer("pair", [given("b", b), given("a", a)])
    np.testing.assert_array_equal(result.as_numpy("y"), a + b)
    np.testing.assert_array_equal(result.as_numpy("positive"), a + b > 0)
    for model, dtype in (
        ("half", np.float16), ("double", np.float64), ("int64", np.int64), ("int8", np.int8),
    ):  # fmt: skip
        x = np.array([[1, -2]], dtype)
        answer = connected.infer(model, [given("x", x)]).as_numpy("y")
        assert answer.dtype == dtype
        np.testing.assert_array_equal(answer, -x)


def test_classes_arrive_as_text(connected, scores: np.ndarray):
    wanted = [triton.InferRequestedOutput("scores", class_count=2)]
    texts = connected.infer("animals", [given("x", X)], outputs=wanted).as_numpy("scores")
    assert texts.shape == (5, 2)
    best = ["ant", "bee", "cat"][scores[0].argmax()]
    assert texts[0, 0].decode().endswith(f":{scores[0].argmax()}:{best}")


def typed(model: str, name: str, datatype: str, shape: list[int], **contents):
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def twice(*args, **contents):
    request = typed(*args, **contents)
    request.raw_input_contents.append(np.float32([5, 6, 7, 8]).tobytes())
    return request


def test_typed_contents_are_answered_with_typed_contents(connected):
    call = connected._client_stub.ModelInfer
    for model, datatype, field, values in (
        ("double", "FP64", "fp64_contents", [1.5, -2.5]),
        ("int64", "INT64", "int64_contents", [2**62, -3]),
        ("int8", "INT8", "int_contents", [127, -127]),
        ("free", "FP32", "fp32_contents", [1.5, 2.5]),
    ):
        answer = call(typed(model, "x", datatype, [1, 2], **{field: values}))
        assert not answer.raw_output_contents
        (output,) = answer.outputs
        assert list(getattr(output.contents, field)) == [-value for value in values]
    answer = call(typed("not", "x", "BOOL", [1, 2], bool_contents=[True, False]))
    assert list(answer.outputs[0].contents.bool_contents) == [False, True]
    answer = call(typed("uint8", "x", "UINT8", [1, 2], uint_contents=[255, 0]))
    assert list(answer.outputs[0].contents.uint_contents) == [255, 0]


INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
FLOATS = {"fp32_contents": [1, 2, 3, 4]}
WRONG = [
    (typed("nope", "x", "FP32", [1, 4], **FLOATS), MISSING, "no model 'nope'"),
    (typed("animals", "y", "FP32", [1, 4], **FLOATS), INVALID, "no input 'y'"),
    (typed("animals", "x", "FP64", [1, 4], **FLOATS), INVALID, "expected FP32"),
    (typed("animals", "x", "BYTES", [1, 4], **FLOATS), INVALID, "datatype BYTES, expected FP32"),
    (typed("animals", "x", "FP32", [2, 4], **FLOATS), INVALID, "4 elements"),
    (typed("animals", "x", "FP32", [2, 2], **FLOATS), INVALID, "axis 1 must be 4"),
    (typed("animals", "x", "FP32", [-1, -4], **FLOATS), INVALID, "negative"),
    (typed("animals", "x", "FP32", [0, 2**62, 4]), INVALID, "cannot have the shape"),
    (typed("animals", "x", "FP32", [1, 4], fp64_contents=[1]), INVALID, "fp32_contents"),
    (typed("half", "x", "FP16", [1, 2], fp32_contents=[1, 2]), INVALID, "raw_input_contents"),
    (typed("int8", "x", "INT8", [1, 2], int_contents=[128, 0]), INVALID, "do not fit int8"),
    (typed("embedding", "index", "INT64", [1], int64_contents=[99]), INVALID, "Gather"),
    (service_pb2.ModelInferRequest(model_name="animals"), INVALID, "'x' is missing"),
    (twice("animals", "x", "FP32", [1, 4], **FLOATS), INVALID, "comes twice"),
]


@pytest.mark.parametrize(("request_", "code", "text"), WRONG, ids=[t for _, _, t in WRONG])
def test_what_is_wrong_is_said(connected, request_, code: grpc.StatusCode, text: str):
    with pytest.raises(grpc.RpcError) as caught:
        connected._client_stub.ModelInfer(request_)
    assert caught.value.code() == code
    assert text in caught.value.details()
    assert "x-request-id" in dict(caught.value.trailing_metadata())


def test_raw_contents_that_do_not_fit(connected):
    call = connected._client_stub.ModelInfer
    request = typed("animals", "x", "FP32", [1, 4])
    for parts, text in (([b"\0" * 15], "15 bytes"), ([b"\0" * 16] * 2, "2 elements for 1")):
        del request.raw_input_contents[:]
        request.raw_input_contents.extend(parts)
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() == INVALID
        assert text in caught.value.details()
    wanted = typed("animals", "x", "FP32", [1, 4], **FLOATS)
    wanted.outputs.add(name="nope")
    with pytest.raises(grpc.RpcError, match="no output 'nope'"):
        call(wanted)
    with pytest.raises(InferenceServerException, match=r"larger than max|RESOURCE_EXHAUSTED"):
        connected.infer("animals", [given("x", np.zeros((200_000, 4), np.float32))])


def test_what_is_no_message_is_the_clients_mistake(start, zoo: Path):
    served = start(zoo, "--grpc-port", "0")
    with grpc.insecure_channel(address(served)) as channel:
        before = served.err
        call = channel.unary_unary(f"/{grpc_messages.SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff", metadata=[("x-request-id", "mine-1")])
        assert caught.value.code() == INVALID
        assert "ModelInferRequest" in caught.value.details()
        assert dict(caught.value.trailing_metadata())["x-request-id"] == "mine-1"
    assert served.stop() == 0
    assert served.err == before


def test_the_request_id_is_the_clients_if_it_is_sane(connected):
    call = connected._client_stub.ServerLive.with_call
    for given_, expected in (("a-b_c.1:2/3", True), ("x" * 129, False), ("a b", False)):
        metadata = [("x-request-id", given_)]
        answer = call(service_pb2.ServerLiveRequest(), metadata=metadata)[1]
        own = dict(answer.trailing_metadata())["x-request-id"]
        assert (own == given_) == expected
        assert expected or len(own) == 32


def check(target: str, service: str) -> int:
    """grpc.health.v1.Health/Check; both messages have one field, of number 1."""
    with grpc.insecure_channel(target) as channel:
        name = service.encode()
        request = b"\x0a%c%b" % (len(name), name) if name else b""
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(request)
    return answer[1] if answer else 0


def test_kubernetes_asks_over_grpc(start, target: str, tmp_path: Path):
    serving, not_serving = 1, 2
    for service in ("", "inference.GRPCInferenceService", "readiness", "liveness"):
        assert check(target, service) == serving
    with pytest.raises(grpc.RpcError) as caught:
        check(target, "other")
    assert caught.value.code() == MISSING
    (tmp_path / "models").mkdir()
    (tmp_path / "keys").write_text(KEY)  # which nobody is asked for
    flags = ("--grpc-port", "0", "--api-keys-file", str(tmp_path / "keys"))
    served = start(tmp_path / "models", *flags)
    served.wait_for("  grpc ")
    empty = re.search(r"^  grpc +(\S+)$", served.out, re.MULTILINE)[1]
    assert (check(empty, ""), check(empty, "liveness")) == (not_serving, serving)
    assert served.stop() == 0


def test_a_deadline_of_the_client_is_kept(start, tmp_path: Path):
    repository.publish(tmp_path, "slow", repository.slow(20_000))
    served = start(tmp_path, "--grpc-port", "0")
    with triton.InferenceServerClient(address(served)) as client:
        with pytest.raises(InferenceServerException, match=r"Deadline Exceeded|not ready in time"):
            client.infer("slow", [given("x", np.ones((1, 1), np.float32))], client_timeout=0.05)
        assert client.is_server_live()
    assert served.stop() == 0


def test_its_asyncio_client(target: str):
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(target) as client:
            await repository.asked_row_by_row(client, given, X)

    asyncio.run(talk())


def test_keys_and_the_repository(start, tmp_path: Path):
    models = tmp_path / "models"
    repository.publish(models, "good", repository.linear())
    for name, key in (("api", "a-key-that-may-predict"), ("admin", KEY)):
        (tmp_path / name).write_text(key)
    served = start(
        models,
        *("--grpc-port", "0"),
        *("--api-keys-file", str(tmp_path / "api")),
        *("--admin-keys-file", str(tmp_path / "admin")),
    )
    api = {"authorization": "Bearer a-key-that-may-predict"}
    admin = {"x-api-key": KEY}
    with triton.InferenceServerClient(address(served)) as client:
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="no API key"):
            client.infer("good", [given("x", X)])
        client.infer("good", [given("x", X)], headers=api)
        with pytest.raises(InferenceServerException, match="may predict, but not change"):
            client.unload_model("good", headers=api)
        client.unload_model("good", headers=admin)
        assert not client.is_model_ready("good", headers=api)
        client.load_model("good", headers=admin)
        assert client.is_model_ready("good", headers=api)
        with pytest.raises(InferenceServerException, match="without parameters"):
            client.load_model("good", headers=admin, config="{}")
    assert served.stop() == 0


def test_loading_is_off_without_admin_keys(connected):
    with pytest.raises(InferenceServerException, match="cannot be changed"):
        connected.load_model("animals")


def test_a_port_in_use_is_said(zoo: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command("--models", str(zoo), "--port", "0", "--grpc-port", port)
    sentence(done, 1, f"port {port}", "--grpc-port")
