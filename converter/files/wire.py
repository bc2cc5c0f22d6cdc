"""The outermost layer of a protobuf file: whether it is an ONNX ModelProto, and complete.

Only field headers are read and payloads are skipped, so a file of many gigabytes costs a few
reads. Source: https://protobuf.dev/programming-guides/encoding and `onnx.proto`, ModelProto.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import BinaryIO

VARINT, LENGTH = 0, 2  # protobuf's wire types; ModelProto has no other

# ModelProto: field number -> wire type.
MODEL_FIELDS = {
    1: VARINT,  # ir_version
    2: LENGTH,  # producer_name
    3: LENGTH,  # producer_version
    4: LENGTH,  # domain
    5: VARINT,  # model_version
    6: LENGTH,  # doc_string
    7: LENGTH,  # graph
    8: LENGTH,  # opset_import
    14: LENGTH,  # metadata_props
    20: LENGTH,  # training_info
    25: LENGTH,  # functions
    26: LENGTH,  # configuration
}
IR_VERSION, GRAPH, OPSET_IMPORT = 1, 7, 8  # required; the last one since IR version 3


class Verdict(enum.Enum):
    WHOLE = "an ONNX model"
    CUT = "the beginning of an ONNX model"
    NO = "something else"


def is_onnx(path: Path) -> Verdict:
    """Walk over the top-level fields of the file."""
    size = path.stat().st_size
    seen: set[int] = set()
    with path.open("rb") as file:
        while (start := file.tell()) < size:
            tag = read_varint(file)
            if tag is None:
                break
            field, wire_type = tag >> 3, tag & 7
            if MODEL_FIELDS.get(field) != wire_type:
                return Verdict.NO
            value = read_varint(file)
            if value is None:
                break
            seen.add(field)
            if wire_type == LENGTH:
                file.seek(value, 1)
        else:
            if start == size and seen >= {GRAPH, OPSET_IMPORT}:
                return Verdict.WHOLE
    # An ir_version alone is two bytes, which random data may easily have: require more.
    return Verdict.CUT if IR_VERSION in seen and len(seen) > 1 else Verdict.NO


def read_varint(file: BinaryIO) -> int | None:
    """The next base-128 number; None at the end of the file or when it exceeds 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def tag(field: int) -> bytes:
    """The bytes before the length of field number `field`."""
    return varint(field << 3 | LENGTH)


def varint(number: int) -> bytes:
    """A number in base 128, the lowest digits first (a varint)."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
