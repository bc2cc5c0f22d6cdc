"""JSON to tensors and back.

    {"inputs": [[0.1, 0.2], ...]}            when the model has one input
    {"inputs": {"x": [...], "mask": [...]}}  by name

That the tensors hold numbers alone is proved by one pass over the bytes: delete all that numbers
and lists are made of, and see whether only the envelope, `{"inputs":}`, is left. Looking at each
element would take as long as parsing; only where the proof fails does `nested` look at them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import orjson

from service.codecs import nested, pieces
from service.errors import (
    DuplicateKey,
    EmptyBody,
    InvalidBody,
    InvalidUtf8,
    MalformedJson,
    NonFiniteLiteral,
    OutOfRange,
)
from service.signature import Signature, Tensors

_OF_NUMBERS_AND_LISTS = b"0123456789+-.eE,[] \t\r\n"
_LARGE_ELEMENTS = 64 * 1024
# Three bytes that say "here is an empty list" become an object of 72, and are looked at one by one.
_MOST_LISTS = 1_000_000
_LIST_BYTES, _VALUE_BYTES = 80, 64
_LARGE_BYTES = 256 * 1024
_STEP_BYTES = 1024 * 1024

Charge = Callable[[int], object]
_NON_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)\b", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d")


def uncounted(_: int) -> None:
    """For who counts nothing."""


def decode(body: bytes, signature: Signature, charge: Charge = uncounted) -> Tensors:
    """The tensors of a request: {input name: array of the input's dtype and rank}.

    Raises:
        BadRequest: one of its classes, with the position in the document. Shapes are
            checked here only as far as JSON is concerned; `Signature.check` does the rest.
    """
    if len(body) > _LARGE_BYTES:
        check_lists(body)
    if len(signature.inputs) == 1:
        ((name, spec),) = signature.inputs.items()
        array = pieces.decode(body, "inputs", spec)
        if array is not None:
            return {name: array}
    document = parse(body, charge)
    named = _by_name(document, signature)
    inputs = document["inputs"]
    whole = not isinstance(inputs, dict)
    plain = only_numbers(body, {"inputs": 0 if whole else dict.fromkeys(inputs, 0)})
    if not plain and body.count(b'"') != 2 * (1 if whole else 1 + len(inputs)):
        refuse_duplicate_keys(body)
    signature.check_names(named)
    return {
        name: nested.array_of(
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


def parse(body: bytes, charge: Charge = uncounted) -> Any:
    """The document.

    Args:
        charge: told how many bytes the objects of a large one take at most; may raise.

    Raises:
        EmptyBody, InvalidUtf8, MalformedJson, NonFiniteLiteral, OutOfRange.
        InvalidBody: so many lists that they would take many times the memory of the body.
    """
    if not body or body.isspace():
        raise EmptyBody("The request has no body.")
    if len(body) > _LARGE_BYTES:
        charge(_objects_bytes(body))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _explain(body, error)


def check_lists(body: bytes) -> int:
    """How many lists and objects a body may have; counted with pauses, and not beyond the most.

    Raises:
        InvalidBody: more than that.
    """
    found = 0
    for begin in range(0, len(body), _STEP_BYTES):
        end = begin + _STEP_BYTES
        found += body.count(b"[", begin, end) + body.count(b"{", begin, end)
        if found > _MOST_LISTS:
            raise InvalidBody(
                f"The body has more than {_MOST_LISTS} lists and objects.",
                hint="Send fewer rows at a time, or the tensor as raw bytes.",
            )
    return found


def _objects_bytes(body: bytes) -> int:
    """What a parser makes of it at most, in bytes: behind each comma stands a value."""
    steps = range(0, len(body), _STEP_BYTES)
    values = sum([body.count(b",", begin, begin + _STEP_BYTES) for begin in steps])
    return len(body) + _LIST_BYTES * check_lists(body) + _VALUE_BYTES * values


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
        raise InvalidBody(
            f"The body is {nested.kind_of(document)}, expected an object with 'inputs'."
        )
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
            f"so 'inputs' must be an object, but is {nested.kind_of(inputs)}.",
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
