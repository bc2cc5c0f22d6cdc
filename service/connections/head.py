"""The head of a request: read by httptools, and refused where two readers could differ on it.

    more than --max-header-bytes, or than 100 lines       431
    no HTTP/1.0 or HTTP/1.1, a folded line, a bare line end, CONNECT       400
    HTTP/1.1 without Host, more than one Host       400 (RFC 9112, 3.2)
    Transfer-Encoding in HTTP/1.0, or beside Content-Length       400 (RFC 9112, 6.1 and 6.3)

An `Upgrade` is not taken up, as a server may (RFC 9110, 7.8): the request is one like any other.
Java's client and `curl --http2` ask every server without TLS for HTTP/2 that way.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

import httptools

from service.errors import HeadersTooLarge, MalformedHttp

END = b"\r\n\r\n"
MOST_HEADERS = 100
_VERSIONS = frozenset({"1.0", "1.1"})


class Head(NamedTuple):
    """`length`: of the body in bytes, None for one in chunks. `headers`: names in small letters.

    `first`: of each name the first value. `keep_alive`: False if the answer is the last one.
    `expects`: the client waits for `100 Continue` before it sends the body.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    first: dict[bytes, bytes]
    length: int | None
    keep_alive: bool
    expects: bool


class _Lines:
    """What the parser tells."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) <= MOST_HEADERS:  # of more, one too many says enough
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


class HeadParser:
    """Reads one head, at once or as it comes.

    Args:
        limit: bytes that it may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0  # of what has come
        self._seam = b""  # what came last: the end may be in two pieces
        self._lines = _Lines()
        self._parser = httptools.HttpRequestParser(self._lines)

    def feed(self, data: bytes) -> int:
        """Read the next piece; where in `data` the head ends, -1 if it does not.

        Raises:
            HeadersTooLarge: it has more bytes or lines than it may.
            MalformedHttp: it is no head, or ends elsewhere.
        """
        end = (self._seam + data).find(END)
        if end >= 0:
            end += len(END) - len(self._seam)
        piece = data if end < 0 else data[:end]
        self.size += len(piece)
        if self.size > self._limit:
            raise HeadersTooLarge(f"The headers exceed {self._limit} bytes.")
        self._seam = (self._seam + piece)[1 - len(END) :]
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            raise _malformed() from None
        if self._lines.complete != (end >= 0):
            raise _malformed()
        if len(self._lines.headers) > MOST_HEADERS:
            raise HeadersTooLarge(f"The headers exceed {MOST_HEADERS} lines.")
        return end

    def head(self) -> Head:
        """What the head says.

        Raises:
            MalformedHttp: it contradicts itself.
        """
        headers, version = self._lines.headers, self._parser.get_http_version()
        method = self._parser.get_method().decode("ascii")
        if version not in _VERSIONS or method == "CONNECT":
            raise _malformed()
        first = dict(reversed(headers))
        hosts = sum([name == b"host" for name, _ in headers])
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise MalformedHttp("A request of HTTP/1.1 has one header Host.")
        chunked = b"transfer-encoding" in first
        if chunked and version == "1.0":
            raise MalformedHttp("HTTP/1.0 has no Transfer-Encoding.")
        try:
            url = httptools.parse_url(self._lines.url)
        except httptools.HttpParserInvalidURLError:
            raise _malformed() from None
        raw_path: bytes = url.path or b"/"
        path = raw_path.decode("ascii")
        options = b",".join([value for name, value in headers if name == b"connection"]).lower()
        closes = b"close" in [option.strip() for option in options.split(b",")]
        return Head(
            method=method,
            path=unquote(path) if "%" in path else path,
            raw_path=raw_path,
            query=url.query or b"",
            version=version,
            headers=headers,
            first=first,
            length=None if chunked else int(first.get(b"content-length", 0)),
            keep_alive=version == "1.1" and not closes,
            expects=version == "1.1" and first.get(b"expect", b"").lower() == b"100-continue",
        )


def read(data: bytes, limit: int) -> Head:
    """What a whole head says; raises as `HeadParser` does."""
    parser = HeadParser(limit)
    parser.feed(data)
    return parser.head()


def _malformed() -> MalformedHttp:
    return MalformedHttp("The bytes received are not HTTP/1.1.")
