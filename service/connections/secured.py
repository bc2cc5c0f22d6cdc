"""TLS below a connection: to the `Connection` a transport like any other.

    the handshake     is a part of the first head: --header-timeout-ms holds for both, and the
                      connection counts from its first packet on
    what is written   is encrypted in pieces, as the socket takes them: the rest stays as it is
    what is not read  is known to the byte, so that the budget of all answers holds
    one half closed   is an alert (close_notify) and the end of the stream, in both directions: an
                      early refusal arrives, and who has closed his half is answered

uvicorn's own TLS, that of asyncio, has none of the last three, and counts nothing before the
handshake has ended. Source: RFC 8446, 6.1; Python's ssl.SSLObject on memory BIOs.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from service.connections.connection import Connection
from service.connections.encrypting import Encrypting
from service.errors import MalformedHttp
from service.tls.certificates import Certificates

logger = logging.getLogger("foldserve.tls")

# What one record holds at most, so what one read gives.
_RECORD_BYTES = 16 * 1024
# Handed on at a time, so that other connections have their turn.
_MOST_BYTES = 256 * 1024


class Secured(Encrypting, asyncio.Protocol):
    """The protocol of a socket, and the transport of the connection above it.

    `secured_class` sets `above` and `certificates`.

    Args:
        config, server_state, app_state: of uvicorn, for the connection.
    """

    above: type[Connection]
    certificates: Certificates

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any] | None = None,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        loop = _loop or asyncio.get_running_loop()
        self._connection = self.above(config, server_state, app_state, loop)
        super().__init__(self._connection, loop)
        self._deaf = False  # no handshake will come: what still does is dropped
        self._pumping = False
        self._seen_end = False  # behind what has been read there is nothing any more
        self._ended = False  # and the connection was told so

    # --- the protocol of the socket -------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self._connection.scheme = "https"
        self._connection.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._connection.drop(len(data))
            return
        self._incoming.write(data)
        if self._ready or self._shake():
            self._pump()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        if self._ready:
            self._pump()
        else:
            self.close()
        return not self.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._said_end = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._protocol.connection_lost(exc)
        # The connection refers to its transport: only the collector would free the two.
        self._tls = None
        del self._connection, self._above, self._protocol

    # --- reading --------------------------------------------------------------------------

    def _shake(self) -> bool:
        """Go on with the handshake; whether it is done."""
        connection = self._connection
        if self._tls is None:
            context = self.certificates.now.context
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            # From its first byte on it may take as long as a head.
            connection.since, connection.began = time.monotonic(), True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._give_up(error)
            return False
        self._flush()
        self._ready = True
        connection.since, connection.began = time.monotonic(), False
        return True

    def _give_up(self, error: ssl.SSLError) -> None:
        """A handshake that fails: the alert says why, and who speaks plain HTTP is told so."""
        connection, self._deaf = self._connection, True
        self._flush()
        if error.reason == "HTTP_REQUEST":
            self._plain = True
            connection.refuse(
                MalformedHttp(
                    "This port speaks HTTPS.", hint="Use an address that begins with https://."
                )
            )
            return
        logger.debug("a TLS handshake failed: %s", error.reason or error)
        connection.limits.refused("tls_handshake")
        connection.end()

    def _pump(self) -> None:
        """Decrypt and hand on what has come, as long as somebody takes it."""
        tls, incoming = self._tls, self._incoming
        if self._pumping or tls is None:
            return
        self._pumping = True
        taken = 0
        try:
            while not self._paused and not self._ended and not self._socket.is_closing():
                if taken >= _MOST_BYTES:
                    self._loop.call_soon(self._pump)
                    break
                taken += self._hand_on(tls)
                if not (incoming.pending or incoming.eof or self._seen_end or tls.pending()):
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            logger.debug("a TLS connection broke: %s", error.reason or error)
            self._socket.abort()
        finally:
            self._pumping = False
        self._flush()

    def _hand_on(self, tls: ssl.SSLObject) -> int:
        """One portion of what has come; its bytes."""
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            size = self._read_into(tls, protocol.get_buffer(-1))
            if size:
                protocol.buffer_updated(size)
        else:
            parts = self._read(tls)
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            size = len(data)
            if size:
                protocol.data_received(data)
        if not size:  # the end
            self._ended = True
            if not protocol.eof_received():
                self.close()
        return size

    def _read(self, tls: ssl.SSLObject) -> list[bytes]:
        """The records that are there, up to a bound.

        Raises:
            ssl.SSLWantReadError: there are none.
        """
        parts: list[bytes] = []
        size = 0
        while size < _MOST_BYTES:
            try:
                part = tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                if not parts:
                    raise
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                part = b""
            if not part:
                self._seen_end = True
                break
            parts.append(part)
            size += len(part)
            if not (self._incoming.pending or tls.pending()):
                break
        return parts

    @staticmethod
    def _read_into(tls: ssl.SSLObject, place: Any) -> int:
        try:
            return int(tls.read(len(place), place))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0


def secured_class(above: type[Connection], certificates: Certificates) -> type[Secured]:
    """The protocol class for uvicorn: `above` with TLS below it."""
    return type("SecuredConnection", (Secured,), {"above": above, "certificates": certificates})
