"""The parts of a multipart/form-data body that is already in memory.

    --boundary CRLF headers CRLF CRLF content CRLF --boundary ... --boundary--

Source: RFC 7578 and RFC 2046, section 5.1.1.
"""

from __future__ import annotations

import re

from service.errors import InvalidBody, TooManySamples

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_LONGEST_HEADERS = 4096


def contents(body: bytes, content_type: str, most: int) -> list[bytes]:
    """The content of each part, in order; names and file names are not looked at.

    Args:
        content_type: with the boundary.
        most: parts that are read.

    Raises:
        InvalidBody: no boundary, cut off, or no parts.
        TooManySamples: more parts than `most`.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise InvalidBody("The Content-Type has no boundary.", hint=_HINT)
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
    text = b"\r\n" + body
    count = text.count(delimiter) - 1
    if count > most:
        raise TooManySamples(f"The body has {count} parts, at most {most} are read.")
    _, *pieces = text.split(delimiter)
    if not pieces or pieces.pop()[:2] != b"--":
        raise InvalidBody("The multipart body does not end with its boundary.", hint=_HINT)
    if not pieces:
        raise InvalidBody("The multipart body has no parts.", hint=_HINT)
    return [_content(piece) for piece in pieces]


def _content(piece: bytes) -> bytes:
    # The line of the boundary may end in blanks; a part without headers begins with CRLF CRLF.
    start = piece.find(b"\r\n\r\n", 0, _LONGEST_HEADERS)
    if start < 0 or piece[: piece.find(b"\r\n")].strip():
        raise InvalidBody("A part of the multipart body has no headers.", hint=_HINT)
    return piece[start + 4 :]


_HINT = "For example: curl -F image=@picture.jpg -F image=@other.png URL"
