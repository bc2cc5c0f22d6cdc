"""Connections beyond --max-connections: health is answered on them, and nothing else.

Those that wait with nothing to say make room for new ones, the oldest first, so that health is
always answered.
"""

from __future__ import annotations

import orjson
from starlette.types import Receive, Scope, Send

from service import http
from service.connections.lifetime import Lifetime
from service.errors import TooManyConnections

# So many may say what they want. Of more the oldest are closed, first of all those that had time
# to say it, and in the end any.
_RESERVE = 64
_MOST_RESERVE = 128
_TIME_TO_SAY_S = 1.0
_RETRY_S = 1


class Crowd:
    """Those connections, oldest first, and since when they are there."""

    def __init__(self) -> None:
        self._since: dict[Lifetime, float] = {}

    def enter(self, connection: Lifetime, now: float) -> None:
        """One more; `now` is of time.monotonic()."""
        self._since[connection] = now
        if len(self._since) > _RESERVE:
            self._make_room(now)

    def leave(self, connection: Lifetime) -> None:
        self._since.pop(connection, None)

    def _make_room(self, now: float) -> None:
        """Close those that have waited longest, if that is long."""
        crowded = len(self._since) > _MOST_RESERVE
        for other, since in list(self._since.items()):
            if len(self._since) <= _RESERVE or not (crowded or now - since > _TIME_TO_SAY_S):
                return
            if not other.answering:
                error = _too_many()
                other.limits.refused(error.code)
                other.write(error.status, orjson.dumps(error.body()), [], close=True)
                other.transport.close()
                del self._since[other]
                crowded = False


async def answer_too_many(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: what a request on such a connection is told."""
    await http.respond_error(scope, send, receive, _too_many())


def _too_many() -> TooManyConnections:
    return TooManyConnections("The server has too many connections.", retry_after_s=_RETRY_S)
