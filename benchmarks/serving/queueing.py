"""A queueing simulation of replicas behind a proxy, and how many of them a rate needs.

    arrivals    Poisson, `rate` a second
    proxy       one server in order of arrival, `proxy_s` for each request
    routing     two replicas at random, the one with fewer requests (Ray Serve's policy)
    replica     one runner; when it is free it takes what waits, `max_batch_rows` at most, and
                needs t(n) for n rows, a straight line between the sizes that were measured;
                and `handling_s` for each request: decode, encode, its part of the event loop
    the rest    `rest_s`: time on the way that occupies nobody, drawn from what was measured

With one replica, batches of one and nothing else this is M/D/1, whose mean wait is
r t / (2 (1 - r)) with r = rate t (Pollaczek and Khinchine); a test compares.
"""

from __future__ import annotations

import bisect
import heapq
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.serving.openloop import percentile

_ARRIVAL, _FREE = 0, 1


@dataclass(frozen=True)
class Curve:
    """What was measured of one replica.

    `batch_s`: seconds of a run by its rows. `rest_s`: samples.
    """

    batch_s: Mapping[int, float]
    max_batch_rows: int
    handling_s: float = 0.0
    proxy_s: float = 0.0
    rest_s: Sequence[float] = (0.0,)

    def run_s(self, rows: int) -> float:
        """t(n), for n up to the largest that was measured and, by its slope, beyond."""
        sizes = sorted(self.batch_s)
        if len(sizes) == 1:
            return self.batch_s[sizes[0]] * rows / sizes[0]
        at = min(max(bisect.bisect_left(sizes, rows), 1), len(sizes) - 1)
        low, high = sizes[at - 1], sizes[at]
        share = (rows - low) / (high - low)
        return self.batch_s[low] + share * (self.batch_s[high] - self.batch_s[low])

    @property
    def capacity(self) -> float:
        """Requests of one row that a replica can answer in a second, if it never waits."""
        most = self.max_batch_rows
        return most / (self.run_s(most) + most * self.handling_s)

    def lone_s(self, share: float) -> float:
        """That percentile of a request which meets no other."""
        known = self.proxy_s + self.handling_s + self.run_s(1)
        return known + percentile(sorted(self.rest_s), share)


@dataclass
class _Replica:
    waiting: deque[float] = field(default_factory=deque)
    running: list[float] = field(default_factory=list)

    @property
    def ongoing(self) -> int:
        return len(self.waiting) + len(self.running)


def simulate(
    curve: Curve, replicas: int, rate: float, requests: int = 20_000, seed: int = 0
) -> list[float]:
    """The sorted latencies in seconds; the first tenth, while queues fill, is left out."""
    chance = random.Random(seed)
    servers = [_Replica() for _ in range(replicas)]
    events: list[tuple[float, int, int, float]] = []
    now = proxy_free = 0.0
    for _ in range(requests):
        now += chance.expovariate(rate)
        proxy_free = max(proxy_free, now) + curve.proxy_s
        events.append((proxy_free, _ARRIVAL, 0, now))
    heapq.heapify(events)
    done: list[tuple[float, float]] = []  # arrival, latency
    while events:
        at, kind, index, arrived = heapq.heappop(events)
        if kind == _ARRIVAL:
            pair = chance.sample(range(replicas), 2) if replicas > 1 else [0]
            index = min(pair, key=lambda i: servers[i].ongoing)
            servers[index].waiting.append(arrived)
        else:
            server = servers[index]
            done += [(due, at - due + chance.choice(curve.rest_s)) for due in server.running]
            server.running = []
        server = servers[index]
        if server.waiting and not server.running:
            rows = min(len(server.waiting), curve.max_batch_rows)
            server.running = [server.waiting.popleft() for _ in range(rows)]
            takes = curve.run_s(rows) + rows * curve.handling_s
            heapq.heappush(events, (at + takes, _FREE, index, 0.0))
    done.sort()
    return sorted(latency for _, latency in done[len(done) // 10 :])


def p99_s(curve: Curve, replicas: int, rate: float, requests: int = 20_000) -> float:
    """The 99th percentile; infinite where the queue would grow for ever."""
    if rate >= replicas * curve.capacity or rate * curve.proxy_s >= 1:
        return math.inf
    return percentile(simulate(curve, replicas, rate, requests), 0.99)


def replicas_for(curve: Curve, rate: float, goal_s: float, most: int = 1000) -> int | None:
    """The least number whose simulated 99th percentile is within the goal; None if none is."""
    if curve.lone_s(0.99) > goal_s:
        return None
    low = max(1, math.ceil(rate / curve.capacity))
    high = low
    while p99_s(curve, high, rate) > goal_s:
        if high >= most or rate * curve.proxy_s >= 1:
            return None
        low, high = high + 1, min(most, high * 2)
    while low < high:
        middle = (low + high) // 2
        if p99_s(curve, middle, rate) <= goal_s:
            high = middle
        else:
            low = middle + 1
    return high
