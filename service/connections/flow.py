"""What a transport says besides bytes: that it is full, that one half is closed.

the client does not read      nothing more is read of it until it does
the application does not      the same, for the rest of a body
a half that is closed         what was asked for is answered, if somebody still waits for it
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

from service.connections.asgi import CONTINUE, Request
from service.connections.lifetime import Lifetime

if TYPE_CHECKING:
    from service.connections.prediction import Prediction

# What takes longer than this may be given up, if nobody waits for it any more.
_PROBE_S = 0.1


class Flow(Lifetime):
    """A connection that can be stopped in both directions.

    `request`: what is under way. `behind`: what has come and is not looked at yet.
    """

    request: Request | Prediction | None = None
    behind = b""
    paused = False  # nothing is read
    write_paused = False
    half_closed = False  # the client sends no more
    _drain: asyncio.Future[None] | None = None

    def __init__(self, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(state)
        self.loop = loop

    def go_on(self) -> None:
        """Look at what is behind, if it is its turn."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """What is under way cannot be answered, or is not complete and never will be."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """The client sends no more: what it has asked for is answered all the same."""
        if self.in_body:
            self.hang_up()
        self.half_closed = True
        if self.answering:
            self.loop.call_later(_PROBE_S, self._probe)
        return self.answering or self.write_paused or bool(self.behind)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.forget_unread()
        self.write_paused = False
        self.wake()
        self.go_on()

    async def drained(self) -> None:
        """Wait until more may be written, or nothing any more."""
        if self._drain is None:
            self._drain = self.loop.create_future()
        await self._drain

    def wake(self) -> None:
        drain, self._drain = self._drain, None
        if drain is not None and not drain.done():
            drain.set_result(None)

    def pause_reading(self) -> None:
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Unless what has come already is not looked at yet."""
        if self.paused and not self.behind and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()

    def _probe(self) -> None:
        """Find out whether anybody still waits for the answer.

        Who has gone has closed one half, too. A client of HTTP/1.1 passes an interim answer over
        (RFC 9110, 15.2); where nobody is left to take it, the connection is reset.
        """
        request = self.request
        if request is not None and not request.started and request.head.version == "1.1":
            self.transport.write(CONTINUE)
            self.loop.call_later(_PROBE_S, self._leave_if_reset)

    def _leave_if_reset(self) -> None:
        """Nothing is read of a connection whose other half is closed: nobody else would notice."""
        connected = self.transport.get_extra_info("socket")
        if connected is None or self.transport.is_closing():
            return
        if connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
