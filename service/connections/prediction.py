"""A prediction without a task, from the head of its request to the socket.

A task, its futures, timers and messages take longer than a small model that runs on the event
loop. A request for one whose body is there goes straight to the model's batch, and from there to
the socket, in plain calls:

    Connection -> Prediction.begin        key, limits, decode, check, into the batch of this turn
    Turn       -> Prediction.take         encode, write, count

The steps are those of every `Call`. What is unusual (a body that trickles in, a large one, an
image) takes the usual way.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from service import errors, faults
from service.batching.item import Item, Outcome, Outputs
from service.connections.head import Head
from service.connections.plan import Plan, Plans
from service.errors import ServiceError
from service.models.model import ServedModel
from service.protocols.call import JSON, Call, Reply

if TYPE_CHECKING:
    from service.connections.connection import Connection

logger = logging.getLogger("foldserve.predict")

# An answer from here on is written as it lies.
_LARGE_BYTES = 64 * 1024


class Prediction(Call, Item):
    """A request on its way; to the batcher, an item whose outcome is answered at once.

    `gone`: it is answered, or nobody is there to answer.
    """

    started = False  # its answer is written at once

    def __init__(self, plans: Plans, connection: Connection, plan: Plan, model: ServedModel):
        self.pool = plans.pool
        self.exchange = plans.gate.record(plan.head.first.get(b"x-request-id"))
        self._plans = plans
        self._connection = connection
        self.loop = connection.loop
        self._plan = plan
        self.model = model

    def begin(self, body: bytes) -> bool:
        """Put it into the batch of this turn, or refuse it; False to leave it to the usual way."""
        exchange, plan, model = self.exchange, self._plan, self.model
        assert plan.found is not None
        assert model is not None
        exchange.route = plan.found.template
        try:
            self.reader = self._plans.admit(plan)
            self.body = body
            self.admit(model, plan.timeout_s)
            if not self.light:
                return self._leave()
            exchange.hold(len(body))
            exchange.read = exchange.started
            self.deadline = exchange.read + plan.timeout_s
            if self.reader.recall is not None:
                reply = self.recalled()
                if reply is not None:
                    if plan.raw is not None:
                        self._plans.keep(plan)
                    self._answer(reply)
                    return True
            self.rows = rows = self.decode()
            self.priority = exchange.priority
            if rows > 1 or self.deadline < exchange.read + plan.timeout_s:
                model.batcher.check_room(rows, self.deadline - exchange.decoded)
            model.batcher.enter(self)
            if plan.raw is not None:
                self._plans.keep(plan)
        except Exception as error:  # noqa: BLE001
            self._excuse(error)
        return True

    def _leave(self) -> bool:
        self._plans.gate.forget(self.exchange)
        self._let_go()
        return False

    @property
    def head(self) -> Head:
        return self._plan.head

    def hang_up(self) -> None:
        """The connection has gone."""
        if self.since and self.model is not None:
            self.model.batcher.abandon(self)
        self._let_go()
        if not self.gone:
            self.gone = True
            self._plans.over(self.exchange, self._plan, self._connection)

    def take(self, outcome: Outcome) -> None:
        """Answer with what the batcher made of it; one that cannot be answered is hung up."""
        try:
            if isinstance(outcome, ServiceError):
                self._refuse(outcome)
                return
            self.exchange.answered = time.monotonic()
            if outcome.small or self.light_answer(outcome):
                try:
                    reply = self.encode(outcome)
                except Exception as error:  # noqa: BLE001
                    self._excuse(error)
                else:
                    self._answer(reply)
            else:
                state = self._connection.state
                task = self._connection.loop.create_task(self._answer_later(outcome))
                state.tasks.add(task)
                task.add_done_callback(state.tasks.discard)
        except Exception:  # noqa: BLE001  a defect
            self._fail()

    def _fail(self) -> None:
        """Rather no connection than one that waits for ever."""
        faults.report(logger, "an answer could not be written")
        if not self.gone:
            self.hang_up()
            self._connection.transport.abort()

    async def _answer_later(self, outcome: Outputs) -> None:
        """There is so much to write that a thread does it."""
        try:
            try:
                reply = await self.encoded(outcome)
            except Exception as error:  # noqa: BLE001
                self._excuse(error)
            else:
                self._answer(reply)
        except Exception:  # noqa: BLE001  a defect
            self._fail()

    def _let_go(self) -> None:
        """Nothing that still refers to it must keep a model alive."""
        self.how = self.model = None
        self.inputs = {}

    def _refuse(self, error: ServiceError) -> None:
        assert self._plan.found is not None
        self.exchange.error = error.code
        body = self._plan.found.endpoint.error_body(error)
        self._answer(Reply(body, JSON, error.headers(), error.status))

    def _answer(self, reply: Reply) -> None:
        connection, exchange, plan = self._connection, self.exchange, self._plan
        transport = connection.transport
        if self.gone or transport.is_closing():
            self.hang_up()
            return
        body, kind, headers, exchange.status = reply
        size = len(body)
        if plan.timed and exchange.status == 200:
            headers = [*headers, exchange.timing_header()]
        keep_alive = plan.head.keep_alive and connection.keeps
        defaults = connection.state.default_headers
        head = self._plans.answer_head(exchange.status, kind, size, tuple(headers), defaults)
        end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
        head = b"".join([head, exchange.request_id.encode(), end])
        if size > _LARGE_BYTES:  # to copy it would hold up all others
            transport.write(head)
            transport.write(body)
        else:
            transport.write(head + body)
        self.gone = True
        self._let_go()
        self._plans.over(exchange, plan, connection)
        connection.answered(keep_alive=keep_alive, size=size)

    def _excuse(self, error: Exception) -> None:
        """Answer with an error; one that nobody expected is logged, and has the usual shape."""
        if not self.gone:
            if not isinstance(error, ServiceError):
                logger.exception("request %s failed", self.exchange.request_id)
                error = errors.defect()
            # Its traceback leads back to here: only the collector would free the body.
            self._refuse(error.with_traceback(None))
