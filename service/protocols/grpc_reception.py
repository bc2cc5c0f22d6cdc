"""Messages of gRPC, read a few at a time: how large one is shows only while it comes.

A call is begun by its metadata, and the library holds 64 KiB of its message until it is asked for
it. Then all of it comes, up to the largest that is taken. So as many are asked for as a part of the
budget holds of that size, and that part is set aside for them:

    places    the part / the largest message, at least one
    waiting   first come, first served; but of one address never all places, if there are several
    a message that does not come in time gives its place back

A small message is there already, and takes its place for a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.budget import Budget
from service.connections.places import network
from service.errors import BodyTimeout, InvalidBody, TooManyBytes

_PART = 4  # one byte of the budget in so many
_RETRY_S = 1


class Reception:
    """Used on the event loop only.

    Args:
        places: messages that are read at a time.
        timeout_s: the longest time for one to arrive, and for a place to become free.
    """

    def __init__(self, places: int, timeout_s: float) -> None:
        self.places = places
        self._timeout_s = timeout_s
        self._most_of_one = max(1, places - 1)
        self._taken: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}

    @classmethod
    def of(cls, budget: Budget, largest: int, timeout_s: float) -> Reception:
        """As many places as a part of the budget holds, which is set aside.

        Args:
            largest: message, in bytes.
        """
        part = budget.limit // _PART
        places = max(1, part // largest)
        budget.set_aside(min(part, places * largest))
        return cls(places, timeout_s)

    async def read(self, call: Any, deadline: float) -> bytes:
        """The message of a call.

        Args:
            deadline: of the call, on the clock of time.monotonic().

        Raises:
            TooManyBytes: no place became free in time.
            BodyTimeout: it did not arrive in time.
            InvalidBody: there is none.
        """
        async with self.place(call, deadline):
            # Not cancelled: the library would still be at it. It ends with the call.
            reading = asyncio.ensure_future(call.read())
            reading.add_done_callback(seen)
            await asyncio.wait({reading}, timeout=self._left(deadline))
            if not reading.done():
                raise BodyTimeout("The message did not arrive in time.")
            message = reading.result()
        if not isinstance(message, bytes):
            raise InvalidBody("The call has no message.")
        return message

    @asynccontextmanager
    async def place(self, call: Any, deadline: float) -> AsyncIterator[None]:
        """A place for what the block reads of a call. Raises TooManyBytes."""
        whose = network(address(call.peer()))
        await self._enter(whose, deadline)
        try:
            yield
        finally:
            self._leave(whose)

    def _left(self, deadline: float) -> float:
        return max(0.0, min(self._timeout_s, deadline - time.monotonic()))

    def _free(self, address: str) -> bool:
        return self._taken.total() < self.places and self._taken[address] < self._most_of_one

    async def _enter(self, address: str, deadline: float) -> None:
        if not self._free(address):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[turn] = address
            try:
                await asyncio.wait({turn}, timeout=self._left(deadline))
            except BaseException:
                if turn.done():  # the place that it was given is the next one's
                    self._leave(address)
                raise
            finally:
                self._waiting.pop(turn, None)
            if not turn.done():
                raise TooManyBytes("Too many messages arrive at a time.", retry_after_s=_RETRY_S)
            return
        self._taken[address] += 1

    def _leave(self, address: str) -> None:
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]
        for turn, whose in self._waiting.items():
            if not turn.done() and self._free(whose):
                self._taken[whose] += 1
                turn.set_result(None)
                return


def seen(reading: asyncio.Future[Any]) -> None:
    """That the call has ended before is no news to anybody."""
    if not reading.cancelled():
        reading.exception()


def address(peer: str) -> str:
    """`ipv4:192.0.2.1:5` or `ipv6:%5B2001:db8::1%5D:5`: the address in it."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return host if kind in {"ipv4", "ipv6"} else peer.replace(":", " ")
