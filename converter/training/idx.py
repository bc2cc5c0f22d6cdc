"""The IDX format of the MNIST files, read strictly.

    offset  size  big-endian
    0       2     zero
    2       1     type of the values, 8 is unsigned byte, the only one MNIST uses
    3       1     rank, the number of sizes that follow
    4       4     size of axis 0 ... one 32-bit integer an axis
    ...           the values, row by row, and nothing after them

The file may be gzip-compressed. A header can claim any size, so the values are read in pieces:
memory grows with what the file really holds, never with what it claims.

Source: the section "FILE FORMATS FOR THE MNIST DATABASE" of LeCun, Cortes and Burges' page.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import numpy.typing as npt

from converter.errors import UserError

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"
PIECE = 1 << 20
LARGEST = 1 << 30  # bytes of values, 23 times MNIST's training images

Stream = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True)
class Idx:
    """What an IDX file holds.

    Attributes:
        values: uint8, of the shape that the header gives, read-only.
        sha256: of the uncompressed file, so that it does not depend on who compressed it.
    """

    values: npt.NDArray[np.uint8]
    sha256: str


def read(path: Path, rank: int) -> Idx:
    """Read an IDX file of unsigned bytes, compressed or not.

    Args:
        path: the file; its first bytes, not its name, say whether it is compressed.
        rank: the number of axes it must have, 3 for images and 1 for labels.

    Raises:
        UserError: when it cannot be opened, is not what the format above says, is shorter or
            longer than its header claims, or claims more than `LARGEST` bytes.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _parse(unpacked, path, rank)
            return _parse(file, path, rank)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        _refuse(path, f"is a damaged gzip file: {error}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _parse(stream: Stream, path: Path, rank: int) -> Idx:
    header = _exactly(stream, 4 + 4 * rank, path)
    zero, kind, found = struct.unpack(">HBB", header[:4])
    if zero != 0 or kind != UNSIGNED_BYTE or found != rank:
        expected = struct.pack(">HBB", 0, UNSIGNED_BYTE, rank).hex()
        _refuse(path, f"starts with {header[:4].hex()}, not with {expected}")

    shape = struct.unpack(f">{rank}I", header[4:])
    size = math.prod(shape)
    if size > LARGEST:
        _refuse(path, f"claims {size} bytes of values, shape {shape}, more than {LARGEST}")

    values = _exactly(stream, size, path)
    if stream.read(1):
        _refuse(path, f"goes on after the {size} bytes of values of its shape {shape}")
    return Idx(
        values=np.frombuffer(bytes(values), dtype=np.uint8).reshape(shape),
        sha256=hashlib.sha256(header + values).hexdigest(),
    )


def _exactly(stream: Stream, size: int, path: Path) -> bytearray:
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(PIECE, size - len(data)))
        if not piece:
            _refuse(path, f"ends after {len(data)} of the {size} bytes that were due")
        data += piece
    return data


def _refuse(path: Path, why: str) -> NoReturn:
    raise UserError(
        f"{path} {why}", "it is not an IDX file of unsigned bytes, or it is damaged: get it again"
    )
