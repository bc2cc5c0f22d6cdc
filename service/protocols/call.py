"""A prediction, whichever protocol and transport it came by: its steps, each written once.

    admit    is there room for it, before anything of its body is read
    decode   bytes to tensors that suit the model
    run      in a batch of the model
    encode   the outputs to the bytes of the answer

Two drive them: `answer` in a task, for HTTP and for gRPC, where what takes long is done in a
thread; `connections.Prediction` in plain calls, for a small body that is there. What comes later
than its deadline at a step is told so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from service import http
from service.batching.settling import late, not_in_time
from service.codecs import wish
from service.codecs.wish import Wish
from service.exchange import COUNTED_BYTES, Exchange
from service.models.model import ServedModel
from service.protocols.light import LARGE_TEXT_BYTES, light_answer
from service.protocols.response_cache import Key, Recall
from service.signature import Tensors, size_of

T = TypeVar("T")

# The tensors of so small a body are not counted: a multiple of it for each that waits.
_FEW_BYTES = 16 * 1024

JSON = b"application/json"
OCTETS = b"application/octet-stream"


class Reply(NamedTuple):
    """A whole answer."""

    body: bytes
    content_type: bytes = JSON
    headers: http.Headers = ()
    status: int = 200


class How(NamedTuple):
    """What a request asks for besides its tensors.

    `encode`: the outputs, by name, to the reply. `light`: whether that only copies bytes.
    `wish`: of the request for itself. `rows`: of its tensors, if they are known to suit the model;
    0 to look at them.
    """

    encode: Callable[[ServedModel, Tensors], Reply]
    light: bool = False
    wish: Wish = wish.NONE
    rows: int = 0


class Reader(NamedTuple):
    """How a request is read and answered, as far as its head tells.

    `read`: its body, the model, and what counts the bytes of what is made of it, to tensors and
    what else it asks for; any buffer for a body with a `front`, else bytes.
    `light_bytes`: of a body up to which reading takes so little that the event loop may do it.
    `front`: what comes before the tensors in a body that holds them as they are, in bytes; None
    for a body of another kind.
    `recall`: how the answer is found that the same request was given; None to look for none.
    """

    read: Callable[[Any, ServedModel, Callable[[int], object]], tuple[Tensors, How]]
    light_bytes: float = LARGE_TEXT_BYTES
    front: int | None = None
    recall: Recall | None = None


class Call:
    """One of them. `exchange`: its record. `body`: until it is decoded.

    `deadline`: on the clock of time.monotonic(), once its body is there.

    Args:
        pool: for what would hold up the event loop.
        exchange: see above.
        reader: as the head of the request has it; may be set before the body is read.
    """

    # Defaults stand in the class until they are set: that is cheaper for each request.
    body: http.Body = b""
    deadline = 0.0
    model: ServedModel | None = None
    how: How | None = None  # once its body is read
    inputs: Tensors
    key: Key | None = None  # under which its answer will be kept

    def __init__(
        self, pool: ThreadPoolExecutor, exchange: Exchange, reader: Reader | None = None
    ) -> None:
        self.pool = pool
        self.exchange = exchange
        self.reader = reader

    def admit(self, model: ServedModel, timeout_s: float) -> None:
        """Refuse what has no chance before the work of reading and decoding.

        Args:
            model: which it is for.
            timeout_s: how long the client waits at most, from the end of the body.

        Raises:
            ServiceError: what `Batcher.check_room` raises.
        """
        exchange = self.exchange
        exchange.model, exchange.version = model.name, model.version
        self.model = model
        model.batcher.check_room(1, timeout_s)

    @property
    def light(self) -> bool:
        """Whether the event loop itself may decode the body."""
        size = len(self.body)
        assert self.reader is not None
        if size > self.reader.light_bytes:
            return False
        # Texts are read one by one, also where other tensors are only looked at.
        assert self.model is not None
        return size <= LARGE_TEXT_BYTES or not self.model.signature.texts

    def recalled(self) -> Reply | None:
        """The answer that is kept of the same request; without one, its own will be kept.

        Raises:
            TooManyBytes: answers that are not read leave no room for it.
        """
        model, exchange, reader = self.model, self.exchange, self.reader
        assert model is not None
        assert reader is not None
        assert reader.recall is not None
        self.key = key = reader.recall.key(model, self.body)
        kept = None if key is None else reader.recall.cache.get(key, model)
        if kept is None:
            return None
        self.body = b""
        exchange.rows = kept.rows
        exchange.answer(len(kept.reply.body))
        return kept.reply

    def decode(self) -> int:
        """Read the body, which is not kept; how many rows it has.

        Raises:
            ServiceError: it is none for this model, or that took until the deadline.
        """
        model, exchange, reader = self.model, self.exchange, self.reader
        assert model is not None
        assert reader is not None
        body, self.body = self.body, b""
        if reader.front is None:
            body = bytes(body)
        self.inputs, self.how = tensors, how = reader.read(body, model, exchange.make)
        if len(body) > _FEW_BYTES or exchange.made_bytes:
            exchange.make(size_of(tensors))
        if how.wish is not wish.NONE:
            self.deadline = min(self.deadline, exchange.read + how.wish.timeout_s)
            exchange.priority = how.wish.priority
        exchange.rows = rows = how.rows or model.signature.check(tensors)
        exchange.decoded = now = time.monotonic()
        if now >= self.deadline:
            raise late()
        return rows

    def encode(self, outputs: Tensors) -> Reply:
        """Write the answer, and count it in place of what it was made of.

        Raises:
            ServiceError: the outputs cannot be written, or not kept.
        """
        how, model, exchange = self.how, self.model, self.exchange
        assert how is not None
        assert model is not None
        reply = how.encode(model, outputs)
        exchange.encoded = time.monotonic()
        size = len(reply.body)
        if size > COUNTED_BYTES or exchange.made_bytes:
            exchange.make(size)
        if self.key is not None and self.reader is not None and self.reader.recall is not None:
            self.reader.recall.cache.put(self.key, model, reply, exchange.rows)
        return reply

    def light_answer(self, outputs: Tensors) -> bool:
        """Whether the event loop itself may encode the outputs."""
        assert self.how is not None
        return light_answer(outputs, copied=self.how.light)

    async def answer(self) -> Reply:
        """Decode, run and encode, with the event loop free for others.

        Raises:
            ServiceError: of any of the steps.
        """
        model, exchange = self.model, self.exchange
        assert model is not None
        assert self.reader is not None
        if self.reader.recall is not None:
            reply = self.recalled() if self.light else await self.in_thread(self.recalled)
            if reply is not None:
                return reply
        rows = self.decode() if self.light else await self.in_thread(self.decode)
        outputs = await model.batcher.submit(self.inputs, rows, self.deadline, exchange)
        exchange.answered = time.monotonic()
        return await self.encoded(outputs)

    async def encoded(self, outputs: Tensors) -> Reply:
        """`encode`, in a thread if there is much to write."""
        if self.light_answer(outputs):
            return self.encode(outputs)
        return await self.in_thread(self.encode, outputs)

    async def in_thread(self, work: Callable[..., T], *of: object) -> T:
        """Do it in a thread; who waits for that is told at the deadline at the latest.

        Raises:
            DeadlineExceeded: it was not ready. It may still run to its end.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(0.0, self.deadline - time.monotonic())) as limit:
                return await loop.run_in_executor(self.pool, work, *of)
        except TimeoutError:
            if not limit.expired():  # the work's own
                raise
            raise not_in_time() from None
