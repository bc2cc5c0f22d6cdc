"""JSON to tensors: what is accepted, and how each mistake is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service import errors
from service.codecs import json_
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, Signature


def signature(dtype: str = "float32", shape=("batch", 2), *, names=("x",), batched=True):
    specs = {n: TensorSpec(name=n, dtype=dtype, shape=list(shape)) for n in names}
    return Signature(specs, {}, batched)


def decode(body: str | bytes, dtype: str = "float32", shape=("batch", 2), **kwargs):
    data = body.encode() if isinstance(body, str) else body
    return json_.decode(data, signature(dtype, shape, **kwargs))


def test_one_input_may_go_without_its_name():
    for body in ('{"inputs": [[1, 2.5]]}', '{"inputs": {"x": [[1, 2.5]]}}'):
        x = decode(body)["x"]
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, [[1, 2.5]])


def test_escaped_names_and_white_space_are_fine():
    body = ' {"inp\\u0075ts" :\t{"x\\"y" : [ [ 1 ,\n2 ] ] } }\r\n'
    tensors = decode(body, names=('x"y',))
    np.testing.assert_array_equal(tensors['x"y'], [[1, 2]])


@pytest.mark.parametrize("name", ["null", "true", "e1.5", "-", "[]", "ümlaut", "eE0123456789"])
def test_any_name_will_do(name: str):
    body = json.dumps({"inputs": {name: [[1, 2]]}})
    np.testing.assert_array_equal(decode(body, names=(name,))[name], [[1, 2]])


def test_booleans_and_scalars():
    assert decode('{"inputs": [[true, false]]}', "bool")["x"].tolist() == [[True, False]]
    scalar = decode('{"inputs": 2.5}', shape=(), batched=False)["x"]
    assert scalar.shape == ()
    assert scalar == np.float32(2.5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_integers_to_the_edge_and_not_beyond(dtype: str):
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    x = decode(f'{{"inputs": [[{low}, {high}]]}}', dtype)["x"]
    assert x.dtype == dtype
    assert x.tolist() == [[low, high]]
    for beyond in (low - 1, high + 1):
        with pytest.raises((errors.OutOfRange, errors.WrongType)):
            decode(f'{{"inputs": [[0, {beyond}]]}}', dtype)


REFUSED = [
    # body, dtype, error, what the message names
    ("", "float32", errors.EmptyBody, "no body"),
    (" \n", "float32", errors.EmptyBody, "no body"),
    ('{"inputs": [[1, 2]}', "float32", errors.MalformedJson, "line 1, column 19"),
    ('{"inputs": [[1, 2]]} x', "float32", errors.MalformedJson, "column 22"),
    ("\ufeff{}", "float32", errors.MalformedJson, "BOM"),
    ("[" * 3000 + "]" * 3000, "float32", errors.MalformedJson, "depth"),
    ('{"inputs": ' + "[" * 900 + "1" + "]" * 900 + "}", "float32", errors.WrongRank, "levels"),
    ('{"inputs": [[1, NaN]]}', "float32", errors.NonFiniteLiteral, "column 17"),
    ('{"inputs": [[1, -Infinity]]}', "float32", errors.NonFiniteLiteral, "column"),
    ('{"inputs": [[1, Infinity]]}', "float32", errors.NonFiniteLiteral, "column"),
    ('{"inputs": [[1, nan]]}', "float32", errors.NonFiniteLiteral, "column"),
    ('{"inputs": [[1, 1e999]]}', "float32", errors.OutOfRange, "column"),
    ("[[1, 2]]", "float32", errors.InvalidBody, "a list"),
    ("null", "float32", errors.InvalidBody, "null"),
    ("{}", "float32", errors.InvalidBody, "no key 'inputs'"),
    ('{"instances": [[1, 2]]}', "float32", errors.InvalidBody, "no key 'inputs'"),
    ('{"inputs": [[1, 2]], "extra": 1}', "float32", errors.InvalidBody, "'extra'"),
    ('{"inputs": [{"name": "x"}]}', "float32", errors.InvalidBody, "list of objects"),
    ('{"inputs": {}}', "float32", errors.MissingInput, "'x'"),
    ('{"inputs": {"y": [[1, 2]]}}', "float32", errors.UnknownInput, "'y'"),
    ('{"inputs": {"x": [[1, 2]], "x": [[3, 4]]}}', "float32", errors.DuplicateKey, "'x'"),
    ('{"inputs": [[1, 2]], "inputs": [[3, 4]]}', "float32", errors.DuplicateKey, "'inputs'"),
    ('{"inputs": null}', "float32", errors.WrongType, "null"),
    ('{"inputs": "1"}', "float32", errors.WrongType, "text"),
    ('{"inputs": 1}', "float32", errors.WrongType, "a number"),
    ('{"inputs": []}', "float32", errors.EmptyBatch, "empty list"),
    ('{"inputs": [1, 2]}', "float32", errors.WrongRank, "received (2,)"),
    ('{"inputs": [[[1, 2]]]}', "float32", errors.WrongRank, "more than 2 levels"),
    ('{"inputs": [[1, 2], [3]]}', "float32", errors.RaggedInput, "inputs[1] has 1"),
    ('{"inputs": [[1, 2], 3]}', "float32", errors.RaggedInput, "inputs[1] is a number"),
    ('{"inputs": [[1, 2], [3, [4]]]}', "float32", errors.RaggedInput, "inputs[1][1] is a list"),
    ('{"inputs": [[1, 2], [3, 4, 5]]}', "int64", errors.RaggedInput, "inputs[1] has 3"),
    ('{"inputs": {"x": [[1, null]]}}', "float32", errors.NullValue, "inputs.x[0][1]"),
    ('{"inputs": [[1, 2], null]}', "float32", errors.NullValue, "inputs[1]"),
    ('{"inputs": [[1, "2"]]}', "float32", errors.WrongType, "inputs[0][1] is text"),
    ('{"inputs": [[1, {}]]}', "float32", errors.WrongType, "an object"),
    ('{"inputs": [[1, true]]}', "float32", errors.WrongType, "a boolean"),
    ('{"inputs": [[1, true]]}', "int64", errors.WrongType, "a boolean"),
    ('{"inputs": [[1, 2.0]]}', "int64", errors.WrongType, "inputs[0][1]"),
    ('{"inputs": [[1, 1e3]]}', "int64", errors.WrongType, "inputs[0][1]"),
    ('{"inputs": [[1, 0]]}', "bool", errors.WrongType, "expected true or false"),
    ('{"inputs": [[true, "a"]]}', "bool", errors.WrongType, "text"),
    ('{"inputs": [[0, 1e39]]}', "float32", errors.OutOfRange, "inputs[0][1]"),
    ('{"inputs": [[0, 0], [-70000, 0]]}', "float16", errors.OutOfRange, "inputs[1][0]"),
    ('{"inputs": [[0, 18446744073709551615], [-1, 0]]}', "int64", errors.OutOfRange, "range"),
    ('{"inputs": [[0, -1]]}', "uint8", errors.OutOfRange, "inputs[0][1]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "dtype", "error", "text"), REFUSED, ids=[f"{b[:34]}-{d}" for b, d, _, _ in REFUSED]
)
def test_refused(body: str, dtype: str, error: type[errors.ServiceError], text: str):
    with pytest.raises(error) as caught:
        decode(body, dtype)
    assert type(caught.value) is error
    assert text in caught.value.message
    assert 400 <= caught.value.status < 500


def test_invalid_utf8_names_the_byte():
    with pytest.raises(errors.InvalidUtf8, match="byte 13"):
        decode(b'{"inputs": [["\xff"]]}'.replace(b'["', b'[ "', 1)[:13] + b"\xff]]}")


def test_one_sample_without_its_batch_axis_gets_the_hint():
    with pytest.raises(errors.WrongRank) as caught:
        decode('{"inputs": [1, 2]}')
    assert "one more list" in caught.value.hint
    assert "(batch, 2)" in caught.value.message
    with pytest.raises(errors.WrongRank) as caught:
        decode('{"inputs": [1, 2]}', batched=False, shape=(1, 2))
    assert "one more list" not in caught.value.hint


def test_several_inputs_must_be_named():
    with pytest.raises(errors.InvalidBody, match="2 inputs \\('a', 'b'\\)"):
        decode('{"inputs": [[1, 2]]}', names=("a", "b"))


def test_no_value_and_no_path_is_echoed():
    secret = "4815162342.108"
    for body in (f'{{"inputs": [[{secret}, null]]}}', f'{{"inputs": [[1, {secret}e300]]}}'):
        with pytest.raises(errors.ServiceError) as caught:
            decode(body)
        assert "4815162342" not in str(caught.value.body())


@given(
    hnp.arrays(
        st.sampled_from([d for d in NUMPY_DTYPES.values() if d.kind != "O"]),
        st.tuples(st.integers(1, 4), st.integers(1, 3)),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_every_array_survives_the_way_there(array: np.ndarray):
    body = json_.encode({"inputs": json_.tensor(array)})
    back = decode(body, array.dtype.name, ("batch", array.shape[1]))["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(
    hnp.arrays(
        np.dtype(object),
        st.tuples(st.integers(1, 4), st.integers(1, 3)),
        elements=st.text(st.characters(codec="utf-8"), max_size=5),
    )
)
def test_every_text_survives_the_way_there(array: np.ndarray):
    body = json_.encode({"inputs": json_.tensor(array)})
    back = decode(body, "string", ("batch", array.shape[1]))["x"]
    assert (back.dtype, back.tolist()) == (array.dtype, array.tolist())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(_JSON, st.sampled_from(["float32", "int8", "bool", "string"]))
def test_any_document_gives_a_tensor_or_a_client_error(value, dtype: str):
    """Nothing else may happen, and what is accepted is exactly the numbers that were sent."""
    body = json.dumps({"inputs": value}).encode()
    try:
        x = json_.decode(body, signature(dtype))["x"]
    except errors.BadRequest:
        return
    assert x.dtype == NUMPY_DTYPES[dtype]
    sent = value["x"] if isinstance(value, dict) else value
    np.testing.assert_array_equal(x, np.array(sent, x.dtype).reshape(x.shape))


def test_non_finite_outputs_become_null():
    array = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)
    assert json_.encode({"y": json_.tensor(array)}) == b'{"y":[[1.5,null],[null,null]]}'
    assert json_.tensor(np.array(np.nan)) is None
    assert json_.tensor(np.array(3)) == 3
    half = np.array([[0.5], [2]], np.float16)
    assert json_.encode({"y": json_.tensor(half[::-1])}) == b'{"y":[[2.0],[0.5]]}'
