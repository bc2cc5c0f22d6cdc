"""Our service with clocks, for `profile.py`, which starts it.

It runs as always, but for an observer that adds up the times which each request already keeps
(`service/exchange.py`), and clocks around what a connection is told, and around onnxruntime's
run. The sums are written when it ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FILE = "SERVING_BENCH_STAGES"  # the variable that says where the sums go
RESET = "reset-stages"  # the query of a request from which they begin anew

# What the time of a request consists of, in its order.
STAGES = {
    "parse": "parse the head, find the route",
    "read": "gate, limits, the body",
    "decode": "decode and check",
    "queue": "queue: every runner is busy",
    "batch_wait": "wait: for the start of the batch",
    "run": "onnxruntime's run",
    "batch": "join, split, hand over",
    "back": "back to the event loop",
    "encode": "encode",
    "write": "write, count",
}


class Stages:
    """An observer of the service: sums, written as JSON when it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.inside = False
        self.received_s = self.ran_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self.received_s = self.ran_s = 0.0
        self._count = 0
        self._sums = dict.fromkeys((*STAGES, "share", "rows", "inside"), 0.0)

    def __call__(self, exchange: Any, scope: Any) -> None:
        if scope.get("query_string") == RESET.encode():
            self._begin()
        if not exchange.computed or not exchange.encoded:
            return
        sums = self._sums
        self._count += 1
        sums["read"] += exchange.read - exchange.started
        sums["decode"] += exchange.decoded - exchange.read
        sums["queue"] += exchange.free - exchange.decoded
        sums["batch_wait"] += exchange.ran - exchange.free
        computed = exchange.computed - exchange.ran
        sums["run"] += computed
        sums["share"] += computed / max(exchange.rows_in_batch, 1)
        sums["back"] += exchange.answered - exchange.computed
        sums["encode"] += exchange.encoded - exchange.answered
        sums["write"] += exchange.finished - exchange.encoded
        sums["rows"] += exchange.rows_in_batch
        if getattr(exchange, "inside", False):
            sums["inside"] += exchange.decoded - exchange.started

    def close(self) -> None:
        found = {"count": self._count, "received_s": self.received_s, "ran_s": self.ran_s}
        self._path.write_text(json.dumps(found | self._sums), encoding="utf-8")


def _instrument(stages: Stages) -> None:
    """Clocks around the connection's bytes and onnxruntime's run; the observer among others."""
    from service import assembly, exchange
    from service.connections import connection
    from service.models import runtime

    clock = time.perf_counter
    observers = assembly.observers
    assembly.observers = lambda *args: [*observers(*args), stages]  # type: ignore[list-item]

    received = connection.Connection.data_received

    def data_received(self: Any, data: bytes) -> None:
        stages.inside, began = True, clock()
        try:
            received(self, data)
        finally:
            stages.received_s += clock() - began
            stages.inside = False

    connection.Connection.data_received = data_received  # type: ignore[method-assign]

    opened = exchange.Exchange.__init__

    def begin_record(self: Any, *args: Any, **named: Any) -> None:
        opened(self, *args, **named)
        self.inside = stages.inside

    exchange.Exchange.__init__ = begin_record  # type: ignore[method-assign]

    run = runtime.Runtime.run

    def timed(self: Any, *args: Any, **named: Any) -> Any:
        began = clock()
        try:
            return run(self, *args, **named)
        finally:
            stages.ran_s += clock() - began

    runtime.Runtime.run = timed  # type: ignore[method-assign]


def _serve(words: list[str]) -> int:
    from service.__main__ import main as service

    _instrument(Stages(Path(os.environ[FILE])))
    return service(words)


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1:]))
