"""Bodies with a Content-Encoding: what they hold, within the limits, or a sentence."""

from __future__ import annotations

import gzip
import zlib

import httpx
import numpy as np
import orjson
import pytest
import repository
from hypothesis import given
from hypothesis import strategies as st
from test_predict_route import refused

from service.codecs import compressed
from service.errors import BodyTooLarge, InvalidBody

X = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
JSON = orjson.dumps({"inputs": X}, option=orjson.OPT_SERIALIZE_NUMPY)
SQUEEZE = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}
LIMIT = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    return repository.reference(repository.linear(), {"x": X})["scores"]


@given(st.binary(max_size=200), st.integers(1, 64), st.sampled_from(sorted(SQUEEZE)))
def test_what_was_squeezed_comes_out(content: bytes, step: int, coding: str):
    before = compressed._STEP_BYTES
    compressed._STEP_BYTES = step
    try:
        pieces = list(compressed.inflate(SQUEEZE[coding](content), coding.encode(), LIMIT))
    finally:
        compressed._STEP_BYTES = before
    assert b"".join(pieces) == content
    assert all(0 < len(piece) <= step for piece in pieces)


@pytest.mark.parametrize("coding", sorted(SQUEEZE))
def test_what_is_no_whole_stream_is_refused(coding: str):
    whole = SQUEEZE[coding](JSON)
    for body in (*(whole[:cut] for cut in range(len(whole))), whole + b"x", JSON, whole[1:]):
        with pytest.raises(InvalidBody):
            list(compressed.inflate(body, coding.encode(), LIMIT))


def test_a_bomb_is_inflated_no_further_than_the_limit():
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    pieces: list[bytes] = []
    with pytest.raises(BodyTooLarge):
        pieces.extend(compressed.inflate(bomb, b"gzip", 3_000_000))
    assert 0 < sum(map(len, pieces)) <= 3_000_000


@pytest.mark.parametrize("coding", [*SQUEEZE, "GZIP", "identity"])
def test_json(client: httpx.Client, scores: np.ndarray, coding: str):
    content = SQUEEZE.get(coding.lower(), bytes)(JSON)
    answer = client.post(
        "/predict", content=content,
        headers={"content-type": "application/json", "content-encoding": coding},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["outputs"]["scores"], scores, rtol=1e-5, atol=1e-6)


def test_raw_bytes_and_tensorflow_serving(client: httpx.Client, scores: np.ndarray):
    raw = client.post(
        "/predict", content=gzip.compress(X.tobytes()),
        headers={
            "content-type": "application/octet-stream", "content-encoding": "gzip",
            "x-shape": "3,4", "x-dtype": "float32",
        },
    ).json()  # fmt: skip
    np.testing.assert_allclose(raw["outputs"]["scores"], scores, rtol=1e-5, atol=1e-6)
    rows = client.post(
        "/v1/models/animals:predict", headers={"content-encoding": "gzip"},
        content=gzip.compress(orjson.dumps({"instances": X.tolist()})),
    )  # fmt: skip
    np.testing.assert_allclose(rows.json()["predictions"], scores, rtol=1e-5, atol=1e-6)


def test_mistakes_over_the_wire(client: httpx.Client):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    text = refused(client.post("/predict", content=JSON, headers=headers), 400, "invalid_body")
    assert "not gzip" in text["message"]
    bomb = gzip.compress(b" " * 100_000_000)
    refused(client.post("/predict", content=bomb, headers=headers), 413, "body_too_large")
    empty = client.post("/predict", content=gzip.compress(b""), headers=headers)
    refused(empty, 400, "empty_body")
