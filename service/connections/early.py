"""Refusals at the headers: what an overloaded server says before a request costs anything.

A request that finds the queue of its model full is refused by its route, after a task, a gate
and a lookup: a tenth of a millisecond, in which a small model answers. Ten times more requests
than the server can answer would leave no time for any answer. So the connection asks here first,
for paths on which a model was found before:

    full, or too long for the deadline     503 and Retry-After, the body is dropped unread
    room                                   the routes decide as always

That costs nothing while all is well: the queue is looked at only for some seconds after a path
was refused, and in a turn of the event loop that brings many requests at once.

All connections that are readable in one turn are read before any of their requests is looked at:
those let in during the turn are counted as if they waited.
"""

from __future__ import annotations

from starlette.types import Scope

from service import http
from service.connections.auth import Access, credentials
from service.errors import QueueFull, ServiceError
from service.models.registry import Registry
from service.settings import Settings
from service.telemetry.metrics import Metrics

_MOST_PATHS = 1024
# Requests in one turn of the event loop that take no more than a few milliseconds of it.
_MANY = 32
_ALERT_S = 5.0


class _Path:
    """`coming`: requests let in during the turn; `alert_until`: on the loop's clock."""

    __slots__ = ("alert_until", "coming", "name", "route", "turn", "version")

    def __init__(self, name: str | None, version: str | None, route: str) -> None:
        self.name = name
        self.version = version
        self.route = route
        self.turn = 0.0
        self.coming = 0
        self.alert_until = 0.0


class Early:
    """Asked by connections (`refusal`), told by routes (`found`, `full`). Event loop only.

    Args:
        registry: the models.
        settings: for the longest time of a request.
        access: requests without a valid key are left to the gate.
        metrics: counts what is refused.
    """

    def __init__(
        self, registry: Registry, settings: Settings, access: Access, metrics: Metrics
    ) -> None:
        self._registry = registry
        self._longest_ms = settings.request_timeout_ms
        self._access = access
        self._metrics = metrics
        self._paths: dict[str, _Path] = {}
        self._turn = 0.0
        self._begun = 0

    def found(self, scope: Scope) -> None:
        """A route has found a model for the request."""
        if scope["path"] not in self._paths and len(self._paths) < _MOST_PATHS:
            params = scope.get("path_params", {})
            route = http.exchange(scope).route
            self._paths[scope["path"]] = _Path(params.get("name"), params.get("version"), route)

    def full(self, scope: Scope, turn: float) -> None:
        """A route has refused the request because the queue of its model is full."""
        path = self._paths.get(scope["path"])
        if path is not None:
            path.alert_until = turn + _ALERT_S

    def refusal(self, scope: Scope, turn: float) -> ServiceError | None:
        """Why the request would be refused anyway; None lets it in.

        Args:
            scope: of the request.
            turn: the loop's time(), which is the same for all that one turn reads.
        """
        if turn != self._turn:
            self._turn, self._begun = turn, 0
        self._begun += 1
        path = self._paths.get(scope["path"])
        if path is None:
            return None
        if path.turn != turn:
            path.turn, path.coming = turn, 0
        if self._begun > _MANY or turn < path.alert_until:
            error = self._look(scope, path)
            if error is not None:
                path.alert_until = turn + _ALERT_S
                return error
        path.coming += 1
        return None

    def _look(self, scope: Scope, path: _Path) -> ServiceError | None:
        headers = scope["headers"]
        # The answer to a page needs headers that are added elsewhere.
        if scope["method"] != "POST" or any(name == b"origin" for name, _ in headers):
            return None
        try:
            self._access.require(credentials(headers))
            model = self._registry.find(path.name, path.version)
            time_left_s = http.timeout_s(scope, self._longest_ms)
            model.batcher.check_arrivals(path.coming + 1, time_left_s)
        except QueueFull as error:
            self._metrics.refused_early(path.route, model.name, error)
            return error.with_traceback(None)
        except ServiceError:
            return None  # the route says it
        return None
