"""JSON tensors straight into arrays, a large one piece by piece: with pauses, in less memory.

A parser holds the interpreter until the last number, and one that makes Python objects takes
many times the memory. Of a body `{"inputs":[[[...],[...]],...]}` whose shape is known but for
the number of rows, the numbers are read into the array as they are (`numbers`): of a large one
subtrees of some ten thousand, one after the other, and other threads (the event loop) get
their turn in between.

That they are the numbers of a tensor of that shape is proved on the bytes:

1. Delete digits, signs and blanks. What is left must be the envelope and exactly the brackets
   and commas of a tensor of that shape. (Of long innermost lists the parser tells the length,
   and it is cheaper to delete the commas as well.)
2. What is read must be valid JSON, and as many numbers as the tensor holds. So each place
   between two commas or brackets holds one number, and nothing else does.
3. Pieces are cut at `]],[[` (with as many brackets as a subtree has axes), and the remaining
   brackets are taken off both ends. By (1) these cuts are where one subtree ends and the next
   begins; each piece, in brackets, must be one by (2).

The flat `"data": [...]` of the Open Inference Protocol is simpler: between its brackets there
must be nothing but numbers, commas and blanks, it is cut at commas, and each piece, in brackets,
must be a list of numbers. Whatever is in doubt is None: the usual parser then reads it, or says
what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from service.codecs import numbers
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, check_size

_BLANKS = b" \t\r\n"
_OF_NUMBERS = b"0123456789+-.eE" + _BLANKS
_BEFORE = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"([a-z]*)"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_AFTER = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*\[')
# A few milliseconds of parsing, such as a picture of 224 by 224.
_PIECE_ELEMENTS = 192 * 1024
_PIECE_BYTES = 1024 * 1024
# A text of this size is parsed at once, and its brackets are counted after that.
_SMALL_BYTES = 64 * 1024
_LONG = 64  # elements of a list from which on its length is asked for


def decode(body: bytes, key: str, spec: TensorSpec) -> np.ndarray | None:
    """The tensor of `{"<key>": <nested lists>}`, or None if that is not what the body is.

    Args:
        key: the only key of the document, in small letters.
        spec: a tensor of numbers of at least two axes, of which only the first is open.

    Raises:
        TensorTooLarge: more than --max-tensor-bytes.
    """
    dtype, sizes = NUMPY_DTYPES[spec.dtype], spec.shape[1:]
    if len(sizes) == 1 and len(body) <= _SMALL_BYTES and dtype.kind in "fiu":
        (length,) = sizes
        if isinstance(length, int) and length >= _LONG:
            rows_of_it = numbers.of_rows(body, key, dtype, length)
            if rows_of_it is not None and rows_of_it.nbytes > spec.max_bytes:
                check_size(spec, rows_of_it.shape)
            return rows_of_it
    if dtype.kind not in "fiu" or not sizes or not all(isinstance(size, int) for size in sizes):
        return None
    row_shape = [size for size in sizes if isinstance(size, int)]
    before = _BEFORE.match(body)
    if 0 in row_shape or before is None or before[1] != key.encode():
        return None
    ask = row_shape[-1] >= _LONG
    rows = _rows(body, before[1], row_shape, commas=not ask)
    if not rows:
        return None
    shape = (rows, *row_shape)
    check_size(spec, shape)
    elements = math.prod(shape)
    if elements > _PIECE_ELEMENTS:
        return _in_pieces(body, dtype, shape, ask)
    array = numbers.of_member(body, key, dtype, shape if ask else ())
    return array.reshape(shape) if array is not None and array.size == elements else None


def _in_pieces(
    body: bytes, dtype: np.dtype, shape: tuple[int, ...], ask: bool
) -> np.ndarray | None:
    split = next(
        (axis for axis in range(1, len(shape)) if math.prod(shape[axis:]) <= _PIECE_ELEMENTS),
        len(shape) - 1,
    )
    axes = len(shape) - split
    pieces = _cut(body, axes)
    array = np.empty((math.prod(shape[:split]), math.prod(shape[split:])), dtype)
    if len(pieces) != len(array) or not _AFTER.fullmatch(body[body.rfind(b"]") + 1 :]):
        return None
    lengths = shape[split:] if ask else ()
    for row, piece in zip(array, pieces, strict=True):
        part = numbers.of_list(b"[" * axes + piece + b"]" * axes, dtype, lengths)
        if part is None or part.size != row.size:
            return None
        row[:] = part
    return array.reshape(shape)


def flat(text: bytes, spec: TensorSpec) -> tuple[bytes, np.ndarray] | None:
    """The one flat list `"data": [...]` of a document, and the document with 0 in its place.

    Args:
        spec: of the tensor, one of numbers.

    Returns:
        None if there is no such list, or another `"data"` beside it.

    Raises:
        TensorTooLarge: more than --max-tensor-bytes.
    """
    dtype, key = NUMPY_DTYPES[spec.dtype], _DATA.search(text)
    if dtype.kind not in "fiu" or key is None:
        return None
    begin, end = key.end(), text.find(b"]", key.end())
    inside, left = text[begin:end], text[: begin - 1] + b"0" + text[end + 1 :]
    if end < 0 or _without(inside, _OF_NUMBERS + b",") or left.count(b'"data"') != 1:
        return None
    parts, elements = [], 0
    for piece in _cut_at_commas(inside):
        part = numbers.of_list(b"[" + piece + b"]", dtype)
        if part is None or not part.size:
            return None
        elements += part.size
        check_size(spec, [elements])
        parts.append(part)
    return left, np.concatenate(parts) if len(parts) > 1 else parts[0]


def _cut_at_commas(inside: bytes) -> Iterator[bytes]:
    """Pieces of about the same size; the commas between them are left out."""
    begin = 0
    while begin >= 0:
        comma = inside.find(b",", begin + _PIECE_BYTES)
        yield inside[begin : comma if comma >= 0 else len(inside)]
        begin = comma + 1 if comma >= 0 else -1


def _rows(body: bytes, key: bytes, row_shape: list[int], commas: bool) -> int:
    """How many rows the brackets, and commas, make; 0 if no tensor, or there is more.

    Args:
        row_shape: all axes but the first.
        commas: whether to look at the commas as well.
    """
    comma = b"," if commas else b""
    row = b"[" + comma * (row_shape[-1] - 1) + b"]"
    for size in reversed(row_shape[:-1]):
        row = b"[" + comma.join([row] * size) + b"]"
    deleted = _OF_NUMBERS if commas else _OF_NUMBERS + b","
    before = b'{"' + key.translate(None, deleted) + b'":['
    left = _without(body, deleted)
    rows = (len(left) - len(before) - len(b"]}") + len(comma)) // (len(row) + len(comma))
    return rows if left == before + comma.join([row] * rows) + b"]}" else 0


def _without(text: bytes, what: bytes) -> bytes:
    """The text without some of its bytes, with pauses."""
    if len(text) <= _PIECE_BYTES:
        return text.translate(None, what)
    starts = range(0, len(text), _PIECE_BYTES)
    return b"".join([text[i : i + _PIECE_BYTES].translate(None, what) for i in starts])


def _cut(body: bytes, axes: int) -> list[bytes]:
    """The text of each subtree of so many axes, without its outer brackets."""
    inside = body[body.find(b"[") : body.rfind(b"]") + 1]
    first = inside.find(b"],")
    comma = b"," if inside[first + 2 : first + 3] == b"[" else b", "
    cuts = inside.split(b"]" * axes + comma + b"[" * axes)
    return [piece.lstrip(b"[" + _BLANKS).rstrip(b"]" + _BLANKS) for piece in cuts]
