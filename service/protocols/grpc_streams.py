"""Calls that last: Health/Watch and reflection. A bounded number of them is open at a time.

What such a call sends is read one message at a time, when it is asked for, and is small. Whether it
is shows only when it is there: of all streams of a kind a few are waited for at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from service.errors import InvalidBody, TooManyBytes
from service.protocols import shapes
from service.protocols.grpc_reception import Reception

_LARGEST_MESSAGE_BYTES = 4096
_READ_AT_A_TIME = 4

# The next message of a call, None at the end; it raises InvalidBody. And that to the answers.
Next = Callable[[], Awaitable[bytes | None]]
Serve = Callable[[Next], AsyncIterator[bytes]]


class Streams:
    """`closing` is set when the server stops: whoever serves a stream then ends it.

    Args:
        most: that are open at a time.
        silence_s: after which a stream without a message ends.
    """

    def __init__(self, most: int, silence_s: float) -> None:
        self.closing = asyncio.Event()
        self._most = most
        self._silence_s = silence_s
        self._open = 0

    def handler(self, serve: Serve) -> Any:
        """A method of a gRPC service; the answers are those of `serve`, as bytes."""
        reception = Reception(_READ_AT_A_TIME, self._silence_s)

        async def handle(_: Any, call: Any) -> AsyncIterator[bytes]:
            if self._open >= self._most:
                await call.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._most} such streams are open already. Try again once others end.",
                )
            self._open += 1
            try:
                async for answer in serve(lambda: self._next(call, reception)):
                    yield answer
            except InvalidBody as error:
                await call.abort(grpc.StatusCode.INVALID_ARGUMENT, shapes.text(error))
            except TooManyBytes as error:
                await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, shapes.text(error))
            finally:
                self._open -= 1

        return grpc.stream_stream_rpc_method_handler(handle)

    async def until_closing(self, timeout_s: float) -> bool:
        """Wait so long at most; whether the server stops."""
        try:
            await asyncio.wait_for(self.closing.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _next(self, call: Any, reception: Reception) -> bytes | None:
        async with reception.place(call, time.monotonic() + self._silence_s):
            return await self._read(call)

    async def _read(self, call: Any) -> bytes | None:
        reading = asyncio.ensure_future(call.read())
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait(
                {reading, closing},
                timeout=self._silence_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not reading.done():
                return None
            message = reading.result()
        finally:
            reading.cancel()
            closing.cancel()
        if not isinstance(message, bytes):  # the end
            return None
        if len(message) > _LARGEST_MESSAGE_BYTES:
            raise InvalidBody(f"The message has more than {_LARGEST_MESSAGE_BYTES} bytes.")
        return message
