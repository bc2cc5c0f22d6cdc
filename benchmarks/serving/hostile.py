"""Strangers who want the server's memory and places, and good requests beside them.

    python -m benchmarks.serving.hostile [--seconds 10] [--only readers] [--try]

For each attack of `strangers` (and one on the server itself: a worker that stands still) a server
with a budget of 256 MiB. While the attack lasts, a good prediction and a question for health leave
every 50 ms from another address, each on a connection of its own. What must hold:

    peak      memory above what the server had before: at most 1.2 times the budget (of each worker)
    health    p99 within 50 ms, none without its answer
    good      all answered with 200
    after     within 20 s of the end the budget counts nothing, and the memory is back to within a
              tenth of the budget

A row of JSON for each on stdout and in results/hostile.jsonl, and the table in
docs/serving-strain.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import document
from benchmarks.serving import strain, strangers, subjects
from benchmarks.serving.beside import Beside
from benchmarks.serving.openloop import percentile
from benchmarks.serving.target import ROOT, Target

COMMAND = "python -m benchmarks.serving.hostile"
RESULTS = Path(__file__).parent / "results" / "hostile.jsonl"
MB = 1e6
BUDGET_BYTES = 256 * 1024 * 1024
MOST = 1.2  # times the budget
_BACK = 0.1  # of the budget
_BACK_S = 20.0
_EVERY_S = 0.05
_STANDSTILL = "worker"
_HELD = re.compile(rb"^foldserve_bodies_held_bytes(?:\{[^}]*\})? (\d+)$", re.MULTILINE)


@dataclass
class Row:
    """What was found for an attack; memory in MB, `base` before it and `after` it."""

    attack: str
    what: str
    seconds: float
    workers: int
    base_mb: float
    peak_mb: float
    after_mb: float
    held_after: int
    health_p99_ms: float
    health_max_ms: float
    health_failed: list[str]
    good: int
    good_failed: list[str]
    good_p99_ms: float
    answers: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    log: str = ""

    @property
    def of_budget(self) -> float:
        """The peak above the base, in budgets."""
        return (self.peak_mb - self.base_mb) * MB / (BUDGET_BYTES * self.workers)

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = []
        if self.of_budget > MOST:
            found.append(f"{self.of_budget:.2f} times the budget")
        if self.health_failed or self.health_p99_ms > strain.PROMPT_MS:
            found.append("late health")
        if self.good_failed or not self.good:
            found.append(f"{len(self.good_failed)} good requests failed")
        if self.held_after or (self.after_mb - self.base_mb) * MB > _BACK * BUDGET_BYTES:
            found.append("memory does not go back")
        if self.exit_code != 0 or self.log:
            found.append("the server's end or log")
        return found


class Asking(Beside):
    """A request every 50 ms, each on a connection of its own; see `took_ms` and `failed`."""

    def __init__(self, port: int, method: str, paths: tuple[str, ...], body: bytes = b"") -> None:
        super().__init__()
        self.took_ms: list[float] = []
        self.failed: list[str] = []
        self._port, self._method, self._paths, self._body = port, method, paths, body

    def _work(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            path = self._paths[len(self.took_ms) % len(self._paths)]
            begun = time.monotonic()
            connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
            try:
                headers = {"X-API-Key": strangers.KEY, "Content-Type": "application/json"}
                connection.request(self._method, path, self._body or None, headers)
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != 200:
                    self.failed.append(f"{answer.status} {said[:200].decode()}")
            except OSError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            finally:
                connection.close()
            self.took_ms.append((time.monotonic() - begun) * 1e3)
            due = max(due + _EVERY_S, begun)


class Memory:
    """The resident memory of a process and those that it has started, in bytes.

    The system keeps the peak of each: nothing is missed between two samples.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def begin(self) -> int:
        """Forget the peaks; what there is now."""
        for pid in (self._pid, *children(self._pid)):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self.now()

    def now(self) -> int:
        """Of all together."""
        return self._sum("VmRSS")

    def most(self) -> int:
        """Since `begin`; the sum of the peaks, whenever each was."""
        return self._sum("VmHWM")

    def _sum(self, name: str) -> int:
        found = 0
        for pid in (self._pid, *children(self._pid)):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            line = next((line for line in lines if line.startswith(name + ":")), "x 0")
            found += int(line.split()[1]) * 1024
        return found


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wide() -> onnx.ModelProto:
    """(batch, 1) to (batch, 262144): a megabyte of answer for each row."""
    columns = 1024 * 1024 // 4
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(np.ones((1, columns), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def vision() -> onnx.ModelProto:
    """Pictures of 32 by 32, turned into their negatives."""
    shape = ["batch", 3, 32, 32]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "vision",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def publish(models: Path) -> None:
    """The models of all attacks."""
    subjects.publish(models, "wide", wide())
    subjects.publish(models, "vision", vision(), preprocessing={"height": 32, "width": 32})
    subjects.digits(models)


def measure(attack: str, models: Path, folder: Path, seconds: float) -> Row:
    """One attack on a server of its own."""
    workers = 2 if attack == _STANDSTILL else 1
    keys = folder / "keys"
    keys.write_text(strangers.KEY + "\n", encoding="utf-8")
    grpc_port = _free_port()
    flags = ["--max-in-flight-bytes", str(BUDGET_BYTES), "--default-model", "digits",
             "--log-level", "error", "--grpc-port", str(grpc_port), "--workers", str(workers),
             "--metrics", "open"]  # fmt: skip
    if "messages" in attack:
        flags += ["--api-keys-file", str(keys)]
    body = json.dumps({"inputs": np.full((1, 1, 28, 28), 0.5).tolist()}).encode()
    with Target(models, *flags) as target:
        port, pid = target.port, target.process.pid
        asked = (port, "POST", ("/models/digits/predict",), body)
        with Asking(*asked):
            _warm(port)
            time.sleep(2.0)
        memory = Memory(pid)
        base = memory.begin()
        with (
            Asking(*asked) as good,
            Asking(port, "GET", ("/health/live", "/health/ready")) as health,
        ):
            answers = _attack(attack, pid, (port, grpc_port), seconds)
            most = memory.most()
        held = _after(target, memory, base)
        after = memory.now()
    took, asked_ms = sorted(health.took_ms), sorted(good.took_ms)
    what = _WORKER if attack == _STANDSTILL else strangers.ATTACKS[attack].__doc__ or ""
    return Row(
        attack, " ".join(what.split()), seconds, workers, base / MB, most / MB, after / MB,
        held, percentile(took, 0.99), took[-1], health.failed[:5], len(asked_ms),
        good.failed[:5], percentile(asked_ms, 0.99), answers, target.exit_code,
        target.log.decode()[:1000],
    )  # fmt: skip


_WORKER = "One of two workers is slow: it stands still for 3 of every 4 seconds."
_STILL_S, _AWAKE_S = 3.0, 1.0


def _warm(port: int) -> None:
    """What the largest batches of good clients make a model keep is none of a stranger's doing."""
    body = json.dumps({"inputs": [[1.0]] * 8}).encode()
    kind = {"X-API-Key": strangers.KEY, "Accept": "application/octet-stream"}

    def ask(_: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/models/wide/predict", body, kind)
        connection.getresponse().read()
        connection.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(64)))


def _attack(attack: str, pid: int, ports: tuple[int, int], seconds: float) -> dict[str, int]:
    """Returns once it is over: what its requests were answered."""
    if attack == _STANDSTILL:
        worker, end = children(pid)[-1], time.monotonic() + seconds
        while time.monotonic() < end and worker in children(pid):
            os.kill(worker, signal.SIGSTOP)
            time.sleep(_STILL_S)
            os.kill(worker, signal.SIGCONT)
            time.sleep(_AWAKE_S)
        return {}
    words = [sys.executable, "-m", strangers.__name__, attack, *map(str, ports), str(seconds)]
    done = subprocess.run(
        words, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=seconds + 120
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _after(target: Target, memory: Memory, base: int) -> int:
    """Bytes that the budget counts once all is over; waits for it, and for the memory."""
    end = time.monotonic() + _BACK_S
    while True:
        held = sum(map(int, _HELD.findall(target.get("/metrics")[1])))
        back = memory.now() - base < _BACK * BUDGET_BYTES
        if (back and not held) or time.monotonic() > end:
            return held
        time.sleep(0.5)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def text(rows: list[dict[str, Any]]) -> str:
    """The block of the document."""
    heads = [
        "what strangers do", "budget MB", "peak above MB", "in budgets", "after MB",
        "health p99 ms", "good requests", "of these failed", "good p99 ms",
        "what they are answered", "not kept",
    ]  # fmt: skip
    lines: list[list[object]] = [
        [
            row["what"], f"{BUDGET_BYTES * row['workers'] / MB:.0f}",
            f"{row['peak_mb'] - row['base_mb']:.0f}", f"{row['of_budget']:.2f}",
            f"{row['after_mb'] - row['base_mb']:+.0f}", f"{row['health_p99_ms']:.1f}",
            row["good"], len(row["good_failed"]), f"{row['good_p99_ms']:.0f}",
            ", ".join(f"{count} x {status}" for status, count in row["answers"].items()) or "-",
            "; ".join(row["broken"]) or "-",
        ]
        for row in rows
    ]  # fmt: skip
    return f"""## Strangers who hold on to memory and places

{document.table(heads, lines, "-rrrrrrrr--")}

{rows[0]["seconds"]:.0f} s each on {rows[0]["cores"]} cores that attackers and good clients share.
Good requests and health leave every 50 ms, each on a connection of its own. Memory is that above
what the server had before the attack; "after" is once the budget counts nothing.
"""


def record(row: Row) -> dict[str, Any]:
    """A line of the results."""
    more = {"of_budget": row.of_budget, "broken": row.broken()}
    return {**asdict(row), **more, "cores": len(os.sched_getaffinity(0))}


def main() -> int:
    names = [*strangers.ATTACKS, _STANDSTILL]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", choices=names, action="append")
    parser.add_argument("--try", action="store_true", dest="trial", help="write nothing")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="strain-") as name:
        folder = Path(name)
        publish(folder / "models")
        for attack in args.only or names:
            rows.append(record(measure(attack, folder / "models", folder, args.seconds)))
            print(json.dumps(rows[-1]), flush=True)
    if not args.trial:
        strain.save(RESULTS, rows, COMMAND, text(rows))
    return 1 if any(row["broken"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
