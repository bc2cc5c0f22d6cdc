"""Tensors of strings: what the protocols call BYTES, and onnxruntime and numpy str objects.

    on the wire, binary    for each element, in row-major order: its length in bytes as four
                           little-endian bytes, then the bytes
    on the wire, JSON      a string for each element
    in memory              an array of dtype object that holds str

ONNX defines its strings as UTF-8, so bytes of any other kind are refused.

Source: Triton's extension_binary_data.md; ONNX, onnx.proto, TensorProto.string_data.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from service.errors import InvalidBody, InvalidUtf8, TensorTooLarge, WrongShape
from service.manifest import TensorSpec
from service.signature import check_size, show

_LENGTH = struct.Struct("<I")


def of_binary(data: bytes | memoryview, spec: TensorSpec, shape: Sequence[int]) -> np.ndarray:
    """The tensor of that shape whose elements lie in `data`, each behind its length.

    Raises:
        WrongShape: there are more or fewer elements, or one is cut off.
        InvalidUtf8: an element is not UTF-8.
        TensorTooLarge: more than --max-tensor-bytes.
    """
    count = math.prod(shape)
    check_size(spec, shape)
    if len(data) > spec.max_bytes:
        raise TensorTooLarge(
            f"Input {spec.name!r} takes {len(data)} bytes, {spec.max_bytes} are the most."
        )
    view = memoryview(data)
    parts: list[memoryview] = []
    offset, end = 0, len(view)
    while offset < end and len(parts) <= count:
        begin = offset + _LENGTH.size
        if begin > end:
            break
        offset = begin + _LENGTH.unpack_from(view, offset)[0]
        if offset > end:
            break
        parts.append(view[begin:offset])
    if len(parts) != count or offset != end:
        raise WrongShape(
            f"Input {spec.name!r}: its {end} bytes do not hold the {count} strings of the shape "
            f"{show(shape)}, each behind its length.",
            hint="In front of each string stands its length, four little-endian bytes.",
        )
    return of_parts(parts, spec, shape)


def of_parts(
    parts: Iterable[bytes | memoryview], spec: TensorSpec, shape: Sequence[int]
) -> np.ndarray:
    """The tensor with these elements, as many as the shape has. Raises InvalidUtf8."""
    texts = [_text(part, position, spec) for position, part in enumerate(parts)]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def of_whole_body(body: bytes | memoryview, spec: TensorSpec) -> np.ndarray:
    """The body as the one element of an input that may have a single one.

    Raises:
        WrongShape: the input always has more.
        InvalidUtf8: the body is not UTF-8.
    """
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape]
    if math.prod(shape) != 1:
        raise WrongShape(
            f"Input {spec.name!r} of shape {show(spec.shape)} takes more than the one string that "
            "a raw body is.",
            hint="Send JSON, or each string behind its length with a JSON header.",
        )
    return of_parts([body], spec, shape)


def of_base64(value: Any, name: str) -> Any:
    """Nested lists with the text in the place of each {"b64": "..."}.

    Raises:
        InvalidBody: what stands there is not base64.
        InvalidUtf8: what it stands for is not UTF-8.
    """
    if isinstance(value, list):
        return [of_base64(each, name) for each in value]
    if not is_base64(value):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (TypeError, ValueError, binascii.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            raise InvalidUtf8(
                f"A string of input {name!r} is not UTF-8.", hint="Strings here are text in UTF-8."
            ) from None
        raise InvalidBody(f"A 'b64' of input {name!r} is not base64.") from None


def is_base64(value: object) -> bool:
    """Whether a parsed value is an object with `b64` alone."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def binary(array: np.ndarray) -> bytes:
    """The elements of an array of str in row-major order, each behind its length."""
    return with_lengths([text.encode() for text in array.reshape(-1).tolist()])


def with_lengths(parts: Iterable[bytes]) -> bytes:
    """Each element behind its length."""
    return b"".join([piece for part in parts for piece in (_LENGTH.pack(len(part)), part)])


def _text(part: bytes | memoryview, position: int, spec: TensorSpec) -> str:
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError:
        raise InvalidUtf8(
            f"Element {position} of input {spec.name!r} is not UTF-8.",
            hint="Strings of an ONNX model are text in UTF-8; encode other bytes as base64 if the "
            "model reads that.",
        ) from None
