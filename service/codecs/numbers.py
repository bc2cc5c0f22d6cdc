"""The numbers of nested JSON lists, in a row, without a Python object for each.

simdjson parses as strictly as the parser of everything else here, and rounds as exactly; its
buffer is filled in one go, where lists of Python numbers take three times as long to make and
to convert. It flattens lists of any nesting, so what they look like is the caller's to know,
but for their lengths: these it knows without counting.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
from simdjson import Array, Object, Parser

Code = Literal["d", "i", "u"]
_CODES: dict[str, Code] = {"f": "d", "i": "i", "u": "u"}
_WIDE = {"d": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.uint64)}
# Squares of numbers that are less than the largest of a dtype.
_FITS = {
    np.dtype(np.float16): 4.29e9,
    np.dtype(np.float32): 1.15e77,
    np.dtype(np.float64): math.inf,
}
# A parser's memory, some ten times the text, costs more to get than a small text to parse.
_KEPT_BYTES = 64 * 1024
_kept = threading.local()
# What simdjson raises for a text or an element that is not as expected.
_REFUSED = (ValueError, TypeError, LookupError, RuntimeError)


def of_list(text: bytes, dtype: np.dtype, lengths: Sequence[int] = ()) -> np.ndarray | None:
    """As `of_member`, of a document that is a list."""
    try:
        return _flat(_parser(text).parse(text), dtype, lengths)
    except _REFUSED:
        return None


def of_member(
    text: bytes, key: str, dtype: np.dtype, lengths: Sequence[int] = ()
) -> np.ndarray | None:
    """All numbers of the lists under `key` of an object, in the order of the text.

    Args:
        key: of the object; the first, if it occurs twice.
        dtype: floats, or integers of either kind.
        lengths: that the lists of each level must have, from the outermost on; none: any. The
            innermost must not hold further lists: they would be flattened.

    Returns:
        One axis; None if the text is no such document, holds anything but lists and numbers
        of that kind there, or a number that the dtype cannot hold.
    """
    try:
        document = _parser(text).parse(text)
        return _flat(document[key], dtype, lengths) if isinstance(document, Object) else None
    except _REFUSED:
        return None


def of_rows(text: bytes, key: str, dtype: np.dtype, length: int) -> np.ndarray | None:
    """The tensor of two axes of `{"<key>": [[...], ...]}`, or None if the text is not just that.

    That no list holds more than numbers is told by the count of the opening brackets: there is
    one for the outer list and one for each row, and none of them is in a text, for one member
    has no room for another key, and a text among the numbers is refused.

    Args:
        key, dtype: as for `of_member`.
        length: of each row.
    """
    try:
        document = _parser(text).parse(text)
        if not isinstance(document, Object) or len(document) != 1:
            return None
        found = document[key]
        if not isinstance(found, Array):
            return None
        rows = len(found)
        at = -1
        for _ in range(rows + 1):  # faster than `count`
            at = text.find(b"[", at + 1)
        if not rows or at < 0 or text.find(b"[", at + 1) >= 0:
            return None
        for row in found:
            if not isinstance(row, Array) or len(row) != length:
                return None
        array = _flat(found, dtype, ())
    except _REFUSED:
        return None
    return None if array is None else array.reshape(rows, length)


def _parser(text: bytes) -> Parser:
    """One for each thread, which all small texts share, or a new one."""
    if len(text) > _KEPT_BYTES:
        return Parser()
    try:
        parser: Parser = _kept.parser
    except AttributeError:
        parser = _kept.parser = Parser()
    return parser


def _flat(found: object, dtype: np.dtype, lengths: Sequence[int]) -> np.ndarray | None:
    code = _CODES.get(dtype.kind)
    if code is None or not isinstance(found, Array):
        return None
    if lengths:
        _compare(found, lengths)
    wide = np.frombuffer(found.as_buffer(of_type=code), _WIDE[code])
    if code != "d":
        array = wide.astype(dtype)
        return array if np.array_equal(array, wide) else None
    # No number is larger than the root of the sum of all squares: where that fits, each does.
    # Unlike `dot`, this one does not warn of a sum that is infinite.
    if np.vdot(wide, wide) < _FITS[dtype]:
        return wide.astype(dtype)
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    return array if np.isfinite(array).all() else None


def _compare(found: object, lengths: Sequence[int]) -> None:
    """Raises ValueError for lists that are none, or have not the lengths of their level."""
    if not isinstance(found, Array) or len(found) != lengths[0]:
        raise ValueError
    if len(lengths) > 1:
        for each in found:
            _compare(each, lengths[1:])
