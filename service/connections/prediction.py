"""A prediction without a task, from the head of its request to the socket.

A task, its futures, timers and messages take longer than a small model that runs on the event
loop. A request for one whose body is there goes straight to the model's batch, and from there to
the socket, in plain calls:

    Connection -> Prediction.begin        key, limits, decode, check, into the batch of this turn
    Turn       -> Prediction.set_result   encode, write, count

The steps are those of `Inference.answer` and of the gate, in the same order, with the same
errors, headers, metrics and observers. What is unusual (a body that trickles in, a large one, an
image, rows for a thread) takes the usual way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future as PoolFuture
from functools import partial
from typing import TYPE_CHECKING

from service import errors, faults, http
from service.batching.batch import Item, Outcome
from service.connections.head import Head
from service.connections.plan import Plan, Plans
from service.errors import ServiceError
from service.models.model import ServedModel
from service.protocols.endpoint import Decoded, Reply, reply_headers
from service.protocols.light import light_answer

if TYPE_CHECKING:
    from service.connections.connection import Connection

logger = logging.getLogger("foldserve.predict")


class Prediction:
    """A request on its way; to the batcher, where its outcome goes.

    `item`: what the batcher has of it, until it is answered. `done_with`: it is answered, or
    nobody is there to answer.
    """

    started = False  # its answer is written at once

    __slots__ = (
        "_connection", "_decoded", "_exchange", "_item", "_model", "_plan", "_plans", "done_with",
    )  # fmt: skip

    def __init__(self, plans: Plans, connection: Connection, plan: Plan, model: ServedModel):
        self._plans = plans
        self._connection = connection
        self._plan = plan
        self._model: ServedModel | None = model
        self._exchange = plans.gate.record(plan.head.first.get(b"x-request-id"))
        self._decoded: Decoded | None = None
        self._item: Item | None = None
        self.done_with = False

    def begin(self, body: bytes) -> bool:
        """Put it into the batch of this turn, or refuse it; False to leave it to the usual way."""
        exchange, plan, model = self._exchange, self._plan, self._model
        assert plan.found is not None
        assert model is not None
        exchange.route = plan.found.template
        try:
            reader = plan.reader
            if reader is None or plan.granted != self._plans.gate.access.generation:
                reader = self._plans.admit(plan)
            exchange.model, exchange.version = model.name, model.version
            if len(body) > reader.light_bytes:
                return self._leave()
            exchange.hold(len(body))
            exchange.read = read = time.monotonic()
            self._decoded = decoded = reader.read(body, model, exchange.make)
            exchange.rows = rows = model.signature.check(decoded.tensors)
            if rows > model.batcher.inline_rows:
                return self._leave()
            exchange.decoded = time.monotonic()
            self._item = model.batcher.enter(
                decoded.tensors, rows, read + plan.timeout_s, self, self._connection.loop,
                exchange.request_id, exchange.run, exchange.expect,
            )  # fmt: skip
            if plan.raw is not None:
                self._plans.keep(plan)
        except ServiceError as error:
            # Its traceback leads back to here: only the collector would free the body.
            self._refuse(error.with_traceback(None))
        except Exception:  # noqa: BLE001  a defect: the client still gets an error of the usual shape
            self._refuse(self._defect())
        return True

    def _leave(self) -> bool:
        self._plans.gate.forget(self._exchange)
        self._let_go()
        return False

    @property
    def head(self) -> Head:
        return self._plan.head

    def done(self) -> bool:
        """For the batcher: nobody waits for it any more."""
        return self.done_with

    def hang_up(self) -> None:
        """The connection has gone."""
        if self._item is not None and self._model is not None:
            self._model.batcher.abandon(self._item)
        self._let_go()
        if not self.done_with:
            self.done_with = True
            self._plans.over(self._exchange, self._plan, self._connection)

    def set_result(self, outcome: Outcome) -> None:
        """Answer with what the batcher made of it; one that cannot be answered is hung up."""
        try:
            self._take(outcome)
        except Exception:  # noqa: BLE001  a defect
            self._fail()

    def _fail(self) -> None:
        """Rather no connection than one that waits for ever."""
        faults.report(logger, "an answer could not be written")
        if not self.done_with:
            self.hang_up()
            self._connection.transport.abort()

    def _take(self, outcome: Outcome) -> None:
        if isinstance(outcome, ServiceError):
            self._refuse(outcome)
            return
        self._exchange.answered = time.monotonic()
        decoded, model = self._decoded, self._model
        assert decoded is not None
        assert model is not None
        if outcome.small or light_answer(outcome, copied=decoded.light):
            self._answer(decoded.encode, model, outcome)
            return
        job = self._plans.pool.submit(partial(decoded.encode, model, outcome))
        call_soon = self._connection.loop.call_soon_threadsafe
        job.add_done_callback(lambda job: call_soon(self._encoded, job))

    def _let_go(self) -> None:
        """Nothing that still refers to it must keep a model alive."""
        self._decoded = self._item = self._model = None

    def _refuse(self, error: ServiceError) -> None:
        assert self._plan.found is not None
        self._exchange.error = error.code
        self._write(error.status, self._plan.found.endpoint.error_body(error), error.headers())

    def _encoded(self, job: PoolFuture[Reply]) -> None:
        if self.done_with:
            return
        try:
            self._answer(job.result)
        except Exception:  # noqa: BLE001  a defect
            self._fail()

    def _answer(self, encode: Callable[..., Reply], *of: object) -> None:
        """Write the reply that `encode(*of)` gives, or the error that it raises."""
        exchange = self._exchange
        try:
            reply = encode(*of)
            exchange.encoded = time.monotonic()
            exchange.answer(len(reply.body))
        except ServiceError as error:
            self._refuse(error)
        except Exception:  # noqa: BLE001  a defect
            self._refuse(self._defect())
        else:
            headers = reply_headers(self._plan.head.first, reply, exchange)
            self._write(reply.status, reply.body, headers, reply.content_type)

    def _write(
        self,
        status: int,
        body: bytes,
        headers: http.Headers,
        content_type: bytes = b"application/json",
    ) -> None:
        connection, exchange = self._connection, self._exchange
        transport = connection.transport
        if transport.is_closing():
            self.hang_up()
            return
        exchange.status = status
        keep_alive = self._plan.head.keep_alive and connection.keeps
        answer = [
            self._plans.answer_head(status, connection.state.default_headers),
            content_type,
            b"\r\ncontent-length: %d\r\n" % len(body),
            *[b"%b: %b\r\n" % pair for pair in headers],
            b"x-request-id: %b\r\n" % exchange.request_id.encode(),
            b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
            body,
        ]
        transport.write(b"".join(answer))
        self.done_with = True
        self._let_go()
        self._plans.over(exchange, self._plan, connection)
        connection.answered(keep_alive=keep_alive)

    def _defect(self) -> ServiceError:
        """The error for an exception that nobody expected, which is logged."""
        logger.exception("request %s failed", self._exchange.request_id)
        return errors.defect()
