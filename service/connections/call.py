"""A prediction without a task, from the batch that runs it to the socket.

To uvicorn's connection a call is its cycle, to the batcher the future of the answer:

    Turn -> Call.set_result   encode, write, count
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future as PoolFuture
from functools import partial

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import errors, faults, http
from service.batching.batch import Item, Outcome
from service.connections.answering import Answering
from service.errors import ServiceError
from service.models.model import ServedModel
from service.protocols.endpoint import Decoded, Endpoint, Reply, reply_headers
from service.protocols.light import light_answer

logger = logging.getLogger("foldserve.predict")


class _Nobody:
    """In the place of the event that wakes a task: there is none."""

    def set(self) -> None:
        pass


class _Answered:
    """To uvicorn's connection a cycle that is over."""

    message_event = _Nobody()
    response_complete = True


ANSWERED = _Answered()


class Call:
    """A request on its way; to uvicorn's connection a cycle, to the batcher the answer.

    `item`: what the batcher has of it, until it is answered.
    `error`: why it could not begin; to be told with `refuse` once the connection knows the call.
    """

    message_event = _Nobody()
    more_body = False
    response_started = False

    __slots__ = (
        "_answering", "_endpoint", "_model", "_scope", "connection", "decoded", "disconnected",
        "error", "item", "keep_alive", "response_complete",
    )  # fmt: skip

    def __init__(
        self,
        answering: Answering,
        connection: HttpToolsProtocol,
        scope: Scope,
        endpoint: Endpoint,
        model: ServedModel,
    ) -> None:
        self._answering = answering
        self._scope = scope
        self._endpoint = endpoint
        self._model: ServedModel | None = model
        self.connection = connection
        self.decoded: Decoded | None = None
        self.item: Item | None = None
        self.error: ServiceError | None = None
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False

    @property
    def scope(self) -> Scope:
        return self._scope

    def done(self) -> bool:
        """Whether it has been answered, or nobody is there to answer."""
        return self.response_complete or self.disconnected

    def hang_up(self) -> None:
        """The connection has gone."""
        self.disconnected = True
        if self.item is not None and self._model is not None:
            self._model.batcher.abandon(self.item)
        self._let_go()
        if not self.response_complete:
            self.response_complete = True
            self._answering.gate.leave(self._scope, http.exchange(self._scope))

    def set_result(self, outcome: Outcome) -> None:
        """Answer with what the batcher made of it; a call that cannot be answered is hung up."""
        try:
            self._take(outcome)
        except Exception:  # noqa: BLE001  a defect
            self._fail()

    def _fail(self) -> None:
        """Rather no connection than one that waits for ever."""
        faults.report(logger, "an answer could not be written")
        if not self.done():
            self.hang_up()
            self.connection.transport.abort()

    def _take(self, outcome: Outcome) -> None:
        if isinstance(outcome, ServiceError):
            self.refuse(outcome)
            return
        exchange = http.exchange(self._scope)
        exchange.answered = time.monotonic()
        decoded, model = self.decoded, self._model
        assert decoded is not None
        assert model is not None
        if light_answer(outcome, copied=decoded.light):
            self._answer(decoded.encode, model, outcome)
            return
        job = self._answering.pool.submit(partial(decoded.encode, model, outcome))
        call_soon = self.connection.loop.call_soon_threadsafe
        job.add_done_callback(lambda job: call_soon(self._encoded, job))

    def _let_go(self) -> None:
        """An idle connection remembers its last call, which must not keep a model alive."""
        self.decoded = self.item = None
        self._model = None

    def refuse(self, error: ServiceError) -> None:
        """Answer with an error."""
        http.exchange(self._scope).error = error.code
        self._write(error.status, self._endpoint.error_body(error), error.headers())

    def _encoded(self, job: PoolFuture[Reply]) -> None:
        if self.done():
            return
        try:
            self._answer(job.result)
        except Exception:  # noqa: BLE001  a defect
            self._fail()

    def _answer(self, encode: Callable[..., Reply], *of: object) -> None:
        """Write the reply that `encode(*of)` gives, or the error that it raises."""
        exchange = http.exchange(self._scope)
        try:
            reply = encode(*of)
            exchange.encoded = time.monotonic()
            exchange.answer(len(reply.body))
        except ServiceError as error:
            self.refuse(error)
        except Exception:  # noqa: BLE001  a defect
            self.refuse(defect(self))
        else:
            headers = reply_headers(self._scope, reply)
            self._write(reply.status, reply.body, headers, reply.content_type)

    def _write(
        self,
        status: int,
        body: bytes,
        headers: http.Headers,
        content_type: bytes = b"application/json",
    ) -> None:
        connection, answering = self.connection, self._answering
        transport = connection.transport
        if transport.is_closing():
            self.hang_up()
            return
        exchange = http.exchange(self._scope)
        exchange.status = status
        answer = [
            answering.head(status, connection.server_state.default_headers),
            content_type,
            b"\r\ncontent-length: %d\r\n" % len(body),
            *[b"%b: %b\r\n" % pair for pair in headers],
            b"x-request-id: %b\r\n" % exchange.request_id.encode(),
            b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n",
            body,
        ]
        transport.write(b"".join(answer))
        self.response_complete = True
        self._let_go()
        if not self.keep_alive:
            transport.close()
        answering.gate.leave(self._scope, exchange)
        connection.on_response_complete()


def defect(call: Call) -> ServiceError:
    """The error for an exception that nobody expected, which is logged."""
    logger.exception("request %s failed", http.exchange(call.scope).request_id)
    return errors.defect()
