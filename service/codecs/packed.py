"""Nested lists of numbers to an array by `struct`, at a third of numpy's time.

numpy looks at every element twice: for the shape and dtype that the lists have, and to convert
it. Here both are known. One call packs the innermost lists of a row, and refuses a number of the
wrong kind, outside the range of the dtype, or a list of another length; so what comes out needs
no more looking at, provided that the lists hold nothing but numbers (`struct` takes True for 1).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

_CODES = {
    "float32": "f", "float64": "d",
    "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip
_LONGEST = 4096


def array(value: Any, dtype: np.dtype, row_shape: Sequence[int]) -> np.ndarray | None:
    """The tensor of shape (len(value), *row_shape), not writable; None whenever in doubt.

    Args:
        value: nested lists that hold numbers alone.
        row_shape: sizes of all axes but the first, each at least 1, at least one.
    """
    code = _CODES.get(dtype.name)
    if code is None or not row_shape or row_shape[-1] > _LONGEST or not isinstance(value, list):
        return None
    lists = value
    try:
        for size in row_shape[:-1]:
            for each in lists:
                if len(each) != size:
                    return None
            lists = list(chain.from_iterable(lists))
        pack = _packer(row_shape[-1], code)
        content = b"".join([pack(*each) for each in lists])
    except (TypeError, struct.error, OverflowError):
        return None
    return np.frombuffer(content, dtype).reshape((len(value), *row_shape))


@functools.lru_cache(maxsize=256)
def _packer(count: int, code: str) -> Any:
    return struct.Struct(f"={count}{code}").pack
