"""How many replicas a rate needs: measured curves of one replica, and a queueing simulation.

    python -m benchmarks.serving.capacity [--seconds 10] [--try]
    python -m benchmarks.serving.capacity --rate 800 --p99-ms 150     from the last measurement

1. One replica on Ray with one CPU: a lone connection asks for n = 1, 2, 4, 8 rows. Of each, t(n) is
   the mean of the service's own `foldserve_compute_seconds`; what else the replica and the proxy
   work for a request of one row is their CPU time; the rest of the latency is time on the way.
2. `queueing` simulates one and two replicas with these numbers under Poisson arrivals.
3. The same is measured, open loop with Poisson arrivals: on one replica, and on two.
4. With the model so checked, the replicas for a rate and a 99th percentile.

About two and a half minutes. Writes the block of docs/cluster.md and results/capacity.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import document
from benchmarks.serving import openloop, queueing, subjects, tree
from benchmarks.serving.openloop import Stream, percentile
from benchmarks.serving.queueing import Curve
from benchmarks.serving.target import Target

COMMAND = "python -m benchmarks.serving.capacity"
RESULTS = Path(__file__).parent / "results" / "capacity.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
SIZES = (1, 2, 4, 8)
# Shares of what the replicas could do: one replica, then two.
LOADS = {1: (0.3, 0.5, 0.7), 2: (0.3, 0.5)}
RATES = (10, 50, 100, 500, 1000)
# Goals for the 99th percentile, as multiples of that of a lone request.
GOALS = (1.5, 2.0, 4.0)
_CONNECTIONS = 200
_MODEL = "residual"
_PROXY, _REPLICA = "ray::ProxyActor", "ray::ServeReplica"


@dataclass(frozen=True)
class Check:
    """A load that was measured and simulated; latencies in milliseconds."""

    replicas: int
    load: float
    rate: float
    measured_p50_ms: float
    measured_p99_ms: float
    simulated_p50_ms: float
    simulated_p99_ms: float
    failures: int


def flags(replicas: int) -> tuple[str, ...]:
    """Replicas of one CPU each, a fixed number of them."""
    count = str(replicas)
    return ("--engine", "ray", "--min-replicas", count, "--max-replicas", count)


def _computed(target: Target) -> tuple[float, int]:
    """Sum and count of the compute times so far."""
    page = target.get("/metrics")[1].decode()
    family = rf'foldserve_compute_seconds_%s\{{[^}}]*model="{_MODEL}"[^}}]*\}} (\S+)'
    found = [re.findall(family % what, page) for what in ("sum", "count")]
    return sum(map(float, found[0])), int(sum(map(float, found[1])))


def alone(target: Target, content: bytes, seconds: float) -> list[float]:
    """Latencies in seconds of one connection that asks again and again."""
    head, _, body = content.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    connection = HTTPConnection("127.0.0.1", target.port, timeout=60)
    took = []
    end = time.perf_counter() + seconds
    try:
        while (begun := time.perf_counter()) < end or not took:
            connection.request("POST", lines[0].split()[1], body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"HTTP {answer.status}")
            took.append(time.perf_counter() - begun)
    finally:
        connection.close()
    return took


def curve(target: Target, contents: dict[int, bytes], seconds: float) -> Curve:
    """What one replica needs, measured through the whole way."""
    running = json.loads(target.get(f"/models/{_MODEL}")[1])["running"]
    batch_s = {}
    rest: list[float] = []
    proxy_s = handling_s = 0.0
    for rows, content in contents.items():
        alone(target, content, seconds / 10)
        before = _computed(target), *(_cpu_of(target, kind) for kind in (_PROXY, _REPLICA))
        took = alone(target, content, seconds)
        after = _computed(target), *(_cpu_of(target, kind) for kind in (_PROXY, _REPLICA))
        batch_s[rows] = (after[0][0] - before[0][0]) / (after[0][1] - before[0][1])
        if rows == 1:
            proxy_s = (after[1] - before[1]) / len(took)
            replica_s = (after[2] - before[2]) / len(took)
            handling_s = max(0.0, replica_s - batch_s[1])
            known = proxy_s + handling_s + batch_s[1]
            rest = sorted(max(0.0, each - known) for each in took)
    most = int(running["max_batch_size"])
    return Curve(batch_s, most, handling_s, proxy_s, rest)


def _cpu_of(target: Target, kind: str) -> float:
    """CPU time so far of the processes whose name, as Ray gives it, begins so."""
    pids = tree.below(target.process.pid)
    return sum(tree.cpu_s(pid) for pid in pids if tree.name(pid).startswith(kind))


def check(
    target: Target, made: Curve, file: str, replicas: int, load: float, seconds: float
) -> Check:
    """Measure one load, and simulate it."""
    rate = load * replicas * made.capacity
    stream = Stream(f"{replicas} {load}", (file,), rate, _CONNECTIONS, poisson=True)
    found = openloop.run(target.port, [stream], seconds)[stream.name]
    took = queueing.simulate(made, replicas, rate)
    good = found.answers.get(200)
    return Check(
        replicas, load, rate, good.p50_ms if good else math.inf, good.p99_ms if good else math.inf,
        1e3 * percentile(took, 0.5), 1e3 * percentile(took, 0.99),
        found.sent - found.count(200),
    )  # fmt: skip


def measure(models: Path, folder: Path, shape: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Curve and checks, as JSON can have them."""
    contents = {n: subjects.raw_request(_MODEL, np.zeros((n, *shape), np.float32)) for n in SIZES}
    file = subjects.written(folder, "one", contents[1])
    checks = []
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp") as scratch:
        os.environ["RAY_TMPDIR"] = scratch
        with Target(models, *flags(1)) as target:
            made = curve(target, contents, seconds / 4)
            checks += [check(target, made, file, 1, load, seconds) for load in LOADS[1]]
        with Target(models, *flags(2)) as target:
            for _ in range(2):  # each replica once, at least
                alone(target, contents[1], seconds / 10)
            checks += [check(target, made, file, 2, load, seconds) for load in LOADS[2]]
    return {
        "curve": asdict(made),
        "checks": [asdict(each) for each in checks],
        "seconds": seconds,
        "size": shape[-1],
        "cores": len(os.sched_getaffinity(0)),
    }


def load_curve(row: dict[str, Any]) -> Curve:
    """A curve as it was written."""
    sizes = {int(rows): seconds for rows, seconds in row["batch_s"].items()}
    return Curve(**{**row, "batch_s": sizes})


def text(found: dict[str, Any]) -> str:
    """The block of the document."""
    made = load_curve(found["curve"])
    runs = ", ".join(f"{1e3 * s:.1f} ms for {n}" for n, s in made.batch_s.items())
    checks: list[list[object]] = [
        [
            row["replicas"], f"{row['load']:.0%}", f"{row['rate']:.0f}",
            f"{row['measured_p50_ms']:.0f}", f"{row['simulated_p50_ms']:.0f}",
            f"{row['measured_p99_ms']:.0f}", f"{row['simulated_p99_ms']:.0f}", row["failures"],
        ]
        for row in found["checks"]
    ]  # fmt: skip
    checked = document.table(
        ["replicas", "load", "requests /s", "p50 measured ms", "simulated", "p99 measured ms",
         "simulated", "failures"],
        checks, "rrrrrrrr",
    )  # fmt: skip
    goals = [1e3 * goal * made.lone_s(0.99) for goal in GOALS]
    needed: list[list[object]] = []
    for rate in RATES:
        line: list[object] = [rate]
        for goal in goals:
            count = _needed(made, rate, goal / 1e3)
            line.append("not at any number" if count is None else count)
        needed.append([*line, math.ceil(rate * made.proxy_s / 0.7)])
    table = document.table(
        ["requests /s", *(f"p99 {goal:.0f} ms" for goal in goals), "proxies"], needed, "rrrrr"
    )
    size = found["size"]
    return f"""A replica with one CPU that serves ResNet-18 ({size} x {size}, random weights;
batches of {made.max_batch_rows} at most) runs {runs} rows. For a request of one row it
works another {1e3 * made.handling_s:.1f} ms, its proxy {1e3 * made.proxy_s:.1f} ms,
and a lone request is answered after {1e3 * made.lone_s(0.5):.0f} ms
(p99 {1e3 * made.lone_s(0.99):.0f} ms).

Simulated from that, and measured with Poisson arrivals for {found["seconds"]:g} s each, on
{found["cores"]} cores that the client and the proxy share:

{checked}

Replicas for a rate and a 99th percentile, by the simulation, and the proxies (one a node) whose
CPUs would be busy for 70 % of the time:

{table}
"""


def _needed(made: Curve, rate: float, goal_s: float) -> int | None:
    """As many proxies as it takes share the rate; then they are no queue."""
    free = Curve(made.batch_s, made.max_batch_rows, made.handling_s, 0.0,
                 [each + made.proxy_s for each in made.rest_s])  # fmt: skip
    return queueing.replicas_for(free, rate, goal_s)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--rate", type=float, help="requests a second; measures nothing")
    parser.add_argument("--p99-ms", type=float, default=100.0)
    parser.add_argument("--size", type=int, default=224, help="of the pictures")
    parser.add_argument("--try", action="store_true", dest="trial", help="write nothing")
    args = parser.parse_args()
    if args.rate:
        made = load_curve(json.loads(RESULTS.read_text(encoding="utf-8"))["curve"])
        count = _needed(made, args.rate, args.p99_ms / 1e3)
        print(f"{count} replicas" if count else "not at any number of replicas")
        return 0
    with tempfile.TemporaryDirectory(prefix="capacity-") as name:
        folder = Path(name)
        models = folder / "models"
        subjects.publish(models, _MODEL, subjects.residual(args.size))
        found = measure(models, folder, (3, args.size, args.size), args.seconds)
    made_text = text(found)
    print(made_text)
    if not args.trial:
        RESULTS.write_text(json.dumps(found) + "\n", encoding="utf-8")
        document.write(DOCUMENT, COMMAND, made_text, "# On a Ray cluster\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
