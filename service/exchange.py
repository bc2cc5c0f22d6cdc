"""One request on its way, as its observers see it: who asked for what, and when what was done.

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

from service.errors import TooManyBytes

_CLIENT_GONE = 499


class Budget:
    """Bytes of bodies that all requests together may hold. Event loop only."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class Exchange:
    """What is known of a request; filled in by the gate, the route and the batcher."""

    # Of the class until they are set: a request is made once for each of millions.
    body_bytes = 0
    route = ""  # a template of the server's own, never a path as it was sent
    model = ""  # only once it was found: a name that exists
    version = 0
    rows = 0
    rows_in_batch = 0
    error = ""  # the code of the error that was answered
    status = _CLIENT_GONE  # until an answer begins
    read = decoded = free = ran = computed = answered = encoded = finished = 0.0

    def __init__(self, request_id: str, budget: Budget | None = None) -> None:
        self.request_id = request_id
        self.budget = budget
        self.started = time.monotonic()

    def hold(self, size: int) -> None:
        """Count `size` more bytes of the body against the budget.

        Raises:
            TooManyBytes: the other requests leave no room for them.
        """
        budget = self.budget
        if budget is not None:
            # A lone request may be larger than the budget: its own limit is another setting.
            if budget.held + size > budget.limit and budget.held > self.body_bytes:
                raise TooManyBytes("The requests under way hold too much memory.", retry_after_s=1)
            budget.held += size
        self.body_bytes += size

    def release(self) -> None:
        """Give the budget its bytes back."""
        if self.budget is not None:
            self.budget.held -= self.body_bytes
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

    def timing(self) -> bytes:
        """The stages in milliseconds, as the header Server-Timing has them (W3C Server Timing)."""
        spans = ((name, 1000 * (end - begin)) for name, begin, end in self.stages())
        return ", ".join(f"{name};dur={ms:.3f}" for name, ms in spans).encode()

    def run(self, free: float, ran: float, computed: float, rows_in_batch: int) -> None:
        """Told by the batcher, in whatever thread the batch ran."""
        decoded = self.decoded
        self.free = free = free if free > decoded else decoded
        self.ran = ran if ran > free else free
        self.computed = computed
        self.rows_in_batch = rows_in_batch
