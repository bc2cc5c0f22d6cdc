"""The listening socket, and the reason, as a sentence, if it cannot be opened."""

from __future__ import annotations

import errno
import socket

_BACKLOG = 2048
# libuv takes one connection from a listening socket in a turn of the event loop; in turns of
# some milliseconds, as under load, many new clients at once would wait for seconds: who asks for
# health waits behind all strangers that have come before.
_ACCEPTED_IN_A_TURN = 32


class CannotStart(Exception):
    """The server cannot start; the text says why and what to do."""


def bind(host: str, port: int, *, shared: bool = False, listening: bool = True) -> socket.socket:
    """A listening socket; listening at once, so that the port is really ours.

    Args:
        host, port: as in the settings; 0 takes a free port.
        shared: other processes of the same user may listen on the port too.
        listening: False to keep the port without taking any connection.

    Raises:
        CannotStart: why not, and what to do.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if listening:
            listener.listen(_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        where = f"port {port} on {host}"
        reasons = {
            errno.EADDRINUSE: f"{where} is in use. Stop the other program, or choose another "
            "port with --port (0 takes a free one).",
            errno.EACCES: f"{where} needs more rights. Choose a --port above 1023.",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine. Use --host 127.0.0.1, "
            "or 0.0.0.0 for all addresses.",
        }
        if isinstance(error, socket.gaierror):
            reason = f"the host {host!r} is unknown. Use --host 127.0.0.1 or 0.0.0.0."
        else:
            reason = reasons.get(error.errno or 0, f"{where}: {error.strerror}.")
        raise CannotStart(f"Cannot listen: {reason}") from None
    return listener


def several(listener: socket.socket) -> list[socket.socket]:
    """The listener and duplicates of it, so that one turn of the loop takes several connections."""
    return [listener, *(listener.dup() for _ in range(_ACCEPTED_IN_A_TURN - 1))]


def reserve(host: str, port: int) -> tuple[int, socket.socket]:
    """A port for several processes to share, and the socket that keeps it until it is closed.

    Raises:
        CannotStart: as `bind`.
    """
    # First without SO_REUSEPORT: with it, the port of another server that uses it would be shared.
    with bind(host, port) as alone:
        port = alone.getsockname()[1]
    return port, bind(host, port, shared=True, listening=False)
