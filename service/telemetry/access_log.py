"""A line for requests that were answered; off unless --access-log-every-requests asks for it.

The event loop only appends to a bounded list; a thread of its own formats and writes, a few
times a second. When requests come faster than lines can be written, lines are dropped and
counted, and no request waits for the log.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import NamedTuple

from starlette.types import Scope

from service import faults
from service.connections.auth import Access, credentials
from service.exchange import Exchange
from service.telemetry.logs import FIELDS

logger = logging.getLogger("foldserve.access")

_CAPACITY_LINES = 10_000
_PAUSE_S = 0.2
_FAULT_OF_THE_SERVER = 500


class _Line(NamedTuple):
    """What is kept of a request until its line is written: little, as many may wait."""

    exchange: Exchange
    method: str
    client: str
    key: str  # what the key is called


class AccessLog:
    """An observer of the gate.

    Args:
        every: one line for so many requests; answers of 500 and above always have theirs.
        access: says how the key of a request is called; the key itself is written nowhere.
    """

    def __init__(self, every: int, access: Access | None = None) -> None:
        self._every = every
        self._access = access or Access()
        self._count = 0
        self._dropped = 0
        self._lines: deque[_Line] = deque()
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._writer.start()

    def __call__(self, exchange: Exchange, scope: Scope) -> None:
        self._count += 1
        if self._count % self._every and exchange.status < _FAULT_OF_THE_SERVER:
            return
        if len(self._lines) >= _CAPACITY_LINES:
            self._dropped += 1
            return
        client = scope.get("client")
        key = self._access.name(credentials(scope.get("headers") or ()))
        self._lines.append(_Line(exchange, scope["method"][:16], client[0] if client else "", key))

    def close(self) -> None:
        """Write what is left."""
        self._stop.set()
        self._writer.join()

    def _write(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_PAUSE_S)
            with faults.contained(logger, "a line of the access log could not be written"):
                self._flush()

    def _flush(self) -> None:
        while self._lines:
            fields = _fields(*self._lines.popleft())
            text = " ".join(f"{key}={value}" for key, value in fields.items())
            logger.info("%s", text, extra={FIELDS: fields})
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            logger.warning("%d requests have no line here: they came too fast", dropped)


def _fields(exchange: Exchange, method: str, client: str, key: str) -> dict[str, str | int | float]:
    """What the line says of a request: nothing that holds text of the client's choice."""
    fields: dict[str, str | int | float] = {"request_id": exchange.request_id}
    if client:
        fields["client"] = client
    if key:
        fields["key"] = key
    fields |= {
        "method": method,
        "route": exchange.route,
        "status": exchange.status,
        "duration_ms": round((exchange.finished - exchange.started) * 1000, 3),
        "body_bytes": exchange.body_bytes,
    }
    if exchange.model:
        fields |= {"model": exchange.model, "version": exchange.version, "rows": exchange.rows}
    if exchange.error:
        fields["error"] = exchange.error
    if exchange.computed:
        fields["queue_ms"] = round((exchange.ran - exchange.decoded) * 1000, 3)
        fields["compute_ms"] = round((exchange.computed - exchange.ran) * 1000, 3)
        fields["batch_rows"] = exchange.rows_in_batch
    return fields
