"""`.npy`, numpy's own file format, as a request and as an answer.

    93 'NUMPY'  major  minor  length  {'descr': '<f4', 'fortran_order': False, 'shape': (4,), }

The header is a Python literal. It is matched against the one form that it has, and never
evaluated; the elements are looked at where they lie in the body. Fortran order and big-endian
files are turned round by a copy.

Source: numpy.lib.format.
"""

from __future__ import annotations

import io
import math
import re
import struct

import numpy as np
from numpy.lib import format as npy

from service.codecs import raw
from service.errors import InvalidBody, WrongType
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, STRING, check_size

_MAGIC = b"\x93NUMPY"
# Major version -> the format of the header's length, which follows the two version bytes.
_LENGTHS = {1: "<H", 2: "<I", 3: "<I"}
_LONGEST_HEADER = 4096
_DESCR = re.compile(rb"'descr' *: *'([<>|=]?[a-zA-Z][0-9]{0,3})' *[,}]")
_ORDER = re.compile(rb"'fortran_order' *: *(True|False) *[,}]")
_SHAPE = re.compile(rb"'shape' *: *\(([0-9, ]*)\) *[,}]")
_SIZES = re.compile(rb" *([0-9]{1,18} *, *)*([0-9]{1,18})? *")


def decode(body: bytes | memoryview, spec: TensorSpec) -> np.ndarray:
    """The array of a .npy file, of the dtype of `spec` and of any shape.

    Raises:
        InvalidBody: not a .npy file, cut off, or with bytes behind its end.
        WrongType: another dtype, objects among them; or the input takes strings.
    """
    if spec.dtype == STRING:
        raise WrongType(
            f"Input {spec.name!r} takes strings, which a .npy file holds as Python objects only.",
            hint="Send JSON, or BYTES by the Open Inference Protocol at /v2.",
        )
    dtype, fortran, shape, offset = _header(body)
    wanted = NUMPY_DTYPES[spec.dtype]
    if dtype.newbyteorder("=") != wanted:
        shown = "objects" if dtype.hasobject else str(dtype)[:32]
        raise WrongType(
            f"The .npy file holds {shown}, input {spec.name!r} is {spec.dtype}.",
            hint=f"Convert the array first: array.astype(numpy.{wanted.name}).",
        )
    count = math.prod(shape)
    if offset + count * dtype.itemsize != len(body):
        raise InvalidBody(
            f"The .npy file has {len(body) - offset} bytes behind its header, "
            f"{count * dtype.itemsize} belong there."
        )
    check_size(spec, shape)
    flat = np.frombuffer(body, dtype, count, offset) if count else np.empty(0, dtype)
    if wanted.kind == "b" and count and flat.view(np.uint8).max() > 1:
        raise InvalidBody("The .npy file has bytes other than 0 and 1 for bool.")
    if not flat.flags.aligned or not dtype.isnative:
        flat = flat.astype(wanted)
    if not fortran:
        return raw.reshaped(flat, spec, shape)
    turned = raw.reshaped(flat, spec, shape[::-1]).T
    return turned.copy()  # in C order


def _header(body: bytes | memoryview) -> tuple[np.dtype, bool, list[int], int]:
    """Dtype, whether in Fortran order, shape, and where the elements begin."""
    length_format = _LENGTHS.get(body[6] if len(body) > 6 else 0)
    if body[:6] != _MAGIC or length_format is None:
        raise _no_file()
    start = 8 + struct.calcsize(length_format)
    try:
        (length,) = struct.unpack_from(length_format, body, 8)
    except struct.error:
        raise _no_file() from None
    header = bytes(body[start : start + min(length, _LONGEST_HEADER)])
    descr, order, sizes = (pattern.search(header) for pattern in (_DESCR, _ORDER, _SHAPE))
    if not descr or not order or not sizes or not _SIZES.fullmatch(sizes[1]):
        raise _no_file()
    try:
        dtype = np.dtype(descr[1].decode())
    except TypeError:
        raise _no_file() from None
    shape = [int(size) for size in sizes[1].split(b",") if size.strip()]
    return dtype, order[1] == b"True", shape, start + length


def _no_file() -> InvalidBody:
    return InvalidBody(
        "The body is not a .npy file of one plain array.",
        hint="Write it with numpy.save(file, array).",
    )


def encode(array: np.ndarray) -> bytes:
    """The array as a .npy file, as numpy.save writes it."""
    stream = io.BytesIO()
    npy.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()
