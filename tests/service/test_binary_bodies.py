"""POST /predict with .npy files and raw bytes, in both directions, on a real server."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import numpy as np
import pytest
import repository
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_predict_route import refused

from service.codecs import npy
from service.errors import ServiceError
from service.manifest import TensorSpec
from service.protocols import media

X = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)
NPY = {"content-type": "application/x-npy"}
OCTETS = {"content-type": "application/octet-stream"}


def saved(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def loaded(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False)


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    return repository.reference(repository.linear(), {"x": X})["scores"]


@pytest.mark.parametrize("content", [saved(X), saved(np.asfortranarray(X)), saved(X.astype(">f4"))])
def test_an_npy_file_in_and_json_out(client: httpx.Client, content: bytes, scores: np.ndarray):
    body = client.post("/predict", content=content, headers=NPY).json()
    np.testing.assert_allclose(body["outputs"]["scores"], scores, rtol=1e-5, atol=1e-6)
    assert len(body["predictions"]) == 5


def test_json_in_and_an_npy_file_out(client: httpx.Client, scores: np.ndarray):
    answer = client.post("/predict", json={"inputs": X.tolist()}, headers={"accept": media.NPY})
    assert answer.headers["content-type"] == "application/x-npy"
    got = loaded(answer.content)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, scores, rtol=1e-5, atol=1e-6)


def test_raw_bytes_in_and_out(client: httpx.Client, scores: np.ndarray):
    headers = {**OCTETS, "accept": media.OCTETS}
    for more in ({}, {"x-shape": "5,4"}, {"x-shape": "5, 4", "x-dtype": "float32"}):
        answer = client.post("/predict", content=X.tobytes(), headers={**headers, **more})
        assert answer.headers["content-type"] == "application/octet-stream"
        assert (answer.headers["x-shape"], answer.headers["x-dtype"]) == ("5,3", "float32")
        got = np.frombuffer(answer.content, np.float32).reshape(5, 3)
        np.testing.assert_allclose(got, scores, rtol=1e-5, atol=1e-6)


def test_every_dtype_in_both_forms(client: httpx.Client):
    for model, array in (
        ("half", np.float16([[1.5, np.inf]])),
        ("double", np.float64([[1e300, np.nan]])),
        ("int64", np.int64([[2**62, -3]])),
        ("int8", np.int8([[127, -127]])),
        ("not", np.array([[True, False]])),
        ("scalar", np.float32(2.5)),
        ("free", np.float32([[1, 2, 3]])),
    ):
        array = np.asarray(array)
        expected = ~array if array.dtype == bool else -array
        url = f"/models/{model}/predict"
        answer = client.post(url, content=saved(array), headers={**NPY, "accept": media.NPY})
        np.testing.assert_array_equal(loaded(answer.content), expected)
        shape = {"x-shape": ",".join(map(str, array.shape)), "accept": media.OCTETS}
        answer = client.post(url, content=array.tobytes(), headers={**OCTETS, **shape})
        assert answer.content == expected.tobytes()
        assert answer.headers["x-dtype"] == array.dtype.name


def test_one_of_several_outputs_is_chosen_by_name(client: httpx.Client):
    body = {"inputs": {"a": [[1, 2]], "b": [[-5, 1]]}}
    headers = {"accept": media.NPY}
    url = "/models/pair/predict"
    answer = client.post(f"{url}?output=positive", json=body, headers=headers)
    assert loaded(answer.content).tolist() == [[False, True]]
    refused(client.post(url, json=body, headers=headers), 406, "not_acceptable")
    refused(client.post(f"{url}?output=z", json=body, headers=headers), 406, "not_acceptable")


def test_an_output_is_chosen_by_any_name():
    outputs = dict.fromkeys(("out:0", "a b/é&", "c+d"))
    model: Any = SimpleNamespace(signature=SimpleNamespace(outputs=outputs, left_out={}))
    for name in outputs:
        for query in (quote(name, safe=""), quote_plus(name)):
            assert media.only_output(model, f"a=1&output={query}&b=2".encode()) == name
    assert media.only_output(model, b"output=out:0") == "out:0"
    for query in (b"output=%ff%zz", b"output=", b""):
        with pytest.raises(ServiceError):
            media.only_output(model, query)


NPY_ERRORS = [
    (b"", "invalid_body", "not a .npy file"),
    (b"\x93NUMPY", "invalid_body", "not a .npy file"),
    (saved(X)[:-1], "invalid_body", "79 bytes"),
    (saved(X) + b"!", "invalid_body", "81 bytes"),
    (saved(X)[:6] + b"\x09\x00" + saved(X)[8:], "invalid_body", "not a .npy"),
    (saved(X.astype(np.float64)), "wrong_type", "astype(numpy.float32)"),
    (saved(np.array([[None]]), allow_pickle=True), "wrong_type", "objects"),
    (saved(X[:, :3]), "wrong_shape", "received (5, 3)"),
    (saved(X[0]), "wrong_rank", "received (4,)"),
    (saved(X[:0]), "empty_batch", "empty"),
    (saved(X).replace(b"(5, 4)", b"(-5,4)"), "invalid_body", ""),
    (saved(X).replace(b"(5, 4)", b"(5, 9)"), "invalid_body", ""),
]


@pytest.mark.parametrize(("content", "code", "text"), NPY_ERRORS)
def test_bad_npy_files(client: httpx.Client, content: bytes, code: str, text: str):
    body = refused(client.post("/predict", content=content, headers=NPY), 400, code)
    assert text in body["message"] + body["hint"]


RAW_ERRORS = [
    (X.tobytes()[:-1], {}, "wrong_shape", "multiple of 16"),
    (b"", {}, "empty_batch", "empty"),
    (X.tobytes(), {"x-shape": "5,3"}, "wrong_shape", "80 bytes"),
    (X.tobytes(), {"x-shape": "4,5"}, "wrong_shape", "axis 1 must be 4"),
    (X.tobytes(), {"x-shape": "20"}, "wrong_rank", "(20,)"),
    (X.tobytes(), {"x-shape": "a"}, "invalid_body", "X-Shape"),
    (X.tobytes(), {"x-shape": "-5,4"}, "invalid_body", "X-Shape"),
    (b"", {"x-shape": "0,999999999999999999,999999999999999999"}, "wrong_shape", ""),
    (X.tobytes(), {"x-dtype": "float64"}, "wrong_type", "float32"),
]


@pytest.mark.parametrize(("content", "headers", "code", "text"), RAW_ERRORS)
def test_bad_raw_bodies(client: httpx.Client, content: bytes, headers, code: str, text: str):
    response = client.post("/predict", content=content, headers={**OCTETS, **headers})
    body = refused(response, 400, code)
    assert text in body["message"] + body["hint"]


def test_a_binary_body_carries_one_input_and_a_known_shape(client: httpx.Client):
    for headers in (NPY, OCTETS):
        response = client.post("/models/pair/predict", content=saved(X), headers=headers)
        refused(response, 400, "wrong_type")
    refused(client.post("/models/free/predict", content=b"", headers=OCTETS), 400, "invalid_body")
    response = client.post("/models/not/predict", content=b"\x02\x01", headers=OCTETS)
    refused(response, 400, "out_of_range")
    twos = saved(np.array([[True, True]]))[:-2] + b"\x02\x02"
    refused(client.post("/models/not/predict", content=twos, headers=NPY), 400, "invalid_body")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, media.JSON),
        (b"*/*", media.JSON),
        (b"text/html", media.JSON),
        (b"application/x-npy", media.NPY),
        (b"application/x-npy, */*", media.JSON),
        (b"application/x-npy, */*;q=0.5", media.NPY),
        (b"application/x-npy;q=0.5, application/json", media.JSON),
        (b"application/json;q=0.5, Application/X-NPY;q=0.9", media.NPY),
        (b"application/x-npy;q=0, application/octet-stream;q=0.1", media.OCTETS),
        (b"application/x-npy;q=x", media.JSON),
        (b",;q=,", media.JSON),
    ],
)
def test_the_accept_header(accept: bytes | None, kind: str):
    assert media.of_answer(accept) == kind


SPEC = TensorSpec(name="x", dtype="float32", shape=["batch"])


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, min_side=0)))
def test_npy_round_trip(array: np.ndarray):
    np.testing.assert_array_equal(npy.decode(npy.encode(array), SPEC), array)


@settings(max_examples=3 * settings().max_examples)
@given(st.integers(0, 127), st.binary(min_size=1, max_size=12))
def test_a_damaged_npy_file_is_an_array_or_a_refusal(position: int, junk: bytes):
    content = saved(X)
    damaged = content[:position] + junk + content[position + len(junk) :]
    with contextlib.suppress(ServiceError):
        assert npy.decode(damaged, SPEC).nbytes == X.nbytes


def test_what_is_empty_is_named(client: httpx.Client):
    for shape, hint in (("0,2", "row"), ("2,0", "element on every axis")):
        headers = {**OCTETS, "x-shape": shape}
        answer = client.post("/models/free/predict", content=b"", headers=headers)
        assert hint in refused(answer, 400, "empty_batch")["hint"]
