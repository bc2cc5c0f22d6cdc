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

import logging
import math
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service import faults, http
from service.connections.asgi import scope_of
from service.connections.gate import Gate, sane_id, show
from service.connections.head import Head
from service.connections.lifetime import status_line
from service.connections.routes import HotRoutes
from service.context import Context
from service.errors import QueueFull, ServiceError
from service.exchange import Exchange
from service.models.model import ServedModel
from service.protocols.call import JSON, Reader
from service.protocols.endpoint import Inference

if TYPE_CHECKING:
    from service.connections.connection import Connection

logger = logging.getLogger("foldserve.connection")

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
_MOST_ANSWER_HEADS = 1024

Line = tuple[bytes, bytes]
Lines = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A prediction route; `params` and `template` are those of its path."""

    endpoint: Inference
    params: dict[str, Any]
    template: str


def _nothing() -> None:
    return None


class Plan:
    """See above. Used on the event loop only.

    Args:
        head: what was sent.
        found: its route, if it is a prediction.
        direct: whether it may be answered without a task once its body is there.
        raw: its bytes, if it may be kept.
    """

    __slots__ = (
        "changes", "defaults", "direct", "found", "fresh_until", "granted", "head", "model",
        "raw", "reader", "refusal", "refused_by", "timed", "timeout_s",
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
        self.timed = b"x-server-timing" in head.first
        self.granted = -1  # the generation of the keys by which its key is good
        # Which model it is for, as of so many changes of the repository.
        self.model: Callable[[], ServedModel | None] = _nothing
        self.changes = -1
        # How its body is read, and how many seconds it may take, once that was asked for.
        self.reader: Reader | None = None
        self.timeout_s = 0.0
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
        self._over: list[Exchange] = []
        self._defaults: list[Line] = []
        self._heads: dict[tuple[int, bytes, int, Lines], bytes] = {}

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

    def answer_head(
        self, status: int, kind: bytes, size: int, headers: Lines, defaults: list[Line]
    ) -> bytes:
        """The head of an answer up to the request's id.

        Args:
            status, headers: of the answer.
            kind, size: of its body, its Content-Type and Content-Length.
            defaults: the headers of every answer; the server makes a new list once a second, and
                what was made from the old one is forgotten then.
        """
        if defaults is not self._defaults or len(self._heads) >= _MOST_ANSWER_HEADS:
            self._defaults, self._heads = defaults, {}
        key = status, kind, size, headers
        head = self._heads.get(key)
        if head is None:
            pairs = [
                *defaults, (b"content-type", kind), (b"content-length", b"%d" % size), *headers,
            ]  # fmt: skip
            lines = [b"%b: %b\r\n" % pair for pair in pairs]
            head = self._heads[key] = b"".join([status_line(status), *lines, b"x-request-id: "])
        return head

    def model(self, plan: Plan) -> ServedModel | None:
        """Which model the request is for; None where the route has to say why there is none."""
        registry = self.registry
        if plan.changes == registry.changes:
            model = plan.model()
            if model is not None:
                return model
        found, changes = plan.found, registry.changes
        if found is None:
            return None
        try:
            model = registry.find(found.params.get("name"), found.params.get("version"))
        except ServiceError:
            return None
        plan.model, plan.changes = weakref.ref(model), changes
        return model

    def admit(self, plan: Plan) -> Reader:
        """How the body of a request is read that may come in.

        Raises:
            Unauthorized: its key is not good, or not any more.
            ServiceError: its head asks for what there is not.
        """
        if plan.granted != self.gate.access.generation:
            self._check_key(plan)
        if plan.reader is None:
            head, found = plan.head, plan.found
            assert found is not None
            asked = head.first.get(b"x-timeout-ms")
            plan.timeout_s = http.asked_timeout_s(asked, self._longest_ms)
            plan.reader = found.endpoint.reader(
                {"first_headers": head.first, "query_string": head.query}
            )
        return plan.reader

    def _check_key(self, plan: Plan) -> None:
        generation = self.gate.access.generation
        if plan.granted != generation:
            head = plan.head
            self.gate.check_key({"path": head.path, "headers": head.headers})
            plan.granted = generation

    def over(self, exchange: Exchange, plan: Plan, connection: Connection) -> None:
        """A request without a task has ended; it is counted with the others of this turn."""
        self.gate.forget(exchange)
        exchange.finished = time.monotonic()
        if not self._over:
            connection.loop.call_soon(self._count)
        self._over.append(exchange)
        if self.gate.observers:
            show(self.gate.observers, exchange, scope_of(plan.head, connection))

    def _count(self) -> None:
        over, self._over = self._over, []
        with faults.contained(logger, "requests could not be counted"):
            self.gate.metrics.finish_all(over)

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
        # What takes no task waits from the moment in which it is let in.
        coming = 0 if plan.direct else room.coming(turn)
        now = time.monotonic()
        if coming < _MANY and now >= room.full_at + _ALERT_S:
            if plan.direct:
                room.full_at = -math.inf
            else:
                room.let_in()
            return None
        try:
            self._check_key(plan)
            if now >= plan.fresh_until or defaults is not plan.defaults:
                asked = plan.head.first.get(b"x-timeout-ms")
                timeout_s = http.asked_timeout_s(asked, self._longest_ms)
                model.batcher.check_arrivals(coming + 1, timeout_s)
                if not plan.direct:
                    room.let_in()
                return None
        except QueueFull as error:
            body = found.endpoint.error_body(error)
            told = tuple(error.headers())
            plan.refusal = self.answer_head(503, JSON, len(body), told, defaults), body
            plan.refused_by = model.name, error.with_traceback(None)
            plan.defaults, plan.fresh_until = defaults, now + _FRESH_S
        except ServiceError:
            return None
        self.keep(plan)
        assert plan.refused_by is not None
        name, refused = plan.refused_by
        self.gate.metrics.refused_early(found.template, name, model.version, refused)
        begin, body = plan.refusal
        return begin + sane_id(plan.head.first.get(b"x-request-id")).encode(), body
