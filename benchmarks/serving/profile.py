"""Where each microsecond of a prediction goes, inside our own service.

    python -m benchmarks.serving.profile              # into docs/serving.md
    python -m benchmarks.serving.profile --quick      # one second each, into .cache/serving

Each case has a service of its own, with the clocks of `stages.py`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import document
from benchmarks.serving import client
from benchmarks.serving.models import models
from benchmarks.serving.peer import Model, Peer, Request
from benchmarks.serving.peers import foldserve
from benchmarks.serving.running import Server, free_ports
from benchmarks.serving.stages import FILE, RESET, STAGES
from benchmarks.serving.table import DOCUMENT, PREFACE

COMMAND = "python -m benchmarks.serving.profile"
ROOT = Path(__file__).parents[2]

# Model, format, clients, seconds.
CASES = (
    ("digits", "json", 1, 3),
    ("digits", "json", 32, 3),
    ("digits", "v2-binary", 32, 3),
    ("mlp", "json", 32, 3),
    ("mlp", "v2-binary", 32, 3),
    ("resnet18", "v2-binary", 1, 4),
    ("resnet18", "v2-binary", 8, 6),
    ("resnet18", "json", 8, 6),
)

_WAITING = ("queue", "batch_wait", "back")


_AROUND_S = 3.0  # start, warm-up, end


@dataclass(frozen=True)
class Profile:
    """One case, means in microseconds.

    `seen`: stages as a request sees them. `costs`: what it takes of the processor, a run shared
    among the rows of its batch; waiting is none. `cpu`: of the process, for one request.
    """

    name: str
    seen: dict[str, float]
    costs: dict[str, float]
    client_p50: float
    cpu: float
    rows: float
    per_second: float

    @property
    def total(self) -> float:
        return sum(self.seen.values())

    @property
    def rest(self) -> float:
        """CPU time in none of the stages: the event loop, the kernel's sockets, other threads."""
        return self.cpu - sum(self.costs.values())


def profile(
    model: Model, route_key: str, connections: int, seconds: int, driver: Any, folder: Path
) -> Profile:
    """Serve, drive, stop, read the sums."""
    sums = folder / "stages.json"
    sums.unlink(missing_ok=True)
    ours = foldserve.PEER
    peer: Peer = replace(
        ours,
        command=("-m", "benchmarks.serving.stages", *ours.command[2:]),
        environment={FILE: str(sums)},
    )
    route = next(route for route in ours.routes if route.key == route_key)
    with Server(peer, Path(sys.executable), model, free_ports(), folder) as server:
        request = server.request(route)
        for _ in range(20):
            client.ask(server.port, request)
        client.ask(server.port, Request(f"/health/live?{RESET}", {}, b""))
        before_s = server.cpu_s()
        driven = server.drive(driver, route, connections, seconds)
        cpu = 1e6 * (server.cpu_s() - before_s) / max(driven.requests, 1)
    if driven.errors:
        raise SystemExit(f"{model.name} {route_key}: errors {driven.errors}")
    found = json.loads(sums.read_text(encoding="utf-8"))
    name = f"{model.name}, {route_key}, {connections}"
    return summed(name, found, driven.p50_ms * 1e3, cpu, driven.per_second)


def seconds() -> float:
    """How long all of it takes, about."""
    return sum(case[3] + _AROUND_S for case in CASES)


def summed(
    name: str, found: dict[str, float], client_p50: float, cpu: float, per_second: float
) -> Profile:
    """Means of the sums that `Stages` wrote."""
    count = max(found["count"], 1)
    seen = {stage: 1e6 * found.get(stage, 0.0) / count for stage in STAGES}
    # What enters while the connection is told of bytes is in its time, up to the batch.
    seen["parse"] = max(0.0, 1e6 * (found["received_s"] - found["inside"]) / count)
    share = 1e6 * found["share"] / count
    # Of a batch's time the run of onnxruntime, and what is around it.
    run = min(1.0, found["ran_s"] / found["share"]) if found["share"] else 0.0
    computed = seen["run"]
    seen["run"], seen["batch"] = computed * run, computed * (1 - run)
    costs = {stage: 0.0 if stage in _WAITING else value for stage, value in seen.items()}
    costs["run"], costs["batch"] = share * run, share * (1 - run)
    return Profile(name, seen, costs, client_p50, cpu, found["rows"] / count, per_second)


def text(found: Sequence[Profile]) -> str:
    """Both tables."""
    # A large model's work is done by several threads, and the loop's clocks say little about it.
    small = [profile for profile in found if not profile.name.startswith("resnet")]
    return "\n\n".join([
        "Format and clients in the heads; microseconds, means over all requests. What one request "
        "sees:",
        _table(found, [
            *_rows(found, lambda profile: profile.seen),
            ["**inside the service**", *(_us(p.total) for p in found)],
            ["p50 at the client", *(_us(p.client_p50) for p in found)],
            ["CPU time of the process", *(_us(p.cpu) for p in found)],
            ["rows in its batch", *(f"{p.rows:.1f}" for p in found)],
            ["requests/s", *(f"{p.per_second:,.0f}" for p in found)],
        ]),
        "What one request of a small model costs of the processor: waiting costs nothing, and a "
        "run is shared by the rows of its batch. The rest is the event loop itself, and the "
        "system's sockets:",
        _table(small, [
            *_rows(small, lambda profile: profile.costs),
            ["the rest", *(_us(p.rest) for p in small)],
            ["**CPU time of the process**", *(_us(p.cpu) for p in small)],
        ]),
    ])  # fmt: skip


def _table(found: Sequence[Profile], rows: list[list[object]]) -> str:
    return document.table(["", *(profile.name for profile in found)], rows, " " + "r" * len(found))


def _rows(
    found: Sequence[Profile], of: Callable[[Profile], dict[str, float]]
) -> list[list[object]]:
    return [
        [says, *(_us(of(profile)[stage]) for profile in found)]
        for stage, says in STAGES.items()
        if any(of(profile)[stage] for profile in found)
    ]


def _us(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one second for each case")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "serving")
    parser.add_argument("--document", type=Path, help="default: docs/serving.md, or a trial's")
    args = parser.parse_args(words)
    path = args.document or (args.cache / "trial-profile.md" if args.quick else DOCUMENT)
    try:
        driver = client.Wrk()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    # The service has a session of its own: without this it would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    served = models(args.cache / "models")
    found = []
    for name, route, connections, seconds in CASES:
        folder = args.cache / "logs" / "profile"
        seconds = 1 if args.quick else seconds
        made = profile(served[name], route, connections, seconds, driver, folder)
        found.append(made)
        print(f"{made.name}: {made.total:,.0f} us inside, {made.cpu:,.0f} us CPU", flush=True)
    document.write(path, COMMAND, text(found), PREFACE)
    print(path)


if __name__ == "__main__":
    main()
