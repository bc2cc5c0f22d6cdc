"""The answer of a full queue, ready-made: what a flood of small predictions is told.

Refusing a request must cost a fraction of answering it, or a flood leaves no time for any answer.
Once a request of the quick way was refused because the queue of its model is full, those behind
it are looked at by their headers, before their bodies are joined, decoded or counted:

    alert   5 s from the last refusal on; without one, a request costs one comparison here
    fresh   what the queue said holds for a millisecond, for all that come with the same deadline

The answer is the one of the route, byte for byte, but for the request's own id.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import Scope

from service import http
from service.connections.gate import Gate, request_id
from service.errors import QueueFull, ServiceError
from service.models.registry import Registry

_ALERT_S = 5.0
_FRESH_S = 1e-3


class Full:
    """Of one path: until when to look, and what was answered last."""

    __slots__ = ("alert_until", "answer", "error", "fresh_until", "head", "model", "timeout")

    def __init__(self) -> None:
        self.alert_until = 0.0
        self.fresh_until = 0.0
        self.head: object = None
        self.timeout: bytes | None = None
        self.answer = (b"", b"")
        self.error: ServiceError | None = None
        self.model = ""

    def seen(self) -> None:
        """A request has been refused because the queue is full."""
        self.alert_until = time.monotonic() + _ALERT_S


class Refusals:
    """Asked by connections, on the event loop.

    Args:
        gate: for the keys and the metrics.
        registry: the models.
        longest_ms: the longest time of a request.
    """

    def __init__(self, gate: Gate, registry: Registry, longest_ms: int) -> None:
        self._gate = gate
        self._registry = registry
        self._longest_ms = longest_ms

    def of(
        self,
        full: Full,
        scope: Scope,
        params: dict[str, str | None],
        route: str,
        head: bytes,
        error_body: Callable[[ServiceError], bytes],
    ) -> bytes | None:
        """The whole answer to a request for which there is no room; None lets it in.

        Args:
            full: of the path.
            scope: with `first_headers` and `path`.
            params, route: of the path: name and version, and its template.
            head: status line and headers of all answers of 503, up to the content type.
            error_body: of the protocol.
        """
        now = time.monotonic()
        try:
            self._gate.check_key(scope)
        except ServiceError:
            return None  # the usual way says it
        timeout = scope["first_headers"].get(b"x-timeout-ms")
        if now >= full.fresh_until or timeout != full.timeout or head is not full.head:
            try:
                model = self._registry.find(params.get("name"), params.get("version"))
                model.batcher.check_room(1, http.timeout_s(scope, self._longest_ms))
            except QueueFull as error:
                body = error_body(error)
                lines = [b"%b: %b\r\n" % pair for pair in error.headers()]
                length = b"application/json\r\ncontent-length: %d\r\n" % len(body)
                full.answer = b"".join([head, length, *lines, b"x-request-id: "]), body
                full.error, full.model = error.with_traceback(None), model.name
                full.timeout, full.head = timeout, head
                full.fresh_until, full.alert_until = now + _FRESH_S, now + _ALERT_S
            except ServiceError:
                return None
            else:
                return None
        assert full.error is not None
        self._gate.metrics.refused_early(route, full.model, full.error)
        begin, body = full.answer
        return b"%b%b\r\n\r\n%b" % (begin, request_id(scope).encode(), body)
