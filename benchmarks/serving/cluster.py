"""What Ray costs: the same models behind the plain service and behind replicas on Ray.

    python -m benchmarks.serving.cluster [--seconds 3] [--rounds 3] [--try]

Four servers are up at the same time and have their turns in every round, each with the same
client (`openloop`, a closed loop of 1 and of 16 connections): one process and two, plain and on
Ray. The CPUs of each are the same two. Medians over the rounds; CPU time is that of all processes
of a server, for a request of 16 connections. About three minutes. Writes the block of
docs/cluster.md and results/cluster.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import document
from benchmarks.serving import openloop, subjects, tree
from benchmarks.serving.openloop import Stream
from benchmarks.serving.target import Target

COMMAND = "python -m benchmarks.serving.cluster"
RESULTS = Path(__file__).parent / "results" / "cluster.jsonl"
DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
CONNECTIONS = (1, 16)
SERVERS = {
    "plain": (),
    "Ray, 1 replica": (
        "--engine", "ray", "--max-replicas", "1", "--cpus-per-replica", "2",
    ),
    "plain, 2 workers": ("--workers", "2"),
    "Ray, 2 replicas": (
        "--engine", "ray", "--min-replicas", "2", "--max-replicas", "2",
    ),
}  # fmt: skip
# The server that a server on Ray is compared to.
BASE = {"Ray, 1 replica": "plain", "Ray, 2 replicas": "plain, 2 workers"}


@dataclass(frozen=True)
class Run:
    """One turn of a server. `cpu_ms`: of all its processes, a request."""

    server: str
    model: str
    connections: int
    round: int
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mb: float


def turn(
    target: Target,
    server: str,
    model: str,
    file: str,
    connections: int,
    seconds: float,
    number: int,
) -> Run:
    """Drive one server for some seconds.

    Raises:
        RuntimeError: an answer was no 200.
    """
    pids = tree.below(target.process.pid)
    before = sum(map(tree.cpu_s, pids))
    stream = Stream("closed", (file,), 0.0, connections)
    found = openloop.run(target.port, [stream], seconds)["closed"]
    used = sum(map(tree.cpu_s, pids)) - before
    if set(found.answers) != {200}:
        raise RuntimeError(f"{server}, {model}: answers {sorted(found.answers)}")
    times = found.answers[200]
    return Run(
        server, model, connections, number, times.count / found.seconds, times.p50_ms,
        times.p99_ms, 1e3 * used / times.count, sum(map(tree.memory_bytes, pids)) / 1e6,
    )  # fmt: skip


def measure(models: Path, files: dict[str, str], seconds: float, rounds: int) -> list[Run]:
    """All servers, in turns.

    Args:
        models: the repository.
        files: the request for each model.
    """
    runs = []
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp"))
        os.environ["RAY_TMPDIR"] = scratch  # short, because sockets lie in it
        targets = {
            name: stack.enter_context(Target(models, *flags)) for name, flags in SERVERS.items()
        }
        for name, target in targets.items():  # the first request opens what was closed
            for model, file in files.items():
                turn(target, name, model, file, 1, min(1.0, seconds), -1)
        for number in range(rounds):
            for model, file in files.items():
                for connections in CONNECTIONS:
                    order = list(targets)
                    runs += [
                        turn(targets[name], name, model, file, connections, seconds, number)
                        for name in order[number % 4 :] + order[: number % 4]
                    ]
    return runs


def middle(runs: list[Run], server: str, model: str, connections: int, what: str) -> float:
    """The median over the rounds."""
    return median(
        getattr(run, what)
        for run in runs
        if (run.server, run.model, run.connections) == (server, model, connections)
    )


def text(runs: list[Run], seconds: float, rounds: int, cores: int) -> str:
    """The block of the document."""
    heads = [
        "model", "server", "1 connection p50 ms", "p99 ms", "16 connections /s", "of plain",
        "p50 ms", "p99 ms", "CPU ms a request", "memory MB",
    ]  # fmt: skip
    lines: list[list[object]] = []
    for model in dict.fromkeys(run.model for run in runs):
        for server in SERVERS:
            rate = middle(runs, server, model, 16, "per_s")
            base = BASE.get(server)
            share = rate / middle(runs, base, model, 16, "per_s") if base else None
            lines.append(
                [
                    model, server,
                    f"{middle(runs, server, model, 1, 'p50_ms'):.2f}",
                    f"{middle(runs, server, model, 1, 'p99_ms'):.2f}",
                    f"{rate:.0f}", "" if share is None else f"{share:.2f}",
                    f"{middle(runs, server, model, 16, 'p50_ms'):.1f}",
                    f"{middle(runs, server, model, 16, 'p99_ms'):.1f}",
                    f"{middle(runs, server, model, 16, 'cpu_ms'):.2f}",
                    f"{middle(runs, server, model, 1, 'memory_mb'):.0f}",
                ]
            )  # fmt: skip
    made = document.table(heads, lines, "--" + "r" * 8)
    added = {
        model: middle(runs, "Ray, 1 replica", model, 1, "p50_ms")
        - middle(runs, "plain", model, 1, "p50_ms")
        for model in dict.fromkeys(run.model for run in runs)
    }
    said = " and ".join(f"{ms:.2f} ms ({model})" for model, ms in added.items())
    return f"""{made}

Medians of {rounds} rounds of {seconds:g} s, on {cores} cores that the client shares: requests of
one row as raw bytes. "of plain" compares with the plain server of as many processes. To a lone
request Ray adds {said} at the median.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--try", action="store_true", dest="trial", help="write nothing")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        folder = Path(name)
        models = folder / "models"
        subjects.digits(models)
        subjects.publish(models, "residual", subjects.residual())
        files = {
            model: subjects.written(
                folder, model, subjects.raw_request(model, np.zeros((1, *shape), np.float32))
            )
            for model, shape in (("digits", (1, 28, 28)), ("residual", (3, 224, 224)))
        }
        runs = measure(models, files, args.seconds, args.rounds)
    made = text(runs, args.seconds, args.rounds, cores)
    print(made)
    if not args.trial:
        rows: list[dict[str, Any]] = [{**asdict(run), "cores": cores} for run in runs]
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        document.write(DOCUMENT, COMMAND, made, "# On a Ray cluster\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
