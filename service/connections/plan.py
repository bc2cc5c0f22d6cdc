"""What a head always means: worked out once, looked up from then on.

A client in a loop sends the same head each time. What follows from its bytes is kept in a `Plan`:
where the request goes, how its body is read, how long it may take, whether its key is one (as of
the key files' last change), and what it is told while its model has no room:

    alert   5 s from the last refusal of the model's queue on; without one, one comparison
    fresh   what the queue said holds for a millisecond, for all that come with the same head

Only a head that came in one read, from its first byte to its last, and whose request was in
order, is kept; of many the table is bounded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from service import http
from service.connections.gate import Gate, request_id
from service.connections.head import Head
from service.connections.lifetime import status_line
from service.connections.routes import HotRoutes
from service.errors import QueueFull, ServiceError
from service.models.model import ServedModel
from service.protocols.endpoint import Context, Inference

# What arrives in one or two reads, and is decoded in well under a millisecond.
LARGEST_BYTES = 64 * 1024
_MOST_PLANS = 1024
_LONGEST_HEAD = 4096
_UNUSUAL = frozenset({b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"})
# Each request has another one: its head does not come again.
_ONCE = frozenset({b"x-request-id", b"traceparent"})
_ALERT_S = 5.0
_FRESH_S = 1e-3
# Requests that one turn of the event loop lets in before it looks whether there is room for more.
_MANY = 32


@dataclass(frozen=True, slots=True)
class Found:
    """A prediction route; `params` and `template` are those of its path."""

    endpoint: Inference
    params: dict[str, Any]
    template: str


class Plan:
    """See above. Used on the event loop only.

    Args:
        head: what was sent.
        found: its route, if it is a prediction.
        direct: whether it may be answered without a task once its body is there.
        raw: its bytes, if it may be kept.
    """

    __slots__ = (
        "defaults", "direct", "found", "fresh_until", "granted", "head", "raw", "refusal",
        "refused_by",
    )  # fmt: skip

    def __init__(
        self,
        head: Head,
        found: Found | None = None,
        *,
        direct: bool = False,
        raw: bytes | None = None,
    ) -> None:
        self.head = head
        self.raw = raw
        self.found = found
        self.direct = direct
        self.granted = -1  # the generation of the keys by which its key is good
        # The answer of a full queue, in two parts around the request's own id, and from when on
        # it is to be made anew.
        self.fresh_until = 0.0
        self.defaults: object = None
        self.refusal = (b"", b"")
        self.refused_by: tuple[str, ServiceError] | None = None


class Plans:
    """The table.

    Args:
        gate: for the keys and the metrics.
        routes: the hot ones.
        context: of the routes.
        cors: whether answers for other origins have headers that only the usual way adds.
    """

    def __init__(self, gate: Gate, routes: HotRoutes, context: Context, *, cors: bool) -> None:
        self.gate = gate
        self.registry = context.registry
        self.pool = context.pool
        self._routes = routes
        self._longest_ms = context.settings.request_timeout_ms
        self._largest = min(LARGEST_BYTES, context.settings.max_body_bytes)
        self._cors = cors
        self.known: dict[bytes, Plan] = {}
        self._defaults: list[tuple[bytes, bytes]] = []
        self._heads: dict[int, bytes] = {}

    def make(self, head: Head, raw: bytes | None = None) -> Plan:
        """The plan of a head that is not known.

        Args:
            head: what it says.
            raw: its bytes, if they came in one read.
        """
        match = self._routes.find(head.path) if head.method == "POST" else None
        endpoint, params, template = match or (None, {}, "")
        if not isinstance(endpoint, Inference) or (self._cors and b"origin" in head.first):
            return Plan(head)
        direct = (
            head.version == "1.1"
            and head.length is not None
            and head.length <= self._largest
            and b"content-length" in head.first
            and _UNUSUAL.isdisjoint(head.first)
        )
        return Plan(head, Found(endpoint, params, template), direct=direct, raw=raw)

    def keep(self, plan: Plan) -> None:
        """Remember a plan whose request was in order, unless it cannot come again."""
        raw, plan.raw = plan.raw, None
        if raw is None or len(raw) > _LONGEST_HEAD or not _ONCE.isdisjoint(plan.head.first):
            return
        if len(self.known) >= _MOST_PLANS:
            self.known.clear()
        self.known[raw] = plan

    def answer_head(self, status: int, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """The status line and the headers of every answer, up to the content type.

        Args:
            status: of the answer.
            defaults: the headers of every answer; the server makes a new list once a second, and
                what was joined from the old one is forgotten then.
        """
        if defaults is not self._defaults:
            self._defaults, self._heads = defaults, {}
        head = self._heads.get(status)
        if head is None:
            lines = [b"%b: %b\r\n" % pair for pair in defaults]
            head = self._heads[status] = status_line(status) + b"".join(lines) + b"content-type: "
        return head

    def model(self, plan: Plan) -> ServedModel | None:
        """Which model the request is for; None where the route has to say why there is none."""
        found = plan.found
        if found is None:
            return None
        try:
            return self.registry.find(found.params.get("name"), found.params.get("version"))
        except ServiceError:
            return None

    def check_key(self, plan: Plan, scope: Scope) -> None:
        """Raises Unauthorized unless the key is good, by what was found before if that holds."""
        generation = self.gate.access.generation
        if plan.granted != generation:
            self.gate.check_key(scope)
            plan.granted = generation

    def refuse(
        self, plan: Plan, model: ServedModel, defaults: list[tuple[bytes, bytes]], turn: float
    ) -> tuple[bytes, bytes] | None:
        """The answer to a request for which its model has no room; None lets it in.

        A model whose queue was full of late is asked before anything of the body is read. So is
        one for which many requests come in one turn of the event loop: those let in during the
        turn are counted as if they waited.

        Args:
            plan: of a prediction.
            model: which it is for.
            defaults: the headers of every answer.
            turn: the loop's time(), which is the same for all that one turn reads.

        Returns:
            Head and body; between them belong the end of the line and of the head.
        """
        found, room = plan.found, model.batcher.room
        assert found is not None
        coming = room.coming(turn)
        now = time.monotonic()
        if coming < _MANY and now >= room.full_at + _ALERT_S:
            if not plan.direct:
                room.let_in()
            return None
        head = plan.head
        scope: Scope = {"path": head.path, "headers": head.headers, "first_headers": head.first}
        try:
            self.check_key(plan, scope)
            if now >= plan.fresh_until or defaults is not plan.defaults:
                timeout_s = http.timeout_s(scope, self._longest_ms)
                model.batcher.check_arrivals(coming + 1, timeout_s)
                if not plan.direct:
                    room.let_in()
                return None
        except QueueFull as error:
            body = found.endpoint.error_body(error)
            lines = [b"%b: %b\r\n" % pair for pair in error.headers()]
            length = b"application/json\r\ncontent-length: %d\r\n" % len(body)
            begin = self.answer_head(503, defaults)
            plan.refusal = b"".join([begin, length, *lines, b"x-request-id: "]), body
            plan.refused_by = model.name, error.with_traceback(None)
            plan.defaults, plan.fresh_until = defaults, now + _FRESH_S
        except ServiceError:
            return None
        self.keep(plan)
        assert plan.refused_by is not None
        name, refused = plan.refused_by
        self.gate.metrics.refused_early(found.template, name, refused)
        begin, body = plan.refusal
        return begin + request_id(scope).encode(), body
