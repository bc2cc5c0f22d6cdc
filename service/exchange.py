"""The record of one request, for its observers: what was asked for, and when what was done.

    started    the headers were complete
    read       the body was complete
    decoded    the tensors passed the check of the signature
    free       the runner that took it had nothing else to do (or it arrived later)
    ran        its batch began to run
    computed   its batch was done
    encoded    the answer was written
    finished   the answer was sent

All on the clock of time.monotonic(), in seconds; 0.0 for what was not reached. Between them
lie the stages that metrics and traces show:

    decode = decoded - read        queue  = free - decoded       batch wait = ran - free
    compute = computed - ran       encode = encoded - answered (back on the event loop)
"""

from __future__ import annotations

import time

from service.batching.limits import Ran
from service.budget import SMALL_BYTES, Budget

_CLIENT_GONE = 499

# Answers from here on are counted in the budget of all requests.
COUNTED_BYTES = SMALL_BYTES

# Of a request that does not say how urgent it is; smaller numbers are served before larger ones.
USUAL_PRIORITY = 2


class Exchange:
    """The record of a request; filled in by the gate, the route and the batcher."""

    # Defaults stand in the class until they are set: that is cheaper for each request.
    body_bytes = 0
    # Beyond those, of what was made for it: a picture while it is decoded, tensors, the answer.
    made_bytes = 0
    route = ""  # a template of the server's own, never a path as it was sent
    model = ""  # only once it was found: a name that exists
    version = 0
    rows = 0
    priority = USUAL_PRIORITY
    batch: Ran | None = None  # told by the batcher, in whatever thread it ran
    error = ""  # the code of the error that was answered
    status = _CLIENT_GONE  # until an answer begins
    read = decoded = answered = encoded = finished = 0.0

    def __init__(self, request_id: str, budget: Budget | None = None) -> None:
        self.request_id = request_id
        self.budget = budget
        self.started = time.monotonic()

    def hold(self, size: int) -> None:
        """Count `size` more bytes of the body against the budget.

        Raises:
            TooManyBytes: the other requests leave no room for them.
        """
        if self.budget is not None:
            self.budget.take(size, self.body_bytes + self.made_bytes)
        self.body_bytes += size

    def expect(self, size: int) -> None:
        """Count an answer of `size` bytes that is made while what it is made of is still there.

        In any thread; an answer that is not large does not count.

        Raises:
            TooManyBytes: the other requests, and answers that are not read, leave no room for it.
        """
        if size > COUNTED_BYTES and size > self.body_bytes + self.made_bytes:
            self.make(size)

    def answer(self, size: int) -> None:
        """Count an answer of `size` bytes in place of what it was made of.

        Raises:
            TooManyBytes: as `expect`.
        """
        if size > COUNTED_BYTES or self.made_bytes:
            self.make(size)

    def make(self, size: int) -> None:
        """Count `size` bytes that are to be made for the request, in place of those before.

        What is made of a body takes its place, so only what is larger than the body counts. In
        any thread; what is made for a request that is over counts no more.

        Raises:
            TooManyBytes: the other requests leave no room for them.
        """
        budget = self.budget
        if budget is None:
            return
        with budget.lock:
            if self.budget is not None:
                size = max(0, size - self.body_bytes)
                budget.take(size - self.made_bytes, self.body_bytes + self.made_bytes)
                self.made_bytes = size

    def release(self) -> None:
        """Give the budget its bytes back."""
        budget = self.budget
        if budget is None:
            return
        with budget.lock:
            budget.held -= self.body_bytes + self.made_bytes
            self.budget = None

    def stages(self) -> list[tuple[str, float, float]]:
        """(name, begin, end) of the stages that the request reached."""
        stages = [
            ("decode", self.read, self.decoded),
            ("queue", self.decoded, self.free),
            ("batch_wait", self.free, self.ran),
            ("compute", self.ran, self.computed),
            ("encode", self.answered, self.encoded),
        ]
        return [stage for stage in stages if stage[1] and stage[2]]

    def timing_header(self) -> tuple[bytes, bytes]:
        """The stages in milliseconds, for who asks by X-Server-Timing (W3C Server Timing)."""
        spans = ((name, 1000 * (end - begin)) for name, begin, end in self.stages())
        text = ", ".join(f"{name};dur={ms:.3f}" for name, ms in spans)
        return b"server-timing", text.encode()

    @property
    def rows_in_batch(self) -> int:
        return 0 if self.batch is None else self.batch.rows

    @property
    def free(self) -> float:
        return 0.0 if self.batch is None else max(self.batch.free, self.decoded)

    @property
    def ran(self) -> float:
        return 0.0 if self.batch is None else max(self.batch.started, self.free)

    @property
    def computed(self) -> float:
        return 0.0 if self.batch is None else self.batch.ended
