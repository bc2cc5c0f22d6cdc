"""Requests that would rather be answered in another protocol.

Java's client and `curl --http2` ask every server without TLS for HTTP/2 (`Upgrade: h2c`), along
with a request that is complete as it stands. A server may ignore that (RFC 9110, 7.8), and this
one does. Its parser does not: it takes all that follows such a head for the other protocol. So the
head is read once more, without the header, and the body behind it as that of any other request.
"""

from __future__ import annotations

from collections.abc import Iterable


def without(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The head of a request without `Upgrade`, for a new parser.

    Args:
        method, url, version: of the request line, as the parser gives them.
        headers: names in lower case.
    """
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
