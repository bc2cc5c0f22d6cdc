"""A body in chunks (RFC 9112, 7.1).

    chunked-body = *(size [extensions] CRLF content CRLF) "0" [extensions] CRLF trailers CRLF

Extensions and trailers are passed over. A line ends with CRLF, and nothing else: proxies that
take other ends for one, too, have been made to see requests where there are none.
"""

from __future__ import annotations

import re

from service.errors import MalformedHttp

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_LONGEST_LINE = 1024
_LONGEST_TRAILERS = 8192


class Chunks:
    """Reads one body as it comes; `complete` once its end has come."""

    def __init__(self) -> None:
        self.complete = False
        self._left = 0  # of a chunk, with the line end behind it
        self._line = b""  # the begin of one
        self._in_trailers = False
        self._trailers = 0  # bytes of them

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Content in `data`, and what is behind the end of the body.

        Raises:
            MalformedHttp: that is no body in chunks.
        """
        content: list[bytes] = []
        at = 0
        while at < len(data) and not self.complete:
            if self._left > 2:
                piece = data[at : at + self._left - 2]
                content.append(piece)
                self._left -= len(piece)
                at += len(piece)
                continue
            end = data.find(b"\n", at, at + _LONGEST_LINE)
            line = self._line + (data[at:] if end < 0 else data[at:end])
            # Without its end, a line may have one carriage return: as its last byte.
            if len(line) > _LONGEST_LINE or b"\r" in line[:-1]:
                raise _malformed()
            if end < 0:
                self._line = line
                return content, b""
            self._line = b""
            at = end + 1
            if not line.endswith(b"\r"):
                raise _malformed()
            self._end_of_line(line[:-1])
        return content, data[at:]

    def _end_of_line(self, line: bytes) -> None:
        if self._left:
            if line:
                raise _malformed()
            self._left = 0
        elif self._in_trailers:
            self._trailers += len(line)
            if not line:
                self.complete = True
            elif self._trailers > _LONGEST_TRAILERS or not _TRAILER.fullmatch(line):
                raise _malformed()
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise _malformed()
            count = int(size[1], 16)
            self._left = count + 2 if count else 0
            self._in_trailers = not count


def _malformed() -> MalformedHttp:
    return MalformedHttp("The body is not one of chunks.")
