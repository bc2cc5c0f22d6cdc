"""TensorFlow Serving's REST API: requests as its documentation writes them."""

from __future__ import annotations

import json
import urllib.request

import httpx
import numpy as np
import pytest
import repository
from conftest import Served

X = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    return repository.reference(repository.linear(), {"x": X})["scores"]


def ask(client: httpx.Client, model: str, body: object) -> httpx.Response:
    return client.post(f"/v1/models/{model}:predict", json=body)


def refused(response: httpx.Response, status: int, *texts: str) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    for text in texts:
        assert text in response.json()["error"], response.text


def test_the_request_of_the_keras_tutorial(server: Served, scores: np.ndarray):
    """`json.dumps` with a signature name, posted by a bare client, as tutorials do it."""
    data = json.dumps({"signature_name": "serving_default", "instances": X[0:3].tolist()})
    request = urllib.request.Request(
        f"{server.url}/v1/models/animals:predict",
        data=data.encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        predictions = json.loads(response.read())["predictions"]
    np.testing.assert_allclose(predictions, scores[:3], rtol=1e-5, atol=1e-6)


def test_rows_and_columns_of_one_input(client: httpx.Client, scores: np.ndarray):
    for url in ("/v1/models/animals:predict", "/v1/models/animals/versions/1:predict"):
        for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
            for value in (X.tolist(), {"x": X.tolist()} if key == "inputs" else None):
                if value is None:
                    value = [{"x": row} for row in X.tolist()]
                body = client.post(url, json={key: value}).json()
                assert list(body) == [answer]
                np.testing.assert_allclose(body[answer], scores, rtol=1e-5, atol=1e-6)


def test_rows_and_columns_of_several_inputs(client: httpx.Client):
    rows = [{"a": [1, 2], "b": [3, -4]}, {"b": [0, 0], "a": [-1, 1]}]
    assert ask(client, "pair", {"instances": rows}).json() == {
        "predictions": [
            {"y": [4, -2], "positive": [True, False]},
            {"y": [-1, 1], "positive": [False, True]},
        ]
    }
    columns = {"a": [[1, 2], [-1, 1]], "b": [[3, -4], [0, 0]]}
    assert ask(client, "pair", {"inputs": columns}).json() == {
        "outputs": {"y": [[4, -2], [-1, 1]], "positive": [[True, False], [False, True]]}
    }


def test_rows_without_an_axis_of_their_own(client: httpx.Client):
    body = ask(client, "embedding", {"instances": [1, 0]}).json()
    assert body == {"predictions": [[2, 3], [0, 1]]}
    assert ask(client, "embedding", {"instances": [{"index": 1}]}).json() == {
        "predictions": [[2, 3]]
    }
    assert ask(client, "scalar", {"inputs": 2.5}).json() == {"outputs": -2.5}
    refused(ask(client, "scalar", {"instances": [2.5]}), 400, "plain number")


WRONG = [
    ({}, "either 'instances' or 'inputs'"),
    ({"instances": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]}, "either"),
    ([], "a list"),
    ({"instances": []}, "at least one row"),
    ({"instances": {}}, "at least one row"),
    ({"instances": [[1, 2, 3]]}, "axis 1 must be 4"),
    ({"instances": [1, 2, 3, 4]}, "(batch, 4)"),
    ({"instances": [[1, 2, 3, None]]}, "null"),
    ({"instances": [[1, 2, 3, "4"]]}, "text"),
    ({"instances": [[1, 2, 3, 4], [1]]}, "1 elements"),
    ({"instances": [{"y": [1, 2, 3, 4]}]}, "no input 'y'"),
    ({"instances": [{"x": [1, 2, 3, 4]}, {}]}, "instances[1]"),
    ({"instances": [{"x": [1, 2, 3, 4]}, [1, 2, 3, 4]]}, "instances[1]"),
    ({"instances": [[1, 2, 3, 4], {"x": [1, 2, 3, 4]}]}, "an object"),
    ({"instances": [{"b64": "aGk="}]}, "strings"),
    ({"inputs": {"x": {"b64": "aGk="}}}, "strings"),
    ({"instances": [[1, 2, 3, 4]], "signature_name": "other"}, "serving_default"),
    ({"instances": [[1, 2, 3, 4]], "signature_name": 5}, "serving_default"),
    ({"instances": [[1, 2, 3, 4]], "extra": 1}, "'extra'"),
]


@pytest.mark.parametrize(("body", "text"), WRONG, ids=[str(b)[:50] for b, _ in WRONG])
def test_what_is_wrong_is_said(client: httpx.Client, body: object, text: str):
    refused(ask(client, "animals", body), 400, text)


def test_keys_that_occur_twice(client: httpx.Client):
    twice = b'{"instances": [{"x": [1,2,3,4], "x": [5,6,7,8]}]}'
    refused(client.post("/v1/models/animals:predict", content=twice), 400, "twice")


def test_status_and_metadata(client: httpx.Client):
    available = {"error_code": "OK", "error_message": ""}
    expected = {
        "name": "animals",
        "ready": True,
        "model_version_status": [{"version": "1", "state": "AVAILABLE", "status": available}],
    }
    assert client.get("/v1/models/animals").json() == expected
    assert client.get("/v1/models/animals/versions/1").json() == expected
    body = client.get("/v1/models/animals/metadata").json()
    assert body["model_spec"] == {"name": "animals", "signature_name": "", "version": "1"}
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "4", "name": ""}],
            "unknown_rank": False,
        },
        "name": "x:0",
    }
    assert signature["method_name"] == "tensorflow/serving/predict"
    int64 = client.get("/v1/models/int64/metadata").text
    assert "DT_INT64" in int64


def test_what_is_not_there(client: httpx.Client):
    refused(client.get("/v1/models/nope"), 404, "no model")
    refused(ask(client, "nope", {"instances": [1]}), 404, "no model")
    refused(client.get("/v1/models/animals/versions/7"), 404, "version '7'")
    refused(client.get("/v1/models/animals/labels/stable"), 404, "labels")
    url = "/v1/models/animals/labels/stable:predict"
    refused(client.post(url, json={"instances": [1]}), 404, "labels")
    refused(client.post("/v1/models/animals:classify", json={}), 400, ":predict")
    refused(client.post("/v1/nope"), 404, "no route")
    wrong = client.get("/v1/models/animals:predict")
    refused(wrong, 405, "GET")
    assert wrong.headers["allow"] == "POST"


def test_outputs_that_are_not_finite_are_null(client: httpx.Client):
    assert ask(client, "log", {"instances": [[0, 1]]}).json() == {"predictions": [[None, 0]]}
