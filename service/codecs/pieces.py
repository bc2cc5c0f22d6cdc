"""A large JSON tensor, parsed piece by piece: faster, in less memory, and with pauses.

A parser makes a Python object of every number, and holds the interpreter until the last one.
Of a body `{"inputs":[[[...],[...]],...]}` whose shape is known but for the number of rows,
subtrees of a few thousand numbers are parsed one after the other straight into the array, and
other threads (the event loop) get their turn in between.

That the pieces make up the document is proved first, on the bytes:

1. Delete numbers, commas and blanks. What is left must be the envelope and exactly the brackets
   of a tensor of that shape: it is rectangular, and holds nothing but numbers.
2. Cut at `]],[[` (with as many brackets as a subtree has axes), and take the remaining brackets
   off both ends of each piece. Each piece, in brackets, must be a valid subtree of its shape.

Every bracket between two pieces stands beside the comma of the cut, and by (1) their numbers
are right. Whatever is in doubt is None: the usual parser then reads it, or says what is wrong.

The flat `"data": [...]` of the Open Inference Protocol is simpler: between its brackets there
must be nothing but numbers, commas and blanks, it is cut at commas, and each piece, in brackets,
must be a list of numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import orjson

from service.codecs import packed
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, check_size

_BLANKS = b" \t\r\n"
_NUMBERS = b"0123456789+-.eE," + _BLANKS
_BEFORE = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"([a-z]*)"[ \t\r\n]*:[ \t\r\n]*')
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[')
_AFTER = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")
# About two milliseconds of parsing.
_PIECE_ELEMENTS = 64 * 1024
_PIECE_BYTES = 512 * 1024


def decode(body: bytes, key: bytes, spec: TensorSpec) -> np.ndarray | None:
    """The tensor of `{"<key>": <nested lists>}`, or None if that is not what the body is.

    Args:
        body: JSON text.
        key: the only key of the document, in small letters.
        spec: a float tensor of at least two axes, of which only the first is open.
    """
    dtype, sizes = NUMPY_DTYPES[spec.dtype], spec.shape[1:]
    if dtype.kind != "f" or not sizes or not all(isinstance(size, int) for size in sizes):
        return None
    row_shape = [size for size in sizes if isinstance(size, int)]
    if 0 in row_shape:
        return None
    rows = _rows(body, key, row_shape)
    if rows is None:
        return None
    check_size(spec, (rows, *row_shape))
    split = next(
        (axis for axis in range(len(row_shape)) if math.prod(row_shape[axis:]) <= _PIECE_ELEMENTS),
        len(row_shape) - 1,
    )
    shape = row_shape[split:]
    pieces = _pieces(body, len(shape))
    array = np.empty((rows * math.prod(row_shape[:split]), *shape), dtype)
    if len(pieces) != len(array):
        return None
    opening, closing = b"[" * len(shape), b"]" * len(shape)
    with np.errstate(over="ignore"):
        for position, piece in enumerate(pieces):
            try:
                lists = orjson.loads(opening + piece + closing)
                parsed = packed.array([lists], dtype, shape)
                if parsed is None:
                    parsed = np.asarray(lists, dtype)
                    if parsed.shape != array.shape[1:]:
                        return None
            except ValueError:  # not JSON, or not rectangular
                return None
            array[position] = parsed
    return array.reshape((rows, *row_shape)) if np.isfinite(array).all() else None


def flat(text: bytes, spec: TensorSpec) -> tuple[bytes, np.ndarray] | None:
    """The one flat list `"data": [...]` of a document, and the document with 0 in its place.

    Args:
        text: JSON.
        spec: of the tensor; only a float one is read.

    Returns:
        None if there is no such list, or another `"data"` beside it.
    """
    dtype = NUMPY_DTYPES[spec.dtype]
    if dtype.kind != "f" or text.count(b'"data"') != 1:
        return None
    key = _DATA.search(text)
    if key is None:
        return None
    begin, end = key.end(), text.find(b"]", key.end())
    numbers = text[begin:end]
    if end < 0 or numbers.translate(None, _NUMBERS):
        return None
    check_size(spec, [numbers.count(b",") + 1])
    parts = []
    for piece in _cut_at_commas(numbers):
        try:
            part = packed.flat(orjson.loads(b"[" + piece + b"]"), dtype)
        except orjson.JSONDecodeError:
            return None
        if part is None or not part.size:
            return None
        parts.append(part)
    return text[: begin - 1] + b"0" + text[end + 1 :], np.concatenate(parts)


def _cut_at_commas(numbers: bytes) -> Iterator[bytes]:
    """Pieces of about the same size; the commas between them are left out."""
    begin = 0
    while begin >= 0:
        comma = numbers.find(b",", begin + _PIECE_BYTES)
        yield numbers[begin : comma if comma >= 0 else len(numbers)]
        begin = comma + 1 if comma >= 0 else -1


def _rows(body: bytes, key: bytes, row_shape: list[int]) -> int | None:
    """How many rows the brackets make; None if they make no tensor, or there is more."""
    first, last = body.find(b"["), body.rfind(b"]")
    before, after = _BEFORE.fullmatch(body[:first]), _AFTER.fullmatch(body[last + 1 :])
    if first < 0 or before is None or before[1] != key or after is None:
        return None
    brackets = body[first : last + 1].translate(None, _NUMBERS)
    row = b"[]"
    for size in reversed(row_shape[:-1]):
        row = b"[" + row * size + b"]"
    rows = (len(brackets) - 2) // len(row)
    return rows if rows > 0 and brackets == b"[" + row * rows + b"]" else None


def _pieces(body: bytes, axes: int) -> list[bytes]:
    """The text of each subtree of so many axes, without its outer brackets."""
    inside = body[body.find(b"[") : body.rfind(b"]") + 1]
    first = inside.find(b"],")
    comma = b"," if inside[first + 2 : first + 3] == b"[" else b", "
    cuts = inside.split(b"]" * axes + comma + b"[" * axes)
    return [piece.lstrip(b"[" + _BLANKS).rstrip(b"]" + _BLANKS) for piece in cuts]
