"""Parsing in pieces gives what the whole parser gives, or None; never anything else."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs import json_, nested, pieces, tfs, v2
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
        array = nested.array_of(document["inputs"], of, "inputs", plain)
        Signature({"x": of}, {}, True).check({"x": array})
    except ServiceError:
        return None
    return array


@pytest.fixture(autouse=True, params=[1, 4, 64 * 1024])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIECE_ELEMENTS", request.param)


@pytest.fixture(
    autouse=True, params=[(1, 0), (1, 2**16), (100, 2**16)],
    ids=["lengths asked for", "brackets counted", "commas looked at"],
)  # fmt: skip
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    long, small = request.param
    monkeypatch.setattr(pieces, "_LONG", long)
    monkeypatch.setattr(pieces, "_SMALL_BYTES", small)


@pytest.mark.parametrize("row", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8"])
def test_every_shape_in_the_usual_spellings(row: tuple[int, ...], dtype: str):
    random = np.random.default_rng(0)
    for rows in (1, 2, 5):
        x = (100 * random.random((rows, *row))).astype(dtype)
        document = {"inputs": x.tolist()}
        for body in (orjson.dumps(document), json.dumps(document).encode()):
            got = pieces.decode(body, "inputs", spec(*row, dtype=dtype))
            assert got is not None
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, x)
        body = json.dumps(document, indent=1).encode()
        got = pieces.decode(body, "inputs", spec(*row, dtype=dtype))
        assert got is None or np.array_equal(got, x)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("int8", [b"-128", b"127", b"-0"], [b"-129", b"128", b"1.0", b"1e1", b"true"]),
        ("uint8", [b"0", b"255"], [b"-1", b"256", b"0.5", b"null"]),
        ("int64", [b"-9223372036854775808", b"9223372036854775807"], [b"9223372036854775808"]),
        ("uint64", [b"18446744073709551615"], [b"18446744073709551616", b"-1", b"1.0"]),
        ("float16", [b"65504", b"-0.0", b"1e-9"], [b"65520", b"1e5"]),
        ("float32", [b"3.4028234e38", b"16777217", b"1e-50"], [b"3.5e38", b"NaN", b'"1"']),
        ("float64", [b"1.7976931348623157e308", b"9007199254740993", b"1E-400"], [b"1e309"]),
    ],
)
def test_the_ends_of_each_dtype(dtype: str, good: list[bytes], bad: list[bytes]):
    one = spec(1, dtype=dtype)
    for text in good:
        body = b'{"inputs":[[%b]]}' % text
        got, expected = pieces.decode(body, "inputs", one), whole(body, one)
        assert got is not None
        assert expected is not None
        assert got.tobytes() == expected.tobytes(), text
    for text in bad:
        assert pieces.decode(b'{"inputs":[[1],[%b]]}' % text, "inputs", one) is None, text


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float_is_rounded_as_by_the_whole_parser(values: list[float]):
    for dtype in ("float64", "float32"):
        one = spec(1, dtype=dtype)
        for dump in (json.dumps, lambda rows: json.dumps([[f"{v:.25e}"] for [v] in rows])):
            text = dump([[value] for value in values]).replace('"', "").encode()
            body = b'{"inputs":' + text + b"}"
            got, expected = pieces.decode(body, "inputs", one), whole(body, one)
            assert (got is None) == (expected is None)
            assert got is None or expected is None or got.tobytes() == expected.tobytes()


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
    assert pieces.decode(body, "inputs", spec(2, 2)) is None


def test_specs_that_it_is_not_made_for():
    body = b'{"inputs":[[1,2]]}'
    for other in (spec(2, dtype="bool"), spec(), spec(0)):
        assert pieces.decode(body, "inputs", other) is None
    open_axis = TensorSpec(name="x", dtype="float32", shape=["batch", "time"])
    assert pieces.decode(body, "inputs", open_axis) is None


TOKENS = [b"[", b"]", b",", b" ", b"1", b"-2.5e3", b"],[", b"]],[[", b"]]", b"[[", b"{", b"}", b'"']


@settings(max_examples=2 * settings().max_examples)
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
    got = pieces.decode(body, "inputs", spec(2, 2))
    if got is not None:
        expected = whole(body, spec(2, 2))
        assert expected is not None, body
        np.testing.assert_array_equal(got, expected)


@given(st.lists(st.sampled_from(TOKENS), max_size=24))
def test_any_tokens_are_read_alike_or_not_at_all(tokens: list[bytes]):
    body = b'{"inputs":' + b"".join(tokens) + b"}"
    got = pieces.decode(body, "inputs", spec(1, 1))
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


# --- the flat list of the Open Inference Protocol ---------------------------------------


def document(data: bytes, more: bytes = b"") -> bytes:
    shape = data.count(b",") + 1
    return b'{"inputs": [{"name": "x", "shape": [%d, 1], "datatype": "FP32", "data" : [%b]%b}]}' % (
        shape,
        data,
        more,
    )


@pytest.mark.parametrize("separator", [b",", b", ", b" ,\n"])
@pytest.mark.parametrize("count", [1, 2, 50, 333])
def test_a_flat_list_in_pieces(monkeypatch: pytest.MonkeyPatch, separator: bytes, count: int):
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 64)
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    text = document(separator.join(str(v).encode() for v in values.tolist()))
    found = pieces.flat(text, spec(1))
    assert found is not None
    left, array = found
    np.testing.assert_array_equal(array, values)
    assert array.dtype == np.float32
    assert orjson.loads(left)["inputs"][0]["data"] == 0


@pytest.mark.parametrize(
    "text",
    [
        document(b""), document(b" "), document(b"1,,2"), document(b"1,2,"), document(b",1"),
        document(b"[1],[2]"), document(b"1,true"), document(b"1,null"), document(b'1,"2"'),
        document(b"1 2"), document(b"1,01"), document(b"1,1e39"), document(b"1,1e400"),
        document(b"1,2", b', "parameters": {"a": "data"}'),
        document(b"1,2").replace(b'"data"', b'"Data"'), document(b"1,2")[:-4], b"",
    ],
)  # fmt: skip
def test_what_is_no_flat_list_is_left_to_the_whole_parser(
    monkeypatch: pytest.MonkeyPatch, text: bytes
):
    for size in (1, 10_000):
        monkeypatch.setattr(pieces, "_PIECE_BYTES", size)
        assert pieces.flat(text, spec(1)) is None


def signature() -> Signature:
    one = TensorSpec(name="x", dtype="float32", shape=["batch", 1])
    return Signature({"x": one}, {"y": one}, True)


LONG = b",".join([b"0.5", b"-2e3", b"7"] * 40)


@pytest.mark.parametrize(
    "text",
    [
        document(LONG),
        document(LONG).replace(b"[120, 1]", b"[119, 1]"),
        document(LONG, b', "data": [1]'),
        document(LONG, b', "name": "x"'),
        document(LONG).replace(b'"data"', b'"\\u0064ata": 0, "parameters": {"data"', 1)[:-3]
        + b"}}]}",
        document(LONG).replace(b'{"inputs"', b'{"data": [1], "inputs"'),
        document(LONG).replace(b"-2e3", b"1e39", 1),
        document(LONG)[:-1],
    ],
)
def test_a_large_document_is_read_as_a_small_one(monkeypatch: pytest.MonkeyPatch, text: bytes):
    def read() -> object:
        try:
            return v2.decode(text, None, signature()).tensors["x"].tolist()
        except ServiceError as error:
            return error.body()

    whole_at_once = read()
    monkeypatch.setattr(v2, "_LARGE_BYTES", 8)
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 64)
    assert read() == whole_at_once


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 1, 9), (1, 40), (6, 0), (5, 2, 2, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_a_large_array_is_written_as_a_small_one(monkeypatch, shape: tuple[int, ...], dtype: str):
    array = (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype)
    if dtype == "float32" and array.size:
        array.flat[0] = np.nan
    at_once = json_.encode({"y": json_.tensor(array)})
    monkeypatch.setattr(json_, "_LARGE_ELEMENTS", 4)
    assert json_.encode({"y": json_.tensor(array)}) == at_once
    assert json_.encode({"y": json_.tensor(array[::-1])}) == json_.encode(
        {"y": np.ascontiguousarray(array[::-1])}
    )


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_rows_and_columns(key: str):
    tensors, by_rows = tfs.decode(orjson.dumps({key: [[float(i)] for i in range(20)]}), signature())
    assert by_rows == (key == "instances")
    np.testing.assert_array_equal(tensors["x"], np.arange(20, dtype=np.float32)[:, None])
