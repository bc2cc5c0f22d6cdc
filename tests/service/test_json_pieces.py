"""Parsing in pieces gives what the whole parser gives, or None; never anything else."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs import json_, pieces
from service.errors import ServiceError
from service.manifest import TensorSpec
from service.signature import Signature

SHAPES = [(2,), (3, 2), (2, 3, 2), (1, 1), (1, 1, 1)]


def spec(*row: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="x", dtype=dtype, shape=["batch", *row])


def whole(body: bytes, of: TensorSpec) -> np.ndarray | None:
    """What the parser makes of it that sees everything at once."""
    try:
        document = json_.parse(body)
        plain = json_.only_numbers(body, {"inputs": 0})
        if not isinstance(document, dict) or list(document) != ["inputs"] or not plain:
            return None
        array = json_.array_of(document["inputs"], of, "inputs", plain)
        Signature({"x": of}, {}, True).check({"x": array})
    except ServiceError:
        return None
    return array


@pytest.fixture(autouse=True, params=[1, 4, 64 * 1024])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIECE_ELEMENTS", request.param)


@pytest.mark.parametrize("row", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_shape_in_the_usual_spellings(row: tuple[int, ...], dtype: str):
    random = np.random.default_rng(0)
    for rows in (1, 2, 5):
        x = random.standard_normal((rows, *row)).astype(dtype)
        document = {"inputs": x.tolist()}
        for body in (orjson.dumps(document), json.dumps(document).encode()):
            got = pieces.decode(body, b"inputs", spec(*row, dtype=dtype))
            assert got is not None
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, x)
        body = json.dumps(document, indent=1).encode()
        got = pieces.decode(body, b"inputs", spec(*row, dtype=dtype))
        assert got is None or np.array_equal(got, x)


GOOD = b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8]]]}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[[[1,[2]],[3,4]],[[5,6],[7,8]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8]],9]}',
        b'{"inputs":[9,[[1,2],[3,4]],[[5,6],[7,8]]]}',
        b'{"inputs":9[[[1,2],[3,4]],[[5,6],[7,8]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8]]]9}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8]]]} 9',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8]],]}',
        b'{"inputs":[[[1,2],[3,4]],,[[5,6],[7,8]]]}',
        b'{"inputs":[[[1,2],[3,4]][[5,6],[7,8]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7 8]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8,9]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[]]]}',
        b'{"inputs":[[[1,2],[3,4],[5,6]],[[7,8]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,true]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,null]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,"8"]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,1e39]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,1e400]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,08]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,+8]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,-]]]}',
        b'{"inputs":[[[1,2],[3,4]],[[5,6],[7,8]]],"x":[]}',
        b'{"inputs":[],"inputs":[[[1,2],[3,4]]]}',
        b'{" inputs":[[[1,2],[3,4]]]}',
        b'{"other":[[[1,2],[3,4]]]}',
        b'{"inputs":[]}',
        b'{"inputs":[[]]}',
        b"]][[",
        b"",
    ],
)
def test_what_is_no_such_tensor_is_left_to_the_whole_parser(body: bytes):
    assert whole(body, spec(2, 2)) is None, "the case does not test anything"
    assert pieces.decode(body, b"inputs", spec(2, 2)) is None


def test_specs_that_it_is_not_made_for():
    body = b'{"inputs":[[1,2]]}'
    for other in (spec(2, dtype="int64"), spec(), spec(0)):
        assert pieces.decode(body, b"inputs", other) is None
    open_axis = TensorSpec(name="x", dtype="float32", shape=["batch", "time"])
    assert pieces.decode(body, b"inputs", open_axis) is None


TOKENS = [b"[", b"]", b",", b" ", b"1", b"-2.5e3", b"],[", b"]],[[", b"]]", b"[[", b"{", b"}", b'"']


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(st.integers(0, 39), st.integers(0, 3), st.sampled_from([b"", *TOKENS])),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_any_change_of_a_good_body_is_read_alike_or_not_at_all(changes):
    body = GOOD
    for start, length, token in changes:
        body = body[:start] + token + body[start + length :]
    got = pieces.decode(body, b"inputs", spec(2, 2))
    if got is not None:
        expected = whole(body, spec(2, 2))
        assert expected is not None, body
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(TOKENS), max_size=24))
def test_any_tokens_are_read_alike_or_not_at_all(tokens: list[bytes]):
    body = b'{"inputs":' + b"".join(tokens) + b"}"
    got = pieces.decode(body, b"inputs", spec(1, 1))
    if got is not None:
        expected = whole(body, spec(1, 1))
        assert expected is not None, body
        np.testing.assert_array_equal(got, expected)


def test_the_codec_uses_it(monkeypatch: pytest.MonkeyPatch):
    x = np.random.default_rng(0).standard_normal((70, 10, 10)).astype(np.float32)
    body = orjson.dumps({"inputs": x}, option=orjson.OPT_SERIALIZE_NUMPY)
    signature = Signature({"x": spec(10, 10)}, {}, True)
    calls = []

    def spy(*args):
        calls.append(args)
        return decode(*args)

    decode = pieces.decode
    monkeypatch.setattr(pieces, "decode", spy)
    np.testing.assert_array_equal(json_.decode(body, signature)["x"], x)
    assert len(calls) == 1
