"""ModelStreamInfer: requests that come in one call, answered in their order.

    read     the next one, while few enough of the stream wait until their answer is read
    ask      each in a task, with a record and a deadline of its own, as a call of ModelInfer
    write    one behind the other; an error is a text in its answer's place, and the stream goes on

What may come at any moment is counted as if it had: the largest message for each open stream. So
the budget says how many are open at a time, and a silent one makes room for a new one, as silent
connections do. An answer counts until the library has passed it on, which waits for the client.

Source: Triton, grpc_service.proto and src/grpc/stream_infer_handler.cc.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from service.budget import Account, Budget
from service.connections.places import Places
from service.errors import BodyTimeout, ServiceError, ShuttingDown, TooManyConnections
from service.protocols import grpc_bounds, grpc_messages, shapes
from service.protocols.grpc_reception import address, seen

METHOD = "ModelStreamInfer"

_PART = 2  # one byte of the budget in so many
_MOST_WAITING = 32

_ID = 3  # of a ModelInferRequest
_INFER_RESPONSE = b"\x12"  # field 2 of a ModelStreamInferResponse, a message
_CLASSES = grpc_messages.classes()
# Behind a ModelInferResponse it is one more of its parameters: each request has one answer.
_FINAL: bytes = _CLASSES["ModelInferResponse"](
    parameters={"triton_final_response": {"bool_param": True}}
).SerializeToString()

# Writes an answer once those before it are written.
Write = Callable[[bytes], Awaitable[None]]
Ask = Callable[[bytes, Write], Awaitable[None]]


class InferStreams:
    """Used on the event loop only.

    Args:
        budget: a part of which says how many are open at a time.
        largest: message that the library takes, in bytes.
        stall_s: the longest time in which an answer is not read.
    """

    def __init__(self, budget: Budget, largest: int, stall_s: float) -> None:
        self.most = max(1, (budget.limit - budget.aside) // _PART // largest)
        self._account = Account(budget)
        self._largest = largest
        self._stall_s = stall_s
        self._places = Places(self.most, max(1, self.most - 1))
        self._open: set[_Stream] = set()

    async def serve(self, call: Any, ask: Ask) -> None:
        """All of a call; `ask` is given each message.

        Raises:
            ServiceError: there is no room for it, or it had to end before its client's end.
        """
        stream = _Stream(call, self._stall_s)
        if not self._places.enter(stream, address(call.peer()), time.monotonic()):
            raise TooManyConnections(
                "Too many streams of requests are open.",
                hint="Send more over one of them, or use ModelInfer. A larger "
                "--max-in-flight-bytes, or a smaller --max-body-bytes, makes room for more.",
                retry_after_s=1,
            )
        self._open.add(stream)
        try:
            self._account.take(self._places.taken * self._largest)
            ended = await stream.run(ask)
        finally:
            self._open.discard(stream)
            self._places.leave(stream)
            self._account.owe(self._places.taken * self._largest)
        if stream.stuck is not None:
            await asyncio.wait({stream.stuck})  # before it the library takes no status
        if ended is not None:
            raise ended

    def close(self) -> None:
        """Take no more of any of them; what has come is answered."""
        for stream in self._open:
            stream.end(ShuttingDown("The server is stopping."))


class _Stream:
    """One call. `silent_s`, `transport` and `close` are for `Places`.

    `stuck`: what waits for the client to read an answer, after all the rest was given up for that.
    """

    def __init__(self, call: Any, stall_s: float) -> None:
        self.transport = self
        self.stuck: asyncio.Task[None] | None = None
        self._call = call
        self._stall_s = stall_s
        self._over: asyncio.Future[ServiceError] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Semaphore(_MOST_WAITING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._since = time.monotonic()

    def silent_s(self, now: float) -> float:
        """For how many seconds nothing has come, and all that had has been answered."""
        return 0.0 if self._tasks else now - self._since

    def close(self) -> None:
        """It makes room for another one."""
        self.end(
            TooManyConnections(
                "The stream was silent, and another one needed its place.", hint="Open it again."
            )
        )

    def end(self, why: ServiceError) -> None:
        """Read no more; what has come is answered, and then the client is told why."""
        if not self._over.done():
            self._over.set_result(why)

    async def run(self, ask: Ask) -> ServiceError | None:
        """Until it ends; why, if it was not the client."""
        last: asyncio.Task[None] | None = None
        try:
            while (message := await self._next()) is not None:
                last = asyncio.ensure_future(ask(message, self._writer(last)))
                self._tasks.add(last)
                last.add_done_callback(self._done)
                del message  # the next one may be long in coming
            if self._tasks:
                await asyncio.wait(self._tasks)
            return self._over.result() if self._over.done() else None
        finally:
            for each in self._tasks:
                each.cancel()

    async def _next(self) -> bytes | None:
        await self._room.acquire()
        # Not cancelled: the library would still be at it. It ends with the call.
        reading = asyncio.ensure_future(self._call.read())
        reading.add_done_callback(seen)
        await asyncio.wait({reading, self._over}, return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            return None
        message = reading.result()
        return message if isinstance(message, bytes) else None  # or the end

    def _done(self, task: asyncio.Task[None]) -> None:
        seen(task)
        self._tasks.discard(task)
        self._since = time.monotonic()
        self._room.release()

    def _writer(self, before: asyncio.Task[None] | None) -> Write:
        async def write(answer: bytes) -> None:
            if before is not None:
                await asyncio.wait({before})
            writing = asyncio.ensure_future(self._call.write(answer))
            writing.add_done_callback(seen)
            await asyncio.wait({writing}, timeout=self._stall_s)
            if not writing.done():
                self._stalled()
                await asyncio.wait({writing})  # the library has its bytes until then

        return write

    def _stalled(self) -> None:
        """The client reads nothing: of all that is under way only this answer goes on."""
        own = self.stuck = asyncio.current_task()
        assert own is not None
        self._tasks.discard(own)
        self.end(BodyTimeout("The answers were not read in time.", hint="Read them as they come."))
        for each in self._tasks:
            each.cancel()


def succeeded(response: bytes) -> bytes:
    """A ModelStreamInferResponse with this ModelInferResponse."""
    size, length = len(response) + len(_FINAL), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return b"".join([_INFER_RESPONSE, length, response, _FINAL])


def failed(error: ServiceError, request: bytes) -> bytes:
    """A ModelStreamInferResponse that says why this ModelInferRequest has no answer."""
    (own,) = grpc_bounds.texts(request, [_ID]) or [""]
    told = _CLASSES["ModelStreamInferResponse"](error_message=shapes.text(error))
    told.infer_response.id = own  # by which the client knows which one it is
    written: bytes = told.SerializeToString()
    return written
