"""Bodies with a Content-Encoding, inflated step by step and never beyond a limit.

Source: RFC 9110, section 8.4.1 (`deflate` is the zlib format, `gzip` that of RFC 1952).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from service.errors import BodyTooLarge, InvalidBody

# zlib's number for the format of each coding.
_FORMATS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
KNOWN = frozenset(_FORMATS)
_STEP_BYTES = 1024 * 1024


def inflate(body: bytes | memoryview, coding: bytes, max_bytes: int) -> Iterator[bytes]:
    """The content of a body in steps of some milliseconds, of a mebibyte at most each.

    Args:
        body: compressed, one stream.
        max_bytes: of all steps together.

    Raises:
        BodyTooLarge: it holds more than `max_bytes`; no more than a step beyond is inflated.
        InvalidBody: it is no whole stream of that format, or something follows it.
    """
    stream = zlib.decompressobj(_FORMATS[coding])
    left, size = bytes(body), 0
    name = coding.decode()
    while not stream.eof:
        try:
            piece = stream.decompress(left, _STEP_BYTES)
        except zlib.error:
            raise InvalidBody(f"The body is not {name}, as its Content-Encoding says.") from None
        left = stream.unconsumed_tail
        size += len(piece)
        if size > max_bytes:
            raise BodyTooLarge(f"The body is larger than {max_bytes} bytes once it is inflated.")
        if piece:
            yield piece
        elif not left and not stream.eof:
            raise InvalidBody(f"The body ends in the middle of its {name} stream.")
    if stream.unused_data:
        raise InvalidBody(f"Something follows the {name} stream of the body.")
