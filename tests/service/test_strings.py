"""Tensors of strings (BYTES) through every protocol, with NVIDIA's clients and by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import repository
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import Served
from onnx import TensorProto, helper
from test_quick import Bench, answered, whole
from tritonclient.grpc import service_pb2, service_pb2_grpc

# Longer and shorter, empty, a NUL inside, outside of Latin and of the basic plane.
WORDS = [["ant", ""], ["日本語", "a\0b"], ["\U0001f41c" * 3, 'quote " and \\']]
OBJECTS = np.array(WORDS, object)


def texts(*values: str) -> np.ndarray:
    return np.array(values, object)


@pytest.fixture(scope="module")
def served(start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("strings")
    numbers = np.arange(32).reshape(2, 16).astype(str).astype(object)
    repository.publish(
        root, "simple_string", repository.sums_of_text(), batch_invariant=True,
        test={"INPUT0": numbers, "INPUT1": numbers},
    )  # fmt: skip
    echo = repository.elementwise("Identity", TensorProto.STRING)
    repository.publish(root, "echo", echo)
    repository.bare(root, "bare", repository.elementwise("Identity", TensorProto.STRING, ("n", 1)))
    one = repository.elementwise("Identity", TensorProto.STRING, ())
    repository.publish(root, "one", one)
    wide = repository.elementwise("Identity", TensorProto.STRING, ("batch", "width"))
    repository.publish(root, "wide", wide, batch_invariant=True)
    return start(
        root,
        "--grpc-port",
        "0",
        "--grpc-outputs",
        "mirror",
        "--default-model",
        "echo",
        "--max-tensor-bytes",
        "100000",
    )


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def connected(served: Served) -> Iterator[triton_http.InferenceServerClient]:
    client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def channel(served: Served) -> str:
    served.wait_for("  ready ")
    return re.search(r"^  grpc +(\S+)$", served.out, re.MULTILINE)[1]


def http_input(name: str, array: np.ndarray, binary: bool) -> triton_http.InferInput:
    made = triton_http.InferInput(name, list(array.shape), "BYTES")
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("returned", [True, False])
def test_triton_s_simple_string_example(connected, sent: bool, returned: bool):
    """The steps of simple_http_string_infer_client.py."""
    a, b = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
    given = [
        http_input(name, np.array([str(n).encode() for n in x.flat], object).reshape(1, 16), sent)
        for name, x in (("INPUT0", a), ("INPUT1", b))
    ]
    wanted = [
        triton_http.InferRequestedOutput(name, binary_data=returned)
        for name in ("OUTPUT0", "OUTPUT1")
    ]
    result = connected.infer("simple_string", given, outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0").astype(np.int32), a + b)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1").astype(np.int32), a - b)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("returned", [True, False])
def test_every_text_comes_back_as_it_was(connected, sent: bool, returned: bool):
    wanted = [triton_http.InferRequestedOutput("y", binary_data=returned)]
    result = connected.infer("echo", [http_input("x", OBJECTS, sent)], outputs=wanted)
    got = result.as_numpy("y")
    as_text = [[e.decode() if isinstance(e, bytes) else e for e in row] for row in got.tolist()]
    assert as_text == WORDS
    (entry,) = result.get_response()["outputs"]
    assert entry["datatype"] == "BYTES"
    assert connected.get_model_metadata("echo")["inputs"][0]["datatype"] == "BYTES"


def test_grpc_with_raw_and_with_typed_contents(channel: str):
    with triton_grpc.InferenceServerClient(channel) as connected:
        given = triton_grpc.InferInput("x", [3, 2], "BYTES")
        given.set_data_from_numpy(OBJECTS)
        got = connected.infer("echo", [given]).as_numpy("y")
        assert [[e.decode() for e in row] for row in got.tolist()] == WORDS
    with grpc.insecure_channel(channel) as opened:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(opened)
        request = service_pb2.ModelInferRequest(model_name="echo")
        entry = request.inputs.add(name="x", datatype="BYTES", shape=[3, 2])
        entry.contents.bytes_contents.extend(e.encode() for row in WORDS for e in row)
        (output,) = stub.ModelInfer(request).outputs
        assert output.datatype == "BYTES"
        assert [e.decode() for e in output.contents.bytes_contents] == OBJECTS.ravel().tolist()
        entry.contents.bytes_contents[2] = b"\xff\xfe"
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith("Element 2 of input 'x' is not UTF-8.")


def test_json_of_our_own_and_of_tensorflow_serving(client: httpx.Client):
    answer = client.post("/predict", json={"inputs": WORDS}).json()
    assert answer["outputs"] == {"y": WORDS}
    assert client.post("/v1/models/echo:predict", json={"instances": WORDS}).json() == {
        "predictions": WORDS
    }
    coded = [{"b64": base64.b64encode(w[0].encode()).decode()} for w in WORDS]
    rows = client.post("/v1/models/bare:predict", json={"instances": [[c] for c in coded]})
    assert rows.json() == {"predictions": [[w[0]] for w in WORDS]}
    columns = {"inputs": {"x": [[coded[1]], ["plain"]]}}
    whole = client.post("/v1/models/bare:predict", json=columns)
    assert whole.json() == {"outputs": [["日本語"], ["plain"]]}
    metadata = client.get("/v1/models/bare/metadata").json()["metadata"]
    signature = metadata["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_STRING"


def test_a_string_without_axes(client: httpx.Client):
    made = client.post("/models/one/predict", json={"inputs": "日本"})
    assert made.json()["outputs"] == {"y": "日本"}
    rows = client.post("/v1/models/one:predict", json={"inputs": "x"})
    assert rows.json() == {"outputs": "x"}


def with_lengths(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def test_raw_bytes_have_each_string_behind_its_length(client: httpx.Client):
    body = with_lengths(*(w.encode() for row in WORDS for w in row))
    headers = {
        "Content-Type": "application/octet-stream", "Accept": "application/octet-stream",
        "X-Shape": "3,2",
    }  # fmt: skip
    answer = client.post("/predict", content=body, headers=headers)
    assert (answer.content, answer.headers["X-Dtype"]) == (body, "string")
    del headers["X-Shape"]
    refused = client.post("/predict", content=body, headers=headers)
    assert (refused.status_code, "X-Shape" in refused.json()["hint"]) == (400, True)


def test_a_body_without_a_head_is_one_string(client: httpx.Client):
    """As Triton's raw binary request for BYTES."""
    raw = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    answer = client.post("/v2/models/bare/infer", content="日本語".encode(), headers=raw)
    assert answer.content.endswith(with_lengths("日本語".encode()))
    refused = client.post("/v2/models/echo/infer", content=b"two?", headers=raw)
    assert (refused.status_code, "more than the one string" in refused.text) == (400, True)


def infer(client: httpx.Client, data: object, shape: object = (1, 2), datatype: str = "BYTES"):
    entry = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return client.post("/v2/models/echo/infer", json={"inputs": [entry]})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([["a", 1]], "[0][1] is a number, expected text"),
        (["a", None], "[1] is null"),
        (["a", True], "is a boolean, expected text"),
        (["a"], "has 1 elements, its shape [1, 2] has 2"),
        ([["a"], ["b"]], "expected shape (1, 2), received (2, 1)"),
        ([["a", ["b"]]], "is a list, expected an element of string"),
        ("ab", "is text, expected nested lists"),
        ([1, 2], "is a number, expected text"),
    ],
)
def test_what_is_no_tensor_of_text_is_refused(client: httpx.Client, data: object, said: str):
    answer = infer(client, data)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


def test_numbers_and_text_are_not_taken_for_each_other(client: httpx.Client):
    said = infer(client, [1.0, 2.0], datatype="FP32").json()["error"]
    assert "has the datatype FP32, expected BYTES" in said
    assert client.post("/predict", json={"inputs": [[1, 2]]}).json()["code"] == "wrong_type"


def binary(client: httpx.Client, body: bytes, shape: tuple[int, ...] = (1, 2)) -> httpx.Response:
    entry = {
        "name": "x", "shape": shape, "datatype": "BYTES",
        "parameters": {"binary_data_size": len(body)},
    }  # fmt: skip
    head = json.dumps({"inputs": [entry]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    return client.post("/v2/models/echo/infer", content=head + body, headers=length)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01\x00\x00",
        with_lengths(b"a"),
        with_lengths(b"a", b"b", b"c"),
        with_lengths(b"a", b"b") + b"\x00",
        with_lengths(b"a") + b"\xff\xff\xff\xffb",
        with_lengths(b"a") + b"\x02\x00\x00\x00b",
    ],
)
def test_bytes_that_do_not_hold_the_strings_are_refused(client: httpx.Client, body: bytes):
    answer = binary(client, body)
    assert answer.status_code == 400, answer.text
    assert "do not hold the 2 strings of the shape (1, 2)" in answer.json()["error"]


def test_other_bytes_than_utf_8_are_refused_and_named(client: httpx.Client):
    answer = binary(client, with_lengths(b"a", b"\xff"))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Element 1 of input 'x' is not UTF-8.")
    coded = {"b64": base64.b64encode(b"\xff").decode()}
    answer = client.post("/v1/models/bare:predict", json={"instances": [[coded]]})
    assert (answer.status_code, "not UTF-8" in answer.text) == (400, True)
    answer = client.post("/v1/models/bare:predict", json={"instances": [[{"b64": "!"}]]})
    assert (answer.status_code, "is not base64" in answer.text) == (400, True)


def test_what_is_larger_than_a_tensor_may_be_is_refused(client: httpx.Client):
    answer = binary(client, with_lengths(b"a", b"b" * 100_000))
    assert (answer.status_code, "are the most" in answer.text) == (413, True)


def test_npy_holds_no_strings(client: httpx.Client):
    npy = client.post("/predict", json={"inputs": WORDS}, headers={"Accept": "application/x-npy"})
    assert (npy.status_code, "Accept JSON" in npy.json()["hint"]) == (406, True)
    sent = client.post("/predict", content=b"x", headers={"Content-Type": "application/x-npy"})
    assert (sent.status_code, "takes strings" in sent.json()["message"]) == (400, True)


def test_an_element_that_the_graph_cannot_read_is_the_client_s_fault(client: httpx.Client):
    inputs = {name: [["x"] * 16] for name in ("INPUT0", "INPUT1")}
    answer = client.post("/models/simple_string/predict", json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, "input_refused")


def test_the_self_test_and_batches_hold_for_strings(client: httpx.Client):
    described = client.get("/models/simple_string").json()
    assert described["self_test_errors"] == {"OUTPUT0": 0.0, "OUTPUT1": 0.0}

    def ask(seed: int) -> bool:
        rows = [[f"{seed}-{i}-{j}" for j in range(3)] for i in range(1 + seed % 3)]
        answer = client.post("/models/wide/predict", json={"inputs": rows})
        return answer.json()["outputs"]["y"] == rows

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


def test_a_self_test_that_another_string_came_out_of_is_rejected(start, tmp_path: Path):
    x = texts("a", "b").reshape(1, 2)
    model = repository.elementwise("Identity", TensorProto.STRING)
    folder = repository.publish(tmp_path, "echo", model, test={"x": x})
    changed = {"input:x": x.astype(str), "output:y": texts("a", "c").reshape(1, 2).astype(str)}
    np.savez(folder / "selftest.npz", **changed)
    repository.seal(folder, self_test={"atol": {}})
    repository.publish(tmp_path, "good", model, test={"x": x})
    served = start(tmp_path)
    with served.client() as opened:
        assert opened.get("/models/good").status_code == 200
        refused = opened.get("/models/echo")
    assert "self-test failed: output 'y' differs" in refused.text
    served.stop()


def test_the_document_of_the_api_names_them(client: httpx.Client):
    document = client.get("/openapi.json").json()
    datatype = document["components"]["schemas"]["V2InferResponse"]
    assert "BYTES" in json.dumps(datatype)
    examples = document["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]
    example = examples["application/json"]["examples"]["echo"]["value"]
    assert example["inputs"][0]["datatype"] == "BYTES"
    assert client.post("/v2/models/echo/infer", json=example).status_code == 200


def test_texts_behind_a_head_that_comes_again_have_their_own_lengths(tmp_path: Path):
    """The same JSON and the same shapes, and other bytes in the answer."""
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    shape = ["batch", 1]
    model = repository.graph(
        [cast],
        [repository.value("x", TensorProto.INT64, shape)],
        [repository.value("y", TensorProto.STRING, shape)],
    )
    repository.publish(tmp_path, "m", model)
    served = Bench(tmp_path)
    entry = {"name": "x", "shape": [1, 1], "datatype": "INT64"}
    entry["parameters"] = {"binary_data_size": 8}
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()

    async def main() -> list[list[bytes]]:
        found = []
        for number in (1, 1, 123_456, 7):
            connection = served.connect()
            body = text + number.to_bytes(8, "little")
            size = str(len(text))
            connection.data_received(
                whole("/v2/models/m/infer", body, Inference_Header_Content_Length=size)
            )
            status, headers, answer = await answered(connection)
            assert status == 200
            length = int(headers["inference-header-content-length"])
            (output,) = json.loads(answer[:length])["outputs"]
            rest = answer[length:]
            assert output["parameters"]["binary_data_size"] == len(rest)
            found.append(rest[4:])
        return found

    assert asyncio.run(main()) == [b"1", b"1", b"123456", b"7"]
    served.registry.close(5)
