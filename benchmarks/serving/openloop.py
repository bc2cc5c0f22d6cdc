"""An open-loop client: requests leave at their appointed times, answered or not.

A client that waits for an answer before it asks again is slowed down by the server that it
measures, and the requests that it then does not send are missing from its percentiles
(coordinated omission). Here request k of a stream is due at k / rate:

    lag       sent for or queued - due     how far this process itself was behind its schedule
    latency   answer complete - due        of each status by itself

A request that is due finds an idle connection, or opens one, or waits for one (which counts as
latency) once `connections` are open. Without a rate, a stream is a closed loop over its
connections, to measure a capacity.

`python -m benchmarks.serving.openloop` is the client as a process: a plan as JSON on stdin, the
result as JSON on stdout. One thread, one epoll: about 25 microseconds a request.
"""

from __future__ import annotations

import json
import math
import random
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_GRACE_S = 35.0
_READ_BYTES = 256 * 1024


@dataclass(frozen=True)
class Stream:
    """Requests of one kind. `requests` are files with whole HTTP requests, sent in turn.

    `rate`: requests a second; 0 for a closed loop. `poisson`: at random moments (request k is due
    after k waits drawn from an exponential distribution), as from many clients.
    """

    name: str
    requests: tuple[str, ...]
    rate: float
    connections: int
    poisson: bool = False


@dataclass(frozen=True)
class Times:
    """Of the answers of one status, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass
class Outcome:
    """What a stream met with.

    `answers`: by status; 0 stands for connections that broke. `unanswered`: when all was over.
    `without_retry_after`: answers of 503 that do not say when to come back.
    """

    sent: int
    seconds: float
    answers: dict[int, Times] = field(default_factory=dict)
    unanswered: int = 0
    without_retry_after: int = 0
    lag_p99_ms: float = 0.0
    lag_max_ms: float = 0.0

    def count(self, status: int) -> int:
        return self.answers[status].count if status in self.answers else 0


def percentile(values: list[float], share: float) -> float:
    """The nearest rank of sorted values; 0.0 of none."""
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if values else 0.0


def run(port: int, streams: list[Stream], seconds: float) -> dict[str, Outcome]:
    """Drive a server of 127.0.0.1 from a process of its own."""
    with start(port, streams, seconds) as process:
        return finish(process)


def start(port: int, streams: list[Stream], seconds: float) -> subprocess.Popen[bytes]:
    """The process, at work; `finish` has its result."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    plan = {"port": port, "seconds": seconds, "streams": [asdict(s) for s in streams]}
    process.stdin.write(json.dumps(plan).encode())
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[bytes]) -> dict[str, Outcome]:
    """Raises RuntimeError if the client itself failed."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the client failed; its reason stands above")
    found: dict[str, Any] = json.loads(out)
    return {name: _outcome(row) for name, row in found.items()}


def _outcome(row: dict[str, Any]) -> Outcome:
    answers = {int(status): Times(**times) for status, times in row.pop("answers").items()}
    return Outcome(**row, answers=answers)


class _Connection:
    __slots__ = ("due", "rest", "seen", "socket", "stream")

    def __init__(self, open_socket: socket.socket, stream: _Traffic) -> None:
        self.socket = open_socket
        self.stream = stream
        self.due = 0.0
        self.rest: memoryview | None = None  # of a request that did not fit the socket's buffer
        self.seen = b""


class _Traffic:
    """A stream on its way."""

    def __init__(self, stream: Stream) -> None:
        self.plan = stream
        self.requests = [Path(name).read_bytes() for name in stream.requests]
        self.idle: list[_Connection] = []
        self.open = 0
        self.waiting: deque[float] = deque()
        self.busy = 0
        self.made = 0
        self.due = 0.0  # of the next request, since the beginning
        self._chance = random.Random(stream.name)
        self.sent = 0
        self.lags: list[float] = []
        self.took: dict[int, list[float]] = {}
        self.counts: Counter[str] = Counter()

    def plan_next(self) -> None:
        """Request k is due at k / rate, or a random wait after the one before."""
        self.made += 1
        rate = self.plan.rate
        if self.plan.poisson:
            self.due += self._chance.expovariate(rate)
        else:
            self.due = self.made / rate


class Client:
    """The loop."""

    def __init__(self, port: int, streams: list[Stream], seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._traffic = [_Traffic(stream) for stream in streams]

    def run(self) -> dict[str, Outcome]:
        begun = time.perf_counter()
        end = begun + self._seconds
        for traffic in self._traffic:
            if not traffic.plan.rate:
                for _ in range(traffic.plan.connections):
                    self._send_or_wait(traffic, begun)
        while True:
            now = time.perf_counter()
            if now < end:
                next_due = self._send_due(begun, now)
            elif not any(t.busy or t.waiting for t in self._traffic) or now > end + _GRACE_S:
                break
            else:
                next_due = now + 0.1
            wait_s = max(0.0, min(next_due, now + 0.1) - time.perf_counter())
            for number, mask in self._poll.poll(wait_s):
                connection = self._connections.get(number)
                if connection is not None:
                    self._handle(connection, mask, end)
        for connection in self._connections.values():
            connection.socket.close()
        return {t.plan.name: self._sum_up(t) for t in self._traffic}

    def _send_due(self, begun: float, now: float) -> float:
        """Send what is due; when the next one will be."""
        soonest = now + 0.1
        for traffic in self._traffic:
            if not traffic.plan.rate:
                continue
            while (due := begun + traffic.due) <= now:
                traffic.plan_next()
                traffic.lags.append(time.perf_counter() - due)
                self._send_or_wait(traffic, due)
            soonest = min(soonest, due)
        return soonest

    def _send_or_wait(self, traffic: _Traffic, due: float) -> None:
        if traffic.idle:
            self._send(traffic.idle.pop(), due)
        elif traffic.open < traffic.plan.connections:
            try:
                made = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            except OSError:
                traffic.sent += 1
                self._note(traffic, 0, due)
                return
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(made, traffic)
            self._connections[made.fileno()] = connection
            self._poll.register(made.fileno(), select.EPOLLIN)
            traffic.open += 1
            self._send(connection, due)
        else:
            traffic.waiting.append(due)

    def _send(self, connection: _Connection, due: float) -> None:
        traffic = connection.stream
        request = traffic.requests[traffic.sent % len(traffic.requests)]
        traffic.sent += 1
        traffic.busy += 1
        connection.due = due
        connection.rest = memoryview(request)
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        assert connection.rest is not None
        try:
            sent = connection.socket.send(connection.rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(connection)
            return
        wanted = select.EPOLLIN
        if sent < len(connection.rest):
            connection.rest = connection.rest[sent:]
            wanted |= select.EPOLLOUT
            self._poll.modify(connection.socket.fileno(), wanted)
        else:
            connection.rest = None

    def _handle(self, connection: _Connection, mask: int, end: float) -> None:
        if mask & select.EPOLLOUT and connection.rest is not None:
            self._write(connection)
            if connection.rest is None and connection.socket.fileno() >= 0:
                self._poll.modify(connection.socket.fileno(), select.EPOLLIN)
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(connection)
            return
        seen = connection.seen = connection.seen + data if connection.seen else data
        head_end = seen.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = seen[:head_end].lower()
        if len(seen) < head_end + 4 + _length(head):
            return
        self._answered(connection, int(head[9:12]), head, end)

    def _answered(self, connection: _Connection, status: int, head: bytes, end: float) -> None:
        traffic = connection.stream
        traffic.busy -= 1
        connection.seen = b""
        self._note(traffic, status, connection.due)
        if status == 503 and b"\r\nretry-after:" not in head:
            traffic.counts["without_retry_after"] += 1
        # An answer that came before all of the request was sent leaves the rest to be sent.
        if b"\r\nconnection: close" in head or connection.rest is not None:
            self._forget(connection)
            self._go_on(traffic, end)
            return
        if traffic.waiting:
            self._send(connection, traffic.waiting.popleft())
        elif not traffic.plan.rate and (now := time.perf_counter()) < end:
            self._send(connection, now)
        else:
            traffic.idle.append(connection)

    def _lose(self, connection: _Connection) -> None:
        """The connection broke: an idle one may, the others count."""
        traffic = connection.stream
        if connection in traffic.idle:
            traffic.idle.remove(connection)
        else:
            traffic.busy -= 1
            self._note(traffic, 0, connection.due)
        self._forget(connection)
        self._go_on(traffic, 0.0)

    def _go_on(self, traffic: _Traffic, end: float) -> None:
        """In the place of a connection that is gone."""
        if traffic.waiting:
            self._send_or_wait(traffic, traffic.waiting.popleft())
        elif not traffic.plan.rate and (now := time.perf_counter()) < end:
            self._send_or_wait(traffic, now)

    def _forget(self, connection: _Connection) -> None:
        self._connections.pop(connection.socket.fileno(), None)
        connection.socket.close()  # which also takes it out of the epoll
        connection.stream.open -= 1

    def _note(self, traffic: _Traffic, status: int, due: float) -> None:
        traffic.took.setdefault(status, []).append(time.perf_counter() - due)

    def _sum_up(self, traffic: _Traffic) -> Outcome:
        lags = sorted(traffic.lags)
        answers = {}
        for status, took in sorted(traffic.took.items()):
            took.sort()
            answers[status] = Times(
                len(took),
                percentile(took, 0.5) * 1e3,
                percentile(took, 0.99) * 1e3,
                took[-1] * 1e3,
            )
        return Outcome(
            traffic.sent + len(traffic.waiting),
            self._seconds,
            answers,
            traffic.busy + len(traffic.waiting),
            traffic.counts["without_retry_after"],
            percentile(lags, 0.99) * 1e3,
            lags[-1] * 1e3 if lags else 0.0,
        )


def _length(head: bytes) -> int:
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        raise ValueError("an answer without Content-Length")
    return int(head[start + 17 :].split(b"\r\n", 1)[0])


def main() -> None:
    plan = json.load(sys.stdin)
    streams = [Stream(**{**s, "requests": tuple(s["requests"])}) for s in plan["streams"]]
    found = Client(plan["port"], streams, plan["seconds"]).run()
    json.dump({name: asdict(outcome) for name, outcome in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
