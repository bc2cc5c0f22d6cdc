"""The Open Inference Protocol over REST, byte by byte, on a real server."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
import repository

from service.codecs.v2_request import DATATYPES

X = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)


def tensor(name: str, array: np.ndarray, **changes) -> dict:
    made = {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[array.dtype.name],
        "data": array.reshape(-1).tolist(),
    }
    return {**made, **changes}


def infer(client: httpx.Client, model: str, *inputs: dict, **rest) -> httpx.Response:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **rest})


def binary(
    client: httpx.Client, model: str, document: dict, *parts: bytes, length: int | None = None
) -> httpx.Response:
    head = json.dumps(document).encode()
    return client.post(
        f"/v2/models/{model}/infer",
        content=b"".join([head, *parts]),
        headers={"Inference-Header-Content-Length": str(len(head) if length is None else length)},
    )


def refused(response: httpx.Response, status: int, *texts: str) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    for text in texts:
        assert text in response.json()["error"], response.text


def test_an_answer_has_the_form_of_the_specification(client: httpx.Client):
    scores = repository.reference(repository.linear(), {"x": X})["scores"]
    for path in ("/v2/models/animals/infer", "/v2/models/animals/versions/1/infer"):
        response = client.post(path, json={"id": "a1", "inputs": [tensor("x", X)]})
        body = response.json()
        assert list(body) == ["model_name", "model_version", "id", "outputs"]
        assert (body["model_name"], body["model_version"], body["id"]) == ("animals", "1", "a1")
        (output,) = body["outputs"]
        data = np.float32(output.pop("data")).reshape(5, 3)
        assert output == {"name": "scores", "shape": [5, 3], "datatype": "FP32"}
        np.testing.assert_allclose(data, scores, rtol=1e-5, atol=1e-6)


def test_data_may_be_nested_and_a_plain_content_type_is_not_asked_for(client: httpx.Client):
    flat = infer(client, "animals", tensor("x", X)).json()
    nested = client.post(
        "/v2/models/animals/infer",
        content=json.dumps({"inputs": [tensor("x", X, data=X.tolist())]}),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert nested.json() == flat
    assert "id" not in flat


NUMBERS = [
    ("half", np.float16([[1.5, -2]])),
    ("double", np.float64([[1e300, -0.1]])),
    ("int64", np.int64([[2**62, -3]])),
    ("int8", np.int8([[127, -127]])),
    ("uint8", np.uint8([[255, 0]])),
    ("not", np.array([[True, False]])),
    ("scalar", np.float32(2.5)),
    ("free", np.float32([[1, 2, 3]])),
]


@pytest.mark.parametrize(("model", "array"), NUMBERS)
def test_every_datatype_in_json_and_in_bytes(client: httpx.Client, model: str, array: np.ndarray):
    array = np.asarray(array)
    op = {"uint8": np.positive, "not": np.logical_not}.get(model, np.negative)
    expected = op(array)
    body = infer(client, model, tensor("x", array)).json()
    (output,) = body["outputs"]
    assert output["datatype"] == DATATYPES[array.dtype.name]
    assert output["data"] == expected.reshape(-1).tolist()

    entry = tensor("x", array, parameters={"binary_data_size": array.nbytes})
    del entry["data"]
    response = binary(
        client,
        model,
        {"inputs": [entry], "parameters": {"binary_data_output": True}},
        array.tobytes(),
    )
    length = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": array.nbytes}
    assert "data" not in output
    assert response.content[length:] == expected.tobytes()


def test_binary_and_json_mix_and_outputs_are_chosen(client: httpx.Client):
    a, b = np.float32([[1, 2]]), np.float32([[-5, 1]])
    entry = {
        "name": "b", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8},
    }  # fmt: skip
    wanted = [{"name": "positive", "parameters": {"binary_data": True}}, {"name": "y"}]
    response = binary(
        client, "pair", {"inputs": [tensor("a", a), entry], "outputs": wanted}, b.tobytes()
    )
    length = int(response.headers["inference-header-content-length"])
    positive, y = json.loads(response.content[:length])["outputs"]
    assert (positive["name"], positive["datatype"]) == ("positive", "BOOL")
    assert response.content[length:] == b"\x00\x01"
    assert y["data"] == [-4, 3]
    only = infer(client, "pair", tensor("a", a), tensor("b", b), outputs=[{"name": "y"}]).json()
    assert [output["name"] for output in only["outputs"]] == ["y"]


def test_the_bytes_alone_suffice_when_their_number_tells_the_shape(client: httpx.Client):
    response = client.post(
        "/v2/models/animals/infer",
        content=X.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output["shape"] == [5, 3]
    refused(binary(client, "free", {}, length=0), 400, "shape")
    refused(binary(client, "pair", {}, length=0), 400, "2 inputs")
    bad = client.post(
        "/v2/models/animals/infer", content=b"123", headers={"Inference-Header-Content-Length": "0"}
    )
    refused(bad, 400, "multiple of 16")
    said = {"Inference-Header-Content-Length": "0", "Content-Type": "application/json"}
    contradiction = client.post("/v2/models/animals/infer", content=X.tobytes(), headers=said)
    refused(contradiction, 400, "its Content-Type is application/json")


def test_classification(client: httpx.Client):
    scores = repository.reference(repository.linear(), {"x": X})["scores"]
    wanted = [{"name": "scores", "parameters": {"classification": 2}}]
    (output,) = infer(client, "animals", tensor("x", X), outputs=wanted).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [5, 2])
    for row, first in zip(scores, output["data"][::2], strict=True):
        value, index, label = first.split(":")
        assert (int(index), label) == (row.argmax(), ["ant", "bee", "cat"][row.argmax()])
        assert float(value) == pytest.approx(row.max(), abs=1e-5)
    mask = [{"name": "positive", "parameters": {"classification": 1}}]
    pair = [tensor("a", X[:, :2]), tensor("b", X[:, :2])]
    refused(infer(client, "pair", *pair, outputs=mask), 400, "no classes")


ONE = tensor("x", X[:1])
WRONG = [
    ({}, "no 'inputs'"),
    ({"inputs": []}, "no 'inputs'"),
    ({"inputs": {}}, "list of objects"),
    ({"inputs": [[1]]}, "list of objects"),
    ([], "a list"),
    ({"inputs": [{**ONE, "name": "y"}]}, "no input 'y'"),
    ({"inputs": [{**ONE, "name": None}]}, "no 'name'"),
    ({"inputs": [{**ONE, "datatype": "FP64"}]}, "datatype FP64, expected FP32"),
    ({"inputs": [{**ONE, "datatype": "BYTES"}]}, "datatype BYTES, expected FP32"),
    ({"inputs": [{**ONE, "datatype": 3}]}, "expected FP32"),
    ({"inputs": [{**ONE, "shape": [4]}]}, "expected shape (batch, 4), received (4,)"),
    ({"inputs": [{**ONE, "shape": [2, 2]}]}, "axis 1 must be 4"),
    ({"inputs": [{**ONE, "shape": [1, -4]}]}, "shape"),
    ({"inputs": [{**ONE, "shape": [1, True]}]}, "shape"),
    ({"inputs": [{**ONE, "shape": [2, 4]}]}, "has 4 elements"),
    ({"inputs": [{**ONE, "shape": [0, 4], "data": []}]}, "axis 0 (batch) is empty"),
    ({"inputs": [{**ONE, "data": [[1, 2], [3, 4]]}]}, "declared is [1, 4]"),
    ({"inputs": [{**ONE, "data": [1, 2, 3, "4"]}]}, "text"),
    ({"inputs": [{**ONE, "data": [1, 2, 3, None]}]}, "null"),
    ({"inputs": [{**ONE, "data": [1, 2, 3, True]}]}, "boolean"),
    ({"inputs": [{**ONE, "data": [1, 2, 3, 1e39]}]}, "float32"),
    ({"inputs": [{**ONE, "data": 5}]}, "a number"),
    ({"inputs": [{k: v for k, v in ONE.items() if k != "data"}]}, "no 'data'"),
    ({"inputs": [ONE, ONE]}, "occurs twice"),
    ({"inputs": [ONE], "id": 5}, "'id'"),
    ({"inputs": [ONE], "parameters": []}, None),
    ({"inputs": [ONE], "parameters": [1]}, "not an object"),
    ({"inputs": [ONE], "outputs": [{"name": "nope"}]}, "no output 'nope'"),
    ({"inputs": [ONE], "outputs": [{"name": "scores"}] * 2}, "asked for twice"),
    ({"inputs": [{**ONE, "parameters": {"binary_data_size": 16}}]}, "either"),
    ({"inputs": [{**ONE, "parameters": {"shared_memory_region": "a"}}]}, "Shared memory"),
]


@pytest.mark.parametrize(("document", "text"), WRONG, ids=[str(t) for _, t in WRONG])
def test_what_is_wrong_is_said(client: httpx.Client, document, text: str | None):
    response = client.post("/v2/models/animals/infer", json=document)
    if text is None:
        assert response.status_code == 200
    else:
        refused(response, 400, text)


def test_a_wrong_length_never_reads_a_wrong_tensor(client: httpx.Client):
    def entry(size: object) -> dict:
        parameters = {"binary_data_size": size}
        return {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": parameters}

    data = X[:1].tobytes()
    good = binary(client, "animals", {"inputs": [entry(16)]}, data)
    assert good.status_code == 200
    refused(binary(client, "animals", {"inputs": [entry(16)]}, data[:-1]), 400, "15 bytes are left")
    refused(binary(client, "animals", {"inputs": [entry(16)]}, data, b"!"), 400, "1 bytes")
    refused(binary(client, "animals", {"inputs": [entry(12)]}, data), 400, "takes 16")
    refused(binary(client, "animals", {"inputs": [entry(-16)]}, data), 400, "either")
    refused(binary(client, "animals", {"inputs": [entry("16")]}, data), 400, "either")
    refused(binary(client, "animals", {"inputs": [entry(16)]}, data, length=9999), 400, "9999")
    refused(binary(client, "animals", {"inputs": [entry(16)]}, data, length=3), 400, "JSON")
    for length in ("-1", "x", "9" * 30):
        headers = {"Inference-Header-Content-Length": length}
        url = "/v2/models/animals/infer"
        refused(client.post(url, content=data, headers=headers), 400, "number of bytes")
    two = {**entry(2), "datatype": "BOOL", "shape": [1, 2]}
    refused(binary(client, "not", {"inputs": [two]}, b"\x01\x02"), 400, "0 and 1")


def test_not_finite_numbers_are_null_in_json_and_themselves_in_bytes(client: httpx.Client):
    zero = np.zeros((1, 2), np.float32)
    body = infer(client, "log", tensor("x", zero)).json()
    assert body["outputs"][0]["data"] == [None, None]
    assert "not finite" in body["parameters"]["warning"]
    wanted = {"parameters": {"binary_data_output": True}, "inputs": [tensor("x", zero)]}
    content = client.post("/v2/models/log/infer", json=wanted).content
    assert content[-8:] == np.float32([-np.inf, -np.inf]).tobytes()


def test_errors_of_the_path_and_of_the_graph(client: httpx.Client):
    refused(infer(client, "nope", ONE), 404, "no model 'nope'")
    refused(infer(client, "animals/versions/7", ONE), 404, "version 1")
    refused(infer(client, "embedding", tensor("index", np.int64([99]))), 422, "Gather")
    refused(client.get("/v2/nope"), 404, "no route")
    wrong = client.get("/v2/models/animals/infer")
    refused(wrong, 405, "does not allow GET")
    assert wrong.headers["allow"] == "POST"
    url = "/v2/models/animals/infer"
    refused(client.post(url, content=b"{"), 400, "not valid JSON")
    refused(client.post(url, content=b""), 400, "no body")
    refused(client.post(url, content=b'{"id":"a","id":"b","inputs":[]}'), 400)
    big = client.post(url, content=b" " * 2_000_001)
    refused(big, 413, "larger than")
    squeezed = client.post(url, content=b"x", headers={"content-encoding": "zstd"})
    refused(squeezed, 415, "Content-Encoding")


def test_metadata_and_health(client: httpx.Client):
    assert client.get("/v2").json() == {
        "name": "foldserve",
        "version": client.get("/").json()["version"],
        "extensions": [
            "binary_tensor_data",
            "classification",
            "model_repository",
            "model_configuration",
            "schedule_policy",
            "statistics",
        ],
    }
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    expected = {
        "name": "animals",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    for path in ("/v2/models/animals", "/v2/models/animals/versions/1"):
        assert client.get(path).json() == expected
        assert client.get(f"{path}/ready").json() == {"name": "animals", "ready": True}
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    refused(client.get("/v2/models/nope"), 404, "no model")
    refused(client.get("/v2/models/nope/ready"), 404, "no model")
    refused(client.get("/v2/models/animals/versions/2/ready"), 404, "version 1")


def test_the_index_tells_what_is_served_and_what_is_not(start, tmp_path):
    repository.publish(tmp_path, "good", repository.linear())
    repository.publish(tmp_path, "bad", repository.linear())
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"other")
    served = start(tmp_path)
    with served.client() as client:
        rows = client.post("/v2/repository/index").json()
        assert [(r["name"], r["version"], r["state"]) for r in rows] == [
            ("bad", "1", "UNAVAILABLE"),
            ("good", "1", "READY"),
        ]
        assert "5 bytes" in rows[0]["reason"]
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [row["name"] for row in ready] == ["good"]
        refused(client.get("/v2/models/bad/ready"), 503, "5 bytes")
        for path in ("load", "unload"):
            refused(
                client.post(f"/v2/repository/models/good/{path}"),
                403,
                "cannot be changed over the network",
            )
    assert served.stop() == 0


def test_hints_do_not_show_the_body_of_another_protocol(client: httpx.Client):
    for url in ("/v2/models/animals/infer", "/v1/models/animals:predict"):
        for content in (b"", b'{"id": 1, "inputs": [{}]}', b'{"inputs": 1, "id": 1}', b"[]"):
            answer = client.post(url, content=content)
            assert answer.status_code == 400
            assert '{"inputs": [[...]]}' not in answer.json()["error"]
