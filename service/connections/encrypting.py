"""What is written to a connection over TLS: encrypted in pieces, as the socket takes them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from contextlib import suppress
from typing import Any

from service.connections.flow import Flow

logger = logging.getLogger("foldserve.tls")

# Encrypted at a time: what lies behind it stays as it is until the socket has room.
_PIECE_BYTES = 64 * 1024


class Encrypting(asyncio.Transport):
    """The transport of a connection; `Secured` reads and shakes hands.

    Args:
        connection: is told when it must not write.
        loop: the one that runs.
    """

    _socket: asyncio.Transport

    def __init__(self, connection: Flow, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._above = connection
        self._protocol: asyncio.Protocol | asyncio.BufferedProtocol = connection
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ready = False  # the handshake is done
        self._plain = False  # the client does not speak TLS: it is told so
        self._paused = False
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._full = self._told_full = False
        self._closing = self._half_closing = self._said_end = False

    def _pump(self) -> None:
        """Hand on what has come, as long as somebody takes it."""
        raise NotImplementedError

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._socket.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_reading(self) -> bool:
        return not self._paused

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._socket.is_closing():
            self._paused = False
            self._socket.resume_reading()
            self._loop.call_soon(self._pump)

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes + self._socket.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._plain:
            self._socket.write(data)
        elif self._ready and data and not (self._closing or self._half_closing):
            self._waiting.append(memoryview(bytes(data)))
            self._waiting_bytes += len(data)
            self._drain()

    def pause_writing(self) -> None:
        """The socket has no room; told by the event loop."""
        self._full = True
        self._tell_how_full()

    def resume_writing(self) -> None:
        """It has again."""
        self._full = False
        self._drain()

    def _drain(self) -> None:
        """Encrypt as much as the socket takes, and end if it was the last."""
        tls = self._tls
        try:
            while self._waiting and not self._full:
                assert tls is not None
                first = self._waiting[0]
                sent = tls.write(first[:_PIECE_BYTES])
                self._waiting_bytes -= sent
                if sent == len(first):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = first[sent:]
                self._flush()
        except ssl.SSLError as error:
            logger.debug("a TLS connection broke: %s", error.reason or error)
            self._socket.abort()
            return
        self._tell_how_full()
        if not self._waiting and (self._closing or self._half_closing):
            self._say_end()

    def _tell_how_full(self) -> None:
        full = self._full or bool(self._waiting)
        if full != self._told_full:
            self._told_full = full
            if full:
                self._above.pause_writing()
            else:
                self._above.resume_writing()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._socket.is_closing():
            self._socket.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._half_closing = True
        if not self._waiting:
            self._say_end()

    def is_closing(self) -> bool:
        return self._closing or self._socket.is_closing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._waiting:
                self._say_end()

    def abort(self) -> None:
        self._closing = True
        self._socket.abort()

    def _say_end(self) -> None:
        """Everything is written: close our half, or the whole."""
        if not self._said_end:
            self._said_end = True
            if self._ready and self._tls is not None and not self._socket.is_closing():
                with suppress(ssl.SSLError):  # the client has not said its own end yet
                    self._tls.unwrap()
                self._flush()
        if self._closing:
            self._socket.close()
        elif self._socket.can_write_eof():
            self._socket.write_eof()
