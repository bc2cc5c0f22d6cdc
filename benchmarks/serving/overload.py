"""Ten times more requests than the server can answer, for a minute.

    python -m benchmarks.serving.overload [--seconds 60] [--warm 30] [--times 10] [--only residual]

For each kind of model (one with a queue and threads, one on the event loop):

1. capacity: a closed loop over 16 connections, answers a second
2. overload: an open loop (`openloop`) at 10 times that, from a process of its own; each request
   has a deadline (X-Timeout-Ms); meanwhile /health/live and /health/ready are asked every 50 ms
   on a connection of their own, and the server's memory is sampled twice a second. The first
   half minute of it fills the server's heap, and counts for everything but the memory's slope

What must hold: accepted answers within the deadline (p99), everything else a 503 with Retry-After
within 50 ms (p99), health within 50 ms (p99), memory without a slope: that of the line through
twelve stretches of time within two standard errors of zero, or a rise of at most 1 MB. A row of
JSON for each model on stdout and in results/overload.jsonl, and the table in
docs/serving-strain.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import document
from benchmarks.serving import openloop, strain, subjects
from benchmarks.serving.openloop import Outcome, Stream, percentile
from benchmarks.serving.target import TOLERATED_MB, Probe, Target, Watch, memory_trend

COMMAND = "python -m benchmarks.serving.overload"
RESULTS = Path(__file__).parent / "results" / "overload.jsonl"
_HEALTH_EVERY_S = 0.05
_MEMORY_EVERY_S = 0.5
_CAPACITY_CONNECTIONS = 16
# Below what one address may have of the server's --max-connections, which is another limit.
_CONNECTIONS = 850


@dataclass(frozen=True)
class Subject:
    """`rows` of a request; its client waits `deadline_ms` at most."""

    name: str
    rows: int
    row_shape: tuple[int, ...]
    deadline_ms: int


SUBJECTS = {
    s.name: s
    for s in (
        Subject("residual", 1, (3, 224, 224), 2000),
        # The largest request that still runs on the event loop: the client is slower than one row.
        Subject("digits", 8, (1, 28, 28), 1000),
    )
}


@dataclass(frozen=True)
class Row:
    """What was found for a model."""

    model: str
    where: str
    rows: int
    deadline_ms: int
    seconds: float
    times: float
    connections: int
    capacity_per_s: float
    offered_per_s: float
    outcome: Outcome
    health_p99_ms: float
    health_max_ms: float
    health_failed: int
    memory_mb: float
    memory_slope_mb_min: float
    memory_error_mb_min: float
    memory_rise_mb: float
    memory_grows: bool
    exit_code: int | None
    log: str

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        answers = self.outcome.answers
        accepted, refused = answers.get(200), answers.get(503)
        others = {s: t.count for s, t in answers.items() if s not in {200, 503}}
        found = []
        if accepted is None or accepted.p99_ms > self.deadline_ms:
            found.append("accepted answers beyond the deadline")
        if refused is not None and refused.p99_ms > strain.PROMPT_MS:
            found.append("late refusals")
        if others or self.outcome.unanswered:
            found.append(f"other ends: {others}, unanswered: {self.outcome.unanswered}")
        if self.outcome.without_retry_after:
            found.append("503 without Retry-After")
        if self.health_failed or self.health_p99_ms > strain.PROMPT_MS:
            found.append("late health")
        if self.memory_grows:
            found.append("memory grows")
        if self.exit_code != 0 or self.log:
            found.append("the server's end or log")
        return found


def measure(
    subject: Subject,
    models: Path,
    folder: Path,
    seconds: float,
    times: float = 10.0,
    capacity_seconds: float = 5.0,
    warm_seconds: float = 0.0,
    connections: int = _CONNECTIONS,
) -> Row:
    """Serve `models/<subject.name>` and overload it for both times; see above for the warm one."""
    in_all = warm_seconds + seconds
    random = np.random.default_rng(0)
    array = random.random((subject.rows, *subject.row_shape)).astype(np.float32)
    content = subjects.raw_request(subject.name, array, X_Timeout_Ms=str(subject.deadline_ms))
    file = subjects.written(folder, subject.name, content)
    with Target(models, "--default-model", subject.name) as target:
        running = json.loads(target.get(f"/models/{subject.name}")[1])["running"]
        closed = Stream("capacity", (file,), 0.0, _CAPACITY_CONNECTIONS)
        warm = openloop.run(target.port, [closed], capacity_seconds)["capacity"]
        capacity = warm.count(200) / warm.seconds
        flood = Stream("overload", (file,), times * capacity, connections)
        with (
            Watch(target.process.pid, min(_MEMORY_EVERY_S, seconds / 20)) as watch,
            Probe(target.port, _HEALTH_EVERY_S) as probe,
        ):
            outcome = openloop.run(target.port, [flood], in_all)["overload"]
    memory = memory_trend(watch.seen, warm_seconds / in_all if warm_seconds else 0.25)
    took = sorted(probe.took_ms)
    return Row(
        subject.name, str(running["where"]), subject.rows, subject.deadline_ms, in_all, times,
        connections, capacity,
        outcome.sent / in_all, outcome, percentile(took, 0.99), took[-1], len(probe.failed),
        memory.last, memory.slope, memory.error, memory.rise,
        memory.grows(TOLERATED_MB), target.exit_code, target.log.decode()[:1000],
    )  # fmt: skip


def text(rows: list[dict[str, Any]]) -> str:
    """The block of the document."""
    heads = [
        "model", "runs on", "rows", "capacity /s", "offered /s", "accepted /s", "p50 ms", "p99 ms",
        "deadline ms", "503 /s", "503 p50 ms", "503 p99 ms", "other ends", "health p99 ms",
        "health max ms", "memory MB", "slope MB/min", "not kept",
    ]  # fmt: skip
    lines: list[list[object]] = []
    for row in rows:
        outcome = row["outcome"]
        seconds = row["seconds"]
        none = {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0}
        ok, no = (outcome["answers"].get(s, none) for s in ("200", "503"))
        others = sum(t["count"] for s, t in outcome["answers"].items() if s not in {"200", "503"})
        lines.append(
            [
                row["model"], row["where"], row["rows"], f"{row['capacity_per_s']:.0f}",
                f"{row['offered_per_s']:.0f}", f"{ok['count'] / seconds:.0f}",
                f"{ok['p50_ms']:.0f}", f"{ok['p99_ms']:.0f}", row["deadline_ms"],
                f"{no['count'] / seconds:.0f}", f"{no['p50_ms']:.1f}", f"{no['p99_ms']:.1f}",
                others + outcome["unanswered"], f"{row['health_p99_ms']:.1f}",
                f"{row['health_max_ms']:.1f}", f"{row['memory_mb']:.0f}",
                f"{row['memory_slope_mb_min']:.2f} ± {row['memory_error_mb_min']:.2f}",
                "; ".join(row["broken"]) or "-",
            ]
        )  # fmt: skip
    made = document.table(heads, lines, "--" + "r" * 15)
    return f"""## {rows[0]["times"]:g} times the capacity

{made}

{rows[0]["seconds"]:.0f} s each, on {rows[0]["cores"]} cores that the client shares. Open loop over
at most {rows[0]["connections"]} connections: a request leaves when it is due, and its time begins
then, also while it waits for a free connection. "Capacity" is what a closed loop over
{_CAPACITY_CONNECTIONS} connections reached just before. The client itself sent at most
{max(row["outcome"]["lag_p99_ms"] for row in rows):.0f} ms late (p99).
"""


def record(row: Row) -> dict[str, Any]:
    """A line of the results."""
    answers = {str(s): asdict(t) for s, t in row.outcome.answers.items()}
    outcome = {**asdict(row.outcome), "answers": answers}
    cores = len(os.sched_getaffinity(0))
    return {**asdict(row), "outcome": outcome, "cores": cores, "broken": row.broken()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm", type=float, default=30, help="seconds before the memory counts")
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--connections", type=int, default=_CONNECTIONS, help="of the client")
    parser.add_argument("--only", choices=sorted(SUBJECTS))
    parser.add_argument("--try", action="store_true", dest="trial", help="write nothing")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="strain-") as name:
        folder = Path(name)
        subjects.publish(folder / "models", "residual", subjects.residual())
        subjects.digits(folder / "models")
        for subject in SUBJECTS.values():
            if args.only in (None, subject.name):
                row = record(
                    measure(
                        subject, folder / "models", folder, args.seconds, args.times,
                        warm_seconds=args.warm, connections=args.connections,
                    )
                )  # fmt: skip
                print(json.dumps(row), flush=True)
                rows.append(row)
    if not args.trial:
        strain.save(RESULTS, rows, COMMAND, text(rows))
    return 1 if any(row["broken"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
