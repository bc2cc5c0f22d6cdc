"""A large body, read from the socket straight into the place where it stays.

The usual way of a body is a copy out of the event loop's buffer, one out of that by the parser,
one behind what has come before, and one of it all: of a picture of 600 KB these take longer than
everything else that is done with it. A body of known length can do without a parser: from the
moment its route asks for it, the system writes what comes behind what is there, and the protocol
of the connection has its transport back with the last byte.

    Connection.take_body -> Intake in the place of the protocol -> Connection.body_complete

No byte beyond the body is read meanwhile, so what follows on the connection is not touched.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import numpy as np

_SCRATCH_BYTES = 64 * 1024


class Owner(Protocol):
    """A connection."""

    def body_complete(self) -> None:
        """The last byte has come; the transport wants its protocol back."""

    def still_coming(self) -> None:
        """A part of a body that nobody wants any more has come."""

    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Intake(asyncio.BufferedProtocol):
    """The protocol until then; `body` is the place, `complete` whether all of it has come.

    Args:
        owner: whose body it is.
        size: of the body, in bytes.
        begun: what has come of it, less than `size`.
        front: bytes of the body before those that ought to be aligned, as a tensor's.
    """

    def __init__(self, owner: Owner, size: int, begun: bytes | bytearray, front: int = 0) -> None:
        skipped = -front % 64
        place: Any = np.empty(skipped + size, np.uint8)
        self.body = memoryview(place)[skipped:]
        self.body[: len(begun)] = begun
        self.complete = False
        self._owner = owner
        self._left = size - len(begun)
        self._dropped = False

    def drop(self) -> None:
        """Nobody wants it any more: what still comes is read and forgotten."""
        self._dropped = True
        self.body = memoryview(bytearray(min(_SCRATCH_BYTES, self._left)))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        if self._dropped:
            return self.body[: self._left]
        return self.body[len(self.body) - self._left :]

    def buffer_updated(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._dropped:
            self._owner.still_coming()
        if not self._left:
            self.complete = True
            self._owner.body_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._owner.eof_received()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
