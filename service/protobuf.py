"""Messages of protobuf, walked over without making objects of them.

    message  := (key value)*        key = number of the field << 3 | wire type, a varint
    wire type 0: a varint, 1: eight bytes, 2: a length and so many bytes, 5: four bytes

Source: Protocol Buffers, Encoding, "Message Structure".
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Buffer = bytes | memoryview | mmap.mmap

_VARINT, _BYTES = 0, 2
_SIZES = {1: 8, 5: 4}
_LONGEST_VARINT_BITS = 70


class Malformed(ValueError):
    """The bytes are no message."""


class Field(NamedTuple):
    """`begin`, `end`: where the content of a field of bytes lies, in others both are its end."""

    number: int
    is_bytes: bool
    begin: int
    end: int


def fields(content: Buffer, at: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies there, one after the other; messages in it are bytes.

    Raises:
        Malformed: as soon as it shows.
    """
    while at < end:
        key, at = _varint(content, at, end)
        number, wire = key >> 3, key & 7
        begin = None
        if wire == _VARINT:
            _, at = _varint(content, at, end)
        elif wire == _BYTES:
            length, begin = _varint(content, at, end)
            at = begin + length
        elif wire in _SIZES:
            at += _SIZES[wire]
        else:
            raise Malformed
        if not number or at > end:
            raise Malformed
        yield Field(number, begin is not None, at if begin is None else begin, at)


def _varint(content: Buffer, at: int, end: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = shift = 0
    while at < end and shift < _LONGEST_VARINT_BITS:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Malformed
