"""One TCP connection: HTTP/1.1 (RFC 9112), within limits that hold before a request is complete.

    a head      looked up among those that are known (`Plans`), or read by httptools
    its body    counted by its length, or read in chunks; a large one by an `Intake`
    its answer  by a `Prediction` without a task, or by the application (`Request`); one at a time:
                what comes behind waits in the socket, but for what one read brought along

    too many connections      503 for all but health; of those that wait with nothing to say the
                              oldest make room for new ones, so that health is always answered
    headers without end       431 beyond --max-header-bytes or 100 headers
    requests piled up         400 beyond 100 of one read that wait for their answers
    bytes that are no HTTP    400, in the one shape of an error

When nothing is read or written, and when one half is closed, says `Flow`; what takes too long is
ended by `Lifetime`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from service.connections import head as heads
from service.connections.asgi import Request
from service.connections.auth import OPEN_PATHS
from service.connections.chunks import Chunks
from service.connections.crowd import Crowd, answer_too_many
from service.connections.flow import Flow
from service.connections.head import HeadParser
from service.connections.lifetime import ConnectionLimits
from service.connections.places import Places
from service.connections.plan import Plan, Plans
from service.connections.prediction import Prediction
from service.errors import MalformedHttp, ServiceError, TooManyConnections
from service.models.model import ServedModel

_MAX_PIPELINED = 100
# How long the rest of a small body is awaited before its request gets a task.
_BODY_WAIT_S = 0.05
# So much of answers may wait for its reader before anything else is looked at.
_UNREAD_BYTES = 64 * 1024


class Connection(Flow):
    """uvicorn makes one for each socket; `connection_class` sets `limits`.

    `keeps`: whether more requests may follow the present one.

    Args:
        config: of uvicorn; its application may have `plans`.
        server_state: of uvicorn.
    """

    crowd: Crowd
    places: Places

    server: tuple[str, int] | None = None
    client: tuple[str, int] | None = None
    scheme = "http"
    keeps = True
    _excess = False  # one connection too many
    _reading = False  # what is read is being looked at
    _piled = 0  # requests that the last read brought
    _left = 0  # of a body with a length
    _chunks: Chunks | None = None
    _parser: HeadParser | None = None  # of a head that has not come to its end
    # A request that may be answered without a task, and what has come of its body.
    _awaited: Plan | None = None
    _parts: list[bytes]
    _body_timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any] | None = None,  # noqa: ARG002
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(server_state, _loop or asyncio.get_running_loop())
        self.app: ASGIApp = config.loaded_app
        self.plans: Plans | None = getattr(self.app, "plans", None)

    # --- the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.state.connections.add(self)  # type: ignore[arg-type]
        self.since = time.monotonic()
        # An answer is held until its last byte has left: only then is there room for the next.
        transport.set_write_buffer_limits(high=_UNREAD_BYTES, low=0)
        address = self.client[0] if self.client else ""
        if not self.places.enter(self, address, self.since):
            self._excess = True
            self.crowd.enter(self, self.since)

    def data_received(self, data: bytes) -> None:
        self._piled = 0
        if self.behind:
            data = self.behind + data
        self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.state.connections.discard(self)
        if self._excess:
            self.crowd.leave(self)
        self.places.leave(self)
        self.forget_unread()
        self.hang_up()
        self.behind = b""
        self.hold_waiting(0)
        self._parser = self._chunks = None
        self.wake()

    # --- reading --------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Look at what has come, as far as it is not behind a request that is under way."""
        self.behind, self._reading = b"", True
        try:
            while data:
                if self.ended is not None or self.last:
                    self.drop(len(data))
                    return
                if self.in_body:
                    data = self._read_body(data)
                elif self.answering or self.write_paused:
                    self.hold_waiting(len(data))
                    self.behind = data
                    self.pause_reading()
                    return
                else:
                    data = self._read_head(data)
        except ServiceError as error:
            self._give_up_the_body()
            self.refuse(error.with_traceback(None))
        finally:
            self._reading = False
            if self._waiting and not (self.behind or self._parser or self._awaited):
                self.hold_waiting(0)

    def _read_head(self, data: bytes) -> bytes:
        """Begin what is asked for if the head has ended; what is behind it is returned."""
        parser = self._parser
        if parser is None:
            end = data.find(heads.END) + 4
            raw = data if end == len(data) else data[:end]
            plan = self.plans.known.get(raw) if self.plans is not None else None
            if plan is not None:
                return self._begin(plan, data, end)
            if not self.began:
                self.since, self.began = time.monotonic(), True
            # Empty lines before a request are passed over (RFC 9112, 2.2).
            stripped = data.lstrip(b"\r\n")
            if stripped != data:
                return stripped
            limit = self.limits.max_header_bytes
            if end > 3:
                return self._begin(self._plan(heads.read(raw, limit), raw), data, end)
            parser = self._parser = HeadParser(limit)
        # A head that comes in pieces. It is never kept: see `Plans.keep`.
        end = parser.feed(data)
        if end < 0:
            self.hold_waiting(parser.size)
            return b""
        self._parser = None
        return self._begin(self._plan(parser.head()), data, end)

    def _plan(self, head: heads.Head, raw: bytes | None = None) -> Plan:
        return Plan(head) if self.plans is None else self.plans.make(head, raw)

    def _begin(self, plan: Plan, data: bytes, end: int) -> bytes:
        """A head has come to its end, in `data` at `end`; what nobody has looked at is returned."""
        self._piled += 1
        if self._piled > _MAX_PIPELINED:
            raise MalformedHttp("Too many requests wait on this connection.")
        self.since, self.began = None, False
        head, length = plan.head, plan.head.length
        if length is None:
            self.in_body, self._chunks = True, Chunks()
        else:
            self.in_body, self._left = length != 0, length
        plans = self.plans
        if plans is not None and plan.found is not None and not self._excess:
            model = plans.model(plan)
            if model is not None:
                if not plan.direct or model.batcher.room.full_at > 0.0:
                    defaults = self.state.default_headers
                    refusal = plans.refuse(plan, model, defaults, self.loop.time())
                    if refusal is not None:
                        self._refuse_early(head, refusal)
                        return data[end:]
                if plan.direct and model.batcher.inline_rows:
                    stop = end + self._left
                    if len(data) < stop:
                        self.hold_waiting(self._left)
                    self.answering = True
                    if len(data) >= stop:
                        self.in_body = False
                        self._predict(plan, model, data[end:stop])
                        return data[stop:]
                    self._awaited, self._parts = plan, []
                    self._body_timer = self.loop.call_later(_BODY_WAIT_S, self._start)
                    return data[end:]
        self._start_task(head)
        return data[end:]

    def _refuse_early(self, head: heads.Head, refusal: tuple[bytes, bytes]) -> None:
        begin, body = refusal
        keep_alive = head.keep_alive and self.keeps
        close = b"" if keep_alive else b"connection: close\r\n"
        self.transport.write(b"%b\r\n%b\r\n%b" % (begin, close, body))
        self.answered(keep_alive=keep_alive, expects=head.expects)

    def _read_body(self, data: bytes) -> bytes:
        """Hand on what belongs to the body; what is behind it is returned."""
        if self._chunks is not None:
            parts, data = self._chunks.feed(data)
            if parts:
                self._take_body(parts[0] if len(parts) == 1 else b"".join(parts))
            if self._chunks.complete:
                self._chunks = None
                self._body_complete()
            return data
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            self._take_body(data)
            return b""
        self._left = 0
        self._take_body(data if len(data) == left else data[:left])
        self._body_complete()
        return data[left:]

    def _take_body(self, data: bytes) -> None:
        if self._awaited is not None:
            self._parts.append(data)
        elif isinstance(self.request, Request):
            self.request.body(data)
        else:
            self.drop(len(data))

    def _body_complete(self) -> None:
        self.body_ended()
        plan, request = self._awaited, self.request
        if plan is not None:
            body = b"".join(self._parts)
            self._forget_the_awaited()
            assert self.plans is not None
            self._predict(plan, self.plans.model(plan), body)
        elif isinstance(request, Request):
            request.body_complete()
        else:
            self._await_a_head()  # behind a body whose request was answered before

    def still_coming(self) -> None:
        """An intake has read a part of a body that nobody wants any more."""
        self.drop(0)

    def body_complete(self) -> None:
        """An intake has read a body to its end: what comes next is the head of a request."""
        self._left = 0
        self.transport.set_protocol(self)
        self._body_complete()

    # --- answering ------------------------------------------------------------------------

    def _predict(self, plan: Plan, model: ServedModel | None, body: bytes) -> None:
        """All of a request that may be answered without a task is here."""
        if model is not None and model.batcher.inline_rows:
            assert self.plans is not None
            self.request = prediction = Prediction(self.plans, self, plan, model)
            if prediction.begin(body):
                return
        request = self._start_task(plan.head)
        request.body(body)
        request.body_complete()

    def _start(self) -> None:
        """A task for a request whose body does not come."""
        plan, parts = self._awaited, self._parts
        assert plan is not None
        self._forget_the_awaited()
        request = self._start_task(plan.head)
        for part in parts:
            request.body(part)

    def _forget_the_awaited(self) -> None:
        self._awaited, self._parts = None, []
        self.hold_waiting(0)
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _start_task(self, head: heads.Head) -> Request:
        self.answering = True
        self.request = request = Request(self, head)
        app = self.app
        if self._excess and head.path not in OPEN_PATHS:
            self.limits.refused(TooManyConnections.code)
            app = answer_too_many
        task = self.loop.create_task(request.run(app))
        self.state.tasks.add(task)
        task.add_done_callback(self.state.tasks.discard)
        return request

    def answered(self, *, keep_alive: bool, size: int = 0, expects: bool = False) -> None:
        """The answer to the request has been written.

        Args:
            keep_alive: whether another may follow.
            size: bytes of its body, or of the last part of it.
            expects: whether its body may be sent or not, as the client likes.
        """
        self.state.total_requests += 1
        self.answering, self.request = False, None
        if size > _UNREAD_BYTES or self.write_paused:
            self.count_unread(size)
        if self.transport.is_closing() or self.ended is not None:
            return
        rare = self.in_body or self.last or self.behind or self.paused or self.half_closed
        if keep_alive and not rare:
            self.since = time.monotonic()
            return
        # Nobody knows whether a body that was not waited for comes: no next head is sure.
        if self.last or (self.in_body and (expects or not keep_alive)):
            self.end()
        elif not keep_alive:
            self.transport.close()
        elif self.in_body:
            self.resume_reading()
        else:
            self._await_a_head()
            self.go_on()

    def _await_a_head(self) -> None:
        self.since, self.began = time.monotonic(), False

    def go_on(self) -> None:
        """Look at what waits behind the answer that has been given."""
        if self._reading or self.answering or self.write_paused or self.in_body:
            return
        if self.behind:
            self._read(self.behind)
        if not (self.behind or self.answering or self.write_paused):
            if self.half_closed:
                self.transport.close()
            else:
                self.resume_reading()

    # --- endings --------------------------------------------------------------------------

    def hang_up(self) -> None:
        """What was asked for cannot be answered, or is not complete and never will be."""
        if self._awaited is not None:
            self._start()  # which finds nobody there, and counts it
        request = self.request
        if request is not None:
            self.request, self.answering = None, False
            request.hang_up()

    def _give_up_the_body(self) -> None:
        """A body that is none: its request need not wait for the rest."""
        if self.in_body and isinstance(self.request, Request) and not self.request.started:
            self.hang_up()
        self.in_body, self._chunks = False, None

    def shutdown(self) -> None:
        """uvicorn stops: what is under way is finished, and the last of its connection."""
        self.keeps = False
        if self._awaited is not None:
            self._start()
        if not self.answering:
            self.transport.close()


def connection_class(limits: ConnectionLimits) -> type[Connection]:
    """The protocol class for uvicorn, which makes its instances without arguments of ours."""
    places = Places(limits.max_connections, limits.max_of_one_address)
    own = {"limits": limits, "crowd": Crowd(), "places": places}
    return type("LimitedConnection", (Connection,), own)


def _address(found: object) -> tuple[str, int] | None:
    return (found[0], found[1]) if isinstance(found, tuple) else None
