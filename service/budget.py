"""One account of the memory that requests make a process hold.

    bodies             from the first byte that is announced to the answer
    what is made       pictures in pixels x bytes x copies, tensors, parsed JSON, answers
    unread answers     whole, until their last byte has left
    connections        what has come and is not looked at yet: heads in pieces, what is piled up
    messages of gRPC   a part is set aside in which they arrive; then they are bodies

Whoever holds something takes its bytes before they are there and gives them back once: a request
by its `Exchange`, a connection by its `Account`, a call of gRPC by both.

    up to 7/8 of the limit   anything
    the last eighth          small requests alone, so that large ones never crowd them out
    beyond                   503 `too_many_bytes` with Retry-After; a lone request may take more
                             than there is: its own limits are other settings
"""

from __future__ import annotations

import threading

from service.errors import TooManyBytes

# A request that holds so little may have the reserve.
SMALL_BYTES = 64 * 1024
_RESERVE = 8  # one in so many bytes
_RETRY_S = 1


class Budget:
    """Bytes that all requests together may hold.

    `held`: in use now. `most`: since it was last set. `limit`: the setting. `aside`: of that, for
    what cannot be counted singly.
    """

    __slots__ = ("aside", "held", "limit", "lock", "most")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = self.most = self.aside = 0
        # A request holds it while it changes what it counts: one that ends on the event loop may
        # still be counting in another thread.
        self.lock = threading.RLock()

    def take(self, size: int, own: int = 0) -> None:
        """Count `size` more bytes of a request that holds `own` already; in any thread.

        Raises:
            TooManyBytes: the others leave no room for them.
        """
        with self.lock:
            held = self.held + size
            if held + self.aside > self.limit >> 1 and not self._fits(size, own):
                raise TooManyBytes(
                    "The requests under way hold too much memory.", retry_after_s=_RETRY_S
                )
            self.held = held
            if held > self.most:
                self.most = held

    def give(self, size: int) -> None:
        """Count `size` bytes no longer, or more if it is negative, whatever room there is."""
        with self.lock:
            self.held -= size
            self.most = max(self.most, self.held)

    def set_aside(self, size: int) -> None:
        """Keep `size` bytes for what arrives before its size is known."""
        self.aside += size

    @property
    def full(self) -> bool:
        """Whether there is no room for anything."""
        return self.held >= self.limit - self.aside

    def _fits(self, size: int, own: int) -> bool:
        """Whether one that holds `own` may take `size` more, if that is not less than before."""
        return size <= 0 or self.held <= own or self.held + size <= self._room(size + own)

    def _room(self, size: int) -> int:
        free = self.limit - self.aside
        return free if size <= SMALL_BYTES else free - free // _RESERVE


class Account:
    """What one holder has taken of a budget; used on the event loop only.

    Args:
        budget: None to count nothing.
    """

    __slots__ = ("_budget", "held")

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self.held = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes in all. Raises TooManyBytes; then it holds what it held."""
        if self._budget is not None and size != self.held:
            self._budget.take(size - self.held, self.held)
            self.held = size

    def owe(self, size: int) -> None:
        """The same for what is there already and cannot be refused."""
        if self._budget is not None and size != self.held:
            self._budget.give(self.held - size)
            self.held = size
