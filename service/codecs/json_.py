"""JSON to tensors and back.

    {"inputs": [[0.1, 0.2], ...]}            when the model has one input
    {"inputs": {"x": [...], "mask": [...]}}  by name

numpy is too obliging for a server: np.asarray makes 1.0 of "1" and of true, NaN of null, and
1 of 1.5 for an integer dtype. Looking at each element costs as much as parsing, so one pass
over the bytes proves that there is nothing to look at: delete all that numbers and lists are
made of, and if only the envelope, `{"inputs":}`, is left, then the tensors hold numbers
alone. Only otherwise are the elements inspected one by one, which also finds the position
for the message.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import numpy as np
import orjson

from service.codecs import packed, pieces
from service.errors import (
    DuplicateKey,
    EmptyBatch,
    EmptyBody,
    InvalidBody,
    InvalidUtf8,
    MalformedJson,
    NonFiniteLiteral,
    NullValue,
    OutOfRange,
    RaggedInput,
    WrongRank,
    WrongType,
)
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, Signature, Tensors, check_shape, check_size, show

_OF_NUMBERS_AND_LISTS = b"0123456789+-.eE,[] \t\r\n"
_LARGE_ELEMENTS = 64 * 1024
_NON_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)\b", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d")
# What an element may be, by the kind of numpy's dtype; of integers there are two.
_ALLOWED: dict[str, set[type]] = {"b": {bool}, "f": {int, float}, "O": {str}}


def decode(body: bytes, signature: Signature) -> Tensors:
    """The tensors of a request: {input name: array of the input's dtype and rank}.

    Raises:
        BadRequest: one of its classes, with the position in the document. Shapes are
            checked here only as far as JSON is concerned; `Signature.check` does the rest.
    """
    if len(signature.inputs) == 1:
        ((name, spec),) = signature.inputs.items()
        array = pieces.decode(body, "inputs", spec)
        if array is not None:
            return {name: array}
    document = parse(body)
    named = _by_name(document, signature)
    inputs = document["inputs"]
    whole = not isinstance(inputs, dict)
    plain = only_numbers(body, {"inputs": 0 if whole else dict.fromkeys(inputs, 0)})
    if not plain and body.count(b'"') != 2 * (1 if whole else 1 + len(inputs)):
        refuse_duplicate_keys(body)
    signature.check_names(named)
    return {
        name: array_of(
            named[name], spec, "inputs" if whole else f"inputs.{name}", plain, signature.batched
        )
        for name, spec in signature.inputs.items()
    }


def encode(payload: dict[str, Any]) -> bytes:
    """A response as JSON; numpy arrays inside become nested lists, NaN and infinity null."""
    return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY)


def tensor(array: np.ndarray) -> Any:
    """The array in the form that `encode` takes: C order, and a scalar as a plain number.

    A large one is written here and now, in pieces, so that other threads get their turn.
    """
    if array.dtype.kind == "O":
        return array.tolist()
    if array.ndim == 0:
        value = array.item()
        return value if not isinstance(value, float) or np.isfinite(value) else None
    if array.size > _LARGE_ELEMENTS:
        return orjson.Fragment(_written(array))
    return np.ascontiguousarray(array)


def _written(array: np.ndarray) -> bytes:
    """JSON of an array with at least one axis."""
    if array.size <= _LARGE_ELEMENTS:
        return _encode_array(array)
    row = array.size // len(array)
    if row > _LARGE_ELEMENTS:
        return b"[" + b",".join([_written(each) for each in array]) + b"]"
    step = max(1, _LARGE_ELEMENTS // row)
    chunks = [_encode_array(array[i : i + step])[1:-1] for i in range(0, len(array), step)]
    return b"[" + b",".join(chunks) + b"]"


def _encode_array(array: np.ndarray) -> bytes:
    """JSON of an array in one go."""
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


def parse(body: bytes) -> Any:
    """The document. Raises EmptyBody, InvalidUtf8, MalformedJson, NonFiniteLiteral, OutOfRange."""
    if not body or body.isspace():
        raise EmptyBody("The request has no body.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _explain(body, error)


def _explain(body: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as undecodable:
        raise InvalidUtf8(f"The body is not UTF-8: byte {undecodable.start}.") from None
    where = f"line {error.lineno}, column {error.colno}"
    # The parser reports a sign's successor for -Infinity and the value itself for the others.
    if _NON_FINITE.match(text, error.pos):
        raise NonFiniteLiteral(f"NaN or Infinity at {where}.") from None
    if _NUMBER.match(text, error.pos) and "infinity" in error.msg:
        raise OutOfRange(f"The number at {where} does not fit a 64-bit float.") from None
    raise MalformedJson(f"The body is not valid JSON: {error.msg} at {where}.") from None


def _by_name(document: Any, signature: Signature) -> dict[str, Any]:
    """The value of `inputs` as {name: nested lists}."""
    if not isinstance(document, dict):
        raise InvalidBody(f"The body is {kind_of(document)}, expected an object with 'inputs'.")
    if "inputs" not in document:
        hint = None
        if "instances" in document:
            hint = 'This server\'s key is "inputs", not "instances".'
        raise InvalidBody("The body has no key 'inputs'.", hint=hint)
    unknown = [key for key in document if key != "inputs"]
    if unknown:
        raise InvalidBody(f"The body has the unknown key {unknown[0][:64]!r}.")
    inputs = document["inputs"]
    if isinstance(inputs, dict):
        return inputs
    if len(signature.inputs) > 1:
        raise InvalidBody(
            f"The model has {len(signature.inputs)} inputs ({signature.names()}), "
            f"so 'inputs' must be an object, but is {kind_of(inputs)}.",
            hint='Send {"inputs": {"<name>": [...], ...}}.',
        )
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):
        raise InvalidBody(
            "'inputs' is a list of objects, expected nested lists of numbers.",
            hint='Send {"inputs": [[...]]} or {"inputs": {"<name>": [...]}}; a list of '
            '{"name", "shape", "datatype", "data"} belongs to the Open Inference Protocol.',
        )
    return {next(iter(signature.inputs)): inputs}


def only_numbers(body: bytes, envelope: Any) -> bool:
    """Whether the body is the envelope, with nothing but numbers and lists in its zeros.

    Also proves that no key of an object occurs twice.

    Args:
        body: the JSON text.
        envelope: the parsed document with 0 in the place of each tensor.
    """
    left, expected = (
        text.translate(None, _OF_NUMBERS_AND_LISTS) for text in (body, orjson.dumps(envelope))
    )
    # `{"inputs": 5}` leaves the same as `{"inputs": [5]}`: the rank check comes later.
    return left == expected


def refuse_duplicate_keys(body: bytes) -> None:
    """orjson keeps the last of two equal keys; which one the client meant is unknown.

    Raises:
        DuplicateKey.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise DuplicateKey(f"The key {key[:64]!r} occurs twice.")
            seen[key] = value
        return seen

    try:
        json.loads(body, object_pairs_hook=unique)
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None


def array_of(
    value: Any, spec: TensorSpec, where: str, plain: bool, batched: bool = False
) -> np.ndarray:
    """Nested lists as an array of the spec's dtype and rank.

    Args:
        value: of a parsed document.
        spec: what it must become.
        where: its place in the document, for messages.
        plain: it is known to hold nothing but numbers and lists.
        batched: whether axis 0 counts rows, for a hint.

    Raises:
        BadRequest: one of its classes.
        TensorTooLarge: more than --max-tensor-bytes.
    """
    dtype = NUMPY_DTYPES[spec.dtype]
    row_shape = spec.shape[1:]
    _check_size(value, spec)
    if plain and row_shape and all(isinstance(dim, int) and dim for dim in row_shape):
        quick = packed.array(value, dtype, [dim for dim in row_shape if isinstance(dim, int)])
        if quick is not None and len(quick):
            return quick
    _check_depth(value, spec, where, batched)
    if not plain or dtype.kind in "bO":
        _inspect(value, spec, where)
    if dtype.kind == "O":
        return np.array(value, dtype)
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = np.asarray(value, dtype=dtype)
            bad = ~np.isfinite(array)
        elif dtype.kind == "b":
            return np.asarray(value, dtype=dtype)
        else:
            wide = np.asarray(value)
            if wide.size and wide.dtype.kind not in "iu":
                # Floats, or integers that neither int64 nor uint64 holds together.
                _inspect(value, spec, where)
                wide = np.asarray(value, dtype=dtype)
            limits = np.iinfo(dtype)
            bad = (wide < limits.min) | (wide > limits.max)
            array = wide.astype(dtype)
    except OverflowError:
        raise OutOfRange(f"{where} has numbers outside the range of {spec.dtype}.") from None
    except ValueError:
        _inspect(value, spec, where)  # names the list that is too short or too long
        raise RaggedInput(f"{where} is not a rectangular array.") from None
    if bad.any():
        first = np.argwhere(bad)[0]
        raise OutOfRange(f"The number at {where}{_index(first)} does not fit {spec.dtype}.")
    return array


def _check_size(value: Any, spec: TensorSpec) -> None:
    """Raises TensorTooLarge, by the lengths of the first lists; the others are no longer."""
    sizes: list[int] = []
    while isinstance(value, list) and len(sizes) < len(spec.shape):
        sizes.append(len(value))
        value = value[0] if value else None
    check_size(spec, sizes)


def _check_depth(value: Any, spec: TensorSpec, where: str, batched: bool) -> None:
    """Compare the nesting of the first element with the rank, for the most common mistakes."""
    rank = len(spec.shape)
    received = []
    level = value
    while isinstance(level, list):
        received.append(len(level))
        if not level or len(received) > rank:
            break
        level = level[0]
    if len(received) == rank:
        return
    if not received and rank:
        raise WrongType(
            f"{where} is {kind_of(value)}, expected nested lists of shape {show(spec.shape)}."
        )
    if received[-1] == 0:
        raise EmptyBatch(f"{where} holds an empty list; the expected shape is {show(spec.shape)}.")
    if len(received) > rank:
        raise WrongRank(
            f"{where} has more than {rank} levels of lists; "
            f"the expected shape is {show(spec.shape)}.",
            hint="Remove the outermost list." if rank else "Send a plain number.",
        )
    single = batched and len(received) == rank - 1
    raise WrongRank(
        f"Input {spec.name!r}: expected shape {show(spec.shape)}, received {show(received)}.",
        hint="This looks like one sample without the batch axis: wrap it in one more list."
        if single
        else None,
    )


def _inspect(value: Any, spec: TensorSpec, where: str) -> None:
    """Look at every list and element; raise for the first that does not fit the spec."""
    rank = len(spec.shape)
    kind = NUMPY_DTYPES[spec.dtype].kind
    allowed = _ALLOWED.get(kind, {int})
    sizes: list[int] = []  # length of the lists at each level, set by the first list there

    def visit(level: Any, index: tuple[int, ...]) -> None:
        depth = len(index)
        if depth == rank:
            _refuse_element(level, spec, where + _index(index))
            return
        if not isinstance(level, list):
            if isinstance(level, int | float) and not isinstance(level, bool):
                raise RaggedInput(f"{where}{_index(index)} is a number, expected a list.")
            _refuse_element(level, spec, where + _index(index))
            raise RaggedInput(f"{where}{_index(index)} is {kind_of(level)}, expected a list.")
        if depth == len(sizes):
            sizes.append(len(level))
        elif len(level) != sizes[depth]:
            raise RaggedInput(
                f"{where}{_index(index)} has {len(level)} elements, "
                f"the lists before it have {sizes[depth]}."
            )
        if depth == rank - 1 and set(map(type, level)) <= allowed:
            return
        for position, element in enumerate(level):
            visit(element, (*index, position))

    visit(value, ())
    check_shape(spec, sizes)


def _refuse_element(element: Any, spec: TensorSpec, where: str) -> None:
    kind = NUMPY_DTYPES[spec.dtype].kind
    if element is None:
        raise NullValue(f"{where} is null.")
    if isinstance(element, list):
        raise RaggedInput(f"{where} is a list, expected an element of {spec.dtype}.")
    if kind == "O":
        if not isinstance(element, str):
            raise WrongType(f"{where} is {kind_of(element)}, expected text.")
    elif isinstance(element, bool):
        if kind != "b":
            raise WrongType(f"{where} is a boolean, expected a number of {spec.dtype}.")
    elif isinstance(element, str | dict):
        raise WrongType(f"{where} is {kind_of(element)}, expected an element of {spec.dtype}.")
    elif kind == "b":
        raise WrongType(f"{where} is a number, expected true or false.")
    elif isinstance(element, float) and kind in "iu":
        raise WrongType(
            f"{where} is not a whole number of {spec.dtype}.",
            hint="Write whole numbers without a decimal point or exponent, in the dtype's range.",
        )


def _index(position: Any) -> str:
    return "".join(f"[{int(i)}]" for i in position)


def kind_of(value: Any) -> str:
    """What a parsed value is, for a message."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}
    return names.get(type(value), "a number")
