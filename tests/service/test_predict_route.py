"""POST .../predict on a real server: answers, and every way a request can be wrong."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
import repository

X = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)
ROWS = X.tolist()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, str]:
    body = response.json()
    assert (response.status_code, body.get("code")) == (status, code), response.text
    assert list(body) == ["code", "message", "hint"]
    assert all(isinstance(text, str) and text for text in body.values())
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return body


def test_a_classifier_answers_with_scores_labels_and_probabilities(client: httpx.Client):
    scores = repository.reference(repository.linear(), {"x": X})["scores"]
    for path in ("/predict", "/models/animals/predict", "/models/animals/versions/1/predict"):
        response = client.post(path, json={"inputs": ROWS})
        assert response.status_code == 200
        body = response.json()
        assert list(body) == ["model", "outputs", "predictions"]
        assert body["model"] == {"name": "animals", "version": 1}
        np.testing.assert_allclose(body["outputs"]["scores"], scores, rtol=1e-5, atol=1e-6)
        e = np.exp(scores.astype(np.float64))
        chances = e / e.sum(axis=1, keepdims=True)
        assert len(body["predictions"]) == 5
        for prediction, row in zip(body["predictions"], chances, strict=True):
            index = int(row.argmax())
            assert prediction["index"] == index
            assert prediction["label"] == ["ant", "bee", "cat"][index]
            assert prediction["probability"] == pytest.approx(row[index], rel=1e-5)


def test_several_inputs_and_outputs(client: httpx.Client):
    body = {"inputs": {"b": [[1, -5]], "a": [[0.5, 1]]}}
    answer = client.post("/models/pair/predict", json=body).json()
    assert answer["outputs"] == {"y": [[1.5, -4.0]], "positive": [[True, False]]}
    assert "predictions" not in answer


@pytest.mark.parametrize(
    ("name", "sent", "got"),
    [
        ("half", [[1.5, -2]], [[-1.5, 2.0]]),
        ("double", [[0.1, 1e300]], [[-0.1, -1e300]]),
        ("int64", [[9007199254740993, -1]], [[-9007199254740993, 1]]),
        ("int8", [[-127, 127]], [[127, -127]]),
        ("uint8", [[0, 255]], [[0, 255]]),
        ("not", [[True, False]], [[False, True]]),
        ("scalar", 2.5, -2.5),
        ("free", [[1, 2, 3], [4, 5, 6]], [[-1, -2, -3], [-4, -5, -6]]),
    ],
)
def test_every_element_type(client: httpx.Client, name: str, sent, got):
    response = client.post(f"/models/{name}/predict", json={"inputs": sent})
    assert response.status_code == 200, response.text
    assert response.json()["outputs"]["y"] == got


def test_a_large_request_takes_the_other_path_to_the_same_answer(client: httpx.Client):
    rows = np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)
    response = client.post("/predict", json={"inputs": rows.tolist()})
    assert len(response.request.content) > 256 * 1024
    refused(response, 413, "too_many_samples")
    wide = np.random.default_rng(0).standard_normal((2, 70_000)).astype(np.float32)
    content = json.dumps({"inputs": wide.astype(float).round(3).tolist()})
    assert 256 * 1024 < len(content) < 2_000_000
    response = client.post("/models/free/predict", content=content)
    np.testing.assert_allclose(response.json()["outputs"]["y"], -wide, atol=1e-3)


BAD = [
    # model, inputs or body, status, code, what the message or hint names
    ("animals", [[1, 2, 3]], 400, "wrong_shape", "expected shape (batch, 4), received (1, 3)"),
    ("animals", [1, 2, 3, 4], 400, "wrong_rank", "one more list"),
    ("animals", [[[1, 2, 3, 4]]], 400, "wrong_rank", "(batch, 4)"),
    ("animals", [], 400, "empty_batch", "(batch, 4)"),
    ("animals", [[]], 400, "wrong_shape", "received (1, 0)"),
    ("animals", [[1, 2, 3, 4], [1, 2, 3]], 400, "ragged_input", "inputs[1]"),
    ("animals", [[1, 2, 3, "4"]], 400, "wrong_type", "inputs[0][3] is text"),
    ("animals", [[1, 2, 3, True]], 400, "wrong_type", "boolean"),
    ("animals", [[1, 2, 3, None]], 400, "null_value", "inputs[0][3]"),
    ("animals", [[1, 2, 3, 1e39]], 400, "out_of_range", "float32"),
    ("animals", [[1, 2, 3, {"a": 1}]], 400, "wrong_type", "an object"),
    ("animals", {"y": [[1, 2, 3, 4]]}, 400, "unknown_input", "'y'"),
    ("animals", {}, 400, "missing_input", "'x'"),
    ("animals", "text", 400, "wrong_type", "text"),
    ("animals", None, 400, "wrong_type", "null"),
    ("free", [[], []], 400, "empty_batch", "axis 1 (time)"),
    ("image", [[[[1] * 4] * 4] * 2], 400, "wrong_shape", "axis 1 must be 3"),
    ("half", [[70000, 0]], 400, "out_of_range", "float16"),
    ("int64", [[1, 2.5]], 400, "wrong_type", "inputs[0][1]"),
    ("int64", [[1, 2.0]], 400, "wrong_type", "decimal point"),
    ("int8", [[0, 128]], 400, "out_of_range", "int8"),
    ("uint8", [[0, -1]], 400, "out_of_range", "uint8"),
    ("not", [[0, 1]], 400, "wrong_type", "true or false"),
    ("fixed", [[1, 2, 3, 4]], 400, "wrong_shape", "expected shape (2, 4), received (1, 4)"),
    ("scalar", [1.0], 400, "wrong_rank", "plain number"),
    ("pair", [[1, 2]], 400, "invalid_body", "'a', 'b'"),
    ("pair", {"a": [[1, 2]]}, 400, "missing_input", "'b'"),
    ("pair", {"a": [[1, 2]], "b": [[1, 2], [3, 4]]}, 400, "batch_mismatch", "has 1"),
    ("embedding", [1, 2, 99], 422, "input_refused", "Gather"),
    ("nope", [[1]], 404, "unknown_model", "'nope'"),
    ("animals/versions/2", [[1]], 404, "unknown_version", "version 1"),
    ("animals/versions/x", [[1]], 404, "unknown_version", "'x'"),
]


@pytest.mark.parametrize(
    ("name", "inputs", "status", "code", "text"),
    BAD,
    ids=[f"{b[0]}-{b[3]}-{b[4][:16]}" for b in BAD],
)
def test_bad_inputs(client: httpx.Client, name, inputs, status, code, text):
    body = refused(client.post(f"/models/{name}/predict", json={"inputs": inputs}), status, code)
    assert text in body["message"] + body["hint"]


RAW = [
    (b"", 400, "empty_body", "no body"),
    (b"  ", 400, "empty_body", "no body"),
    (b'{"inputs": [[1, 2, 3, 4]', 400, "malformed_json", "line 1, column 25"),
    (b'{"inputs":\n [[1,, 2]]}', 400, "malformed_json", "line 2, column 6"),
    (b'{"inputs": [[1, 2, 3, NaN]]}', 400, "nan_literal", "line 1, column 23"),
    (b'{"inputs": [[1, 2, 3, -Infinity]]}', 400, "nan_literal", "Infinity"),
    (b'{"inputs": [["\xff"]]}', 400, "invalid_utf8", "byte 14"),
    ('{"inputs": [[1,2,3,4]]}'.encode("utf-16"), 400, "invalid_utf8", "byte 0"),
    (b"[" * 100_000, 400, "malformed_json", "depth"),
    (b'{"a":' * 50_000, 400, "malformed_json", "depth"),
    (b"[[1, 2, 3, 4]]", 400, "invalid_body", "a list"),
    (b'{"instances": [[1, 2, 3, 4]]}', 400, "invalid_body", "not \"instances\""),
    (b'{"inputs": [[1,2,3,4]], "inputs": [[1,2,3,4]]}', 400, "duplicate_key", "'inputs'"),
    (b'{"inputs": {"x": [[1,2,3,4]], "x": [[1,2,3,4]]}}', 400, "duplicate_key", "'x'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "status", "code", "text"), RAW, ids=[f"{r[2]}-{r[0][:20]!r}" for r in RAW]
)
def test_bad_bodies(client: httpx.Client, content: bytes, status: int, code: str, text: str):
    body = refused(client.post("/predict", content=content), status, code)
    assert text in body["message"] + body["hint"]


def test_errors_echo_no_values_and_no_paths(client: httpx.Client, zoo: Path):
    secret = 48151.62342
    for inputs in ([[secret, 1, 2, None]], [[secret, 1, 2]], [[1, 2, 3, "48151.62342"]]):
        text = client.post("/predict", json={"inputs": inputs}).text
        assert "48151" not in text
    for index in (4815, -4815):
        text = client.post("/models/embedding/predict", json={"inputs": [index]}).text
        assert "4815" not in text
        assert str(zoo) not in text
        assert "onnxruntime" not in text


# --- headers ----------------------------------------------------------------------------

GOOD = json.dumps({"inputs": ROWS}).encode()


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/vnd.api+json",
    ],
)
def test_json_by_any_of_its_names(client: httpx.Client, content_type: str | None):
    headers = {} if content_type is None else {"content-type": content_type}
    assert client.post("/predict", content=GOOD, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/mixed; boundary=x"},
        {"content-type": "image/gif"},
        {"content-type": "application/jsonx"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "br"},
        {"content-type": "application/json", "content-encoding": "gzip, gzip"},
    ],
    ids=lambda headers: list(headers.values())[-1],
)
def test_other_media_types(client: httpx.Client, headers: dict[str, str]):
    body = refused(
        client.post("/predict", content=GOOD, headers=headers), 415, "unsupported_media_type"
    )
    assert "application/json" in body["hint"] or "uncompressed" in body["hint"]


def test_the_request_id_is_the_clients_if_it_is_sane(client: httpx.Client):
    sane = "a-b_c.1:2/3=+@"
    response = client.post("/predict", content=GOOD, headers={"x-request-id": sane})
    assert response.headers["x-request-id"] == sane
    seen = set()
    for wild in ("x" * 129, "a b", "é", "", '"'):
        header = [(b"x-request-id", wild.encode())]
        response = client.post("/predict", content=GOOD, headers=header)
        assert len(response.headers["x-request-id"]) == 32
        seen.add(response.headers["x-request-id"])
    assert len(seen) == 5
    response = client.get("/nowhere", headers={"x-request-id": sane})
    assert response.headers["x-request-id"] == sane


def test_get_on_a_post_route(client: httpx.Client):
    for path in ("/predict", "/models/animals/predict"):
        for method in ("GET", "PUT", "DELETE", "HEAD"):
            response = client.request(method, path)
            assert response.status_code == 405
            assert response.headers["allow"] == "POST"
    refused(client.get("/predict"), 405, "method_not_allowed")


# --- size and time of the body ----------------------------------------------------------


def test_a_body_too_large_by_its_own_account(client: httpx.Client):
    content = b'{"inputs": [[' + b"1," * 1_100_000 + b"1]]}"
    body = refused(client.post("/predict", content=content), 413, "body_too_large")
    assert "2000000" in body["message"]


def test_a_body_too_large_in_chunks(client: httpx.Client):
    def chunks():
        for _ in range(40):
            yield b" " * 64_000

    refused(client.post("/predict", content=chunks()), 413, "body_too_large")
    assert client.post("/predict", content=iter([GOOD[:9], GOOD[9:]])).status_code == 200


def test_a_declared_size_is_refused_before_the_body_is_sent(server):
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(10**15))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["code"] == "body_too_large"
    assert response.headers["connection"] == "close"
    connection.close()


def test_a_client_that_sends_everything_before_it_listens_gets_the_answer(server):
    """Closing on unread data would reset the connection and lose the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    size = 12_000_000
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode() + b" " * size)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer


def test_the_largest_body_that_is_allowed(client: httpx.Client):
    padded = GOOD + b" " * (2_000_000 - len(GOOD))
    assert client.post("/predict", content=padded).status_code == 200
    refused(client.post("/predict", content=padded + b" "), 413, "body_too_large")


def test_a_slow_body_is_given_up_and_a_hang_up_while_sending_is_no_matter(start, zoo: Path):
    served = start(zoo, "--body-timeout-ms", "50", "--default-model", "animals")
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = b""
        while b"\r\n\r\n{" not in answer and (chunk := connection.recv(65536)):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"body_timeout"' in answer
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    with served.client() as client:
        assert client.post("/predict", content=GOOD).status_code == 200
    assert served.stop() == 0
    assert "Traceback" not in served.err


# --- numbers that are not finite --------------------------------------------------------


def test_non_finite_outputs_are_null_with_a_warning(client: httpx.Client):
    body = client.post("/models/log/predict", json={"inputs": [[1, -1], [0, 1]]}).json()
    assert body["outputs"]["y"] == [[0.0, None], [None, 0.0]]
    assert body["warnings"] == ["Output 'y' has 2 numbers that are not finite. They are null here."]
    clean = client.post("/models/log/predict", json={"inputs": [[1, 1]]}).json()
    assert "warnings" not in clean


def test_non_finite_outputs_as_an_error(start, zoo: Path):
    served = start(zoo, env={"FOLDSERVE_NAN_POLICY": "error"})
    with served.client() as client:
        response = client.post("/models/log/predict", json={"inputs": [[1, -1]]})
        body = refused(response, 500, "non_finite_output")
        assert "'y' has 1" in body["message"]
        response = client.post("/models/log/predict", json={"inputs": [[1, 1]]})
        assert response.status_code == 200
        refused(client.post("/predict", json={"inputs": [[1]]}), 400, "model_not_chosen")
    assert served.stop() == 0


def test_a_late_answer(start, tmp_path: Path):
    repository.publish(tmp_path, "slow", repository.slow(4_000))
    served = start(tmp_path, "--request-timeout-ms", "1")
    with served.client() as client:
        refused(client.post("/predict", json={"inputs": [[1]]}), 504, "deadline_exceeded")
        assert client.get("/health/ready").status_code == 200
    assert served.stop() == 0
