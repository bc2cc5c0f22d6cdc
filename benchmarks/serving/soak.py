"""Twenty minutes at 80 % of the capacity, while versions come and go.

    python -m benchmarks.serving.soak [--minutes 20] [--reload-every 5]

One server (the digits CNN, and a table that runs in threads), driven by an open loop at 80 % of
what a closed loop reached just before: JSON, .npy-like raw bytes, the Open Inference Protocol and
TensorFlow Serving's JSON, of 1 to 8 rows. Every few seconds a new version of the digits appears
in the repository and the oldest goes; the server watches the folder, loads, swaps and drains. A
version k answers plus k, and a client of its own compares each of its answers with the version
that it names. Sampled: memory (PSS), open files, threads.

What must hold: no answer but 200, none wrong, and no slope: that of the memory's least-squares
line through twelve stretches of the time beyond the first quarter within two standard errors of
zero, or a rise of at most 1 MB; files and threads as many at
the end as at the beginning. A row of JSON on stdout and in results/soak.jsonl, and the block in
docs/serving-strain.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import document
from benchmarks.serving import openloop, strain, subjects
from benchmarks.serving.beside import Beside
from benchmarks.serving.openloop import Outcome, Stream
from benchmarks.serving.target import TOLERATED_MB, Target, Usage, Watch, memory_trend

COMMAND = "python -m benchmarks.serving.soak"
RESULTS = Path(__file__).parent / "results" / "soak.jsonl"
_SHARE = 0.8
_CONNECTIONS = 64
_CAPACITY_CONNECTIONS = 16
_KEPT = 2  # versions in the repository at a time
_WATCH_MS = 500
_TOLERANCE = 1e-3


def requests(folder: Path) -> list[str]:
    """Files with requests of all protocols and sizes."""
    random = np.random.default_rng(0)
    made = []
    for rows in (1, 2, 8):
        array = random.random((rows, 1, 28, 28)).astype(np.float32)
        tensor = {"name": "input", "shape": list(array.shape), "datatype": "FP32"}
        flat = {**tensor, "data": array.reshape(-1).tolist()}
        binary = {**tensor, "parameters": {"binary_data_size": array.nbytes}}
        head = json.dumps({"inputs": [binary]}).encode()
        bodies = [
            ("/models/digits/predict", json.dumps({"inputs": array.tolist()}).encode(), {}),
            ("/v2/models/digits/infer", json.dumps({"inputs": [flat]}).encode(), {}),
            (
                "/v2/models/digits/infer", head + array.tobytes(),
                {"Inference_Header_Content_Length": str(len(head))},
            ),
            (
                "/v1/models/digits:predict",
                json.dumps({"instances": array.tolist()}).encode(), {},
            ),
            ("/models/table/predict", json.dumps({"inputs": [3] * rows}).encode(), {}),
        ]  # fmt: skip
        made += [subjects.raw_request("digits", array)]
        made += [subjects.request(path, body, **headers) for path, body, headers in bodies]
    return [subjects.written(folder, f"r{i}", content) for i, content in enumerate(made)]


class Changes(Beside):
    """Puts a new version into the repository every few seconds, and takes the oldest away."""

    def __init__(self, models: Path, every_s: float) -> None:
        super().__init__()
        self.latest = 1
        self._models = models
        self._every_s = every_s
        self._first = models / "digits" / "1"
        self._aside = models.parent / "original"
        shutil.copytree(self._first, self._aside)

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            self.latest += 1
            model = subjects.shifted(self._aside, self.latest)
            subjects.publish(self._models, "digits", model, self.latest)
            oldest = self._models / "digits" / str(self.latest - _KEPT)
            if oldest.is_dir():
                # In one step out of the server's sight.
                oldest = oldest.rename(self._models / f".old-{oldest.name}")
                shutil.rmtree(oldest)


class Checker(Beside):
    """Asks one request after the other and compares each answer."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.asked = 0
        self.wrong: list[str] = []
        self.versions: set[int] = set()
        self._port = port

    def _work(self) -> None:
        body = json.dumps({"inputs": np.full((1, 1, 28, 28), 0.5).tolist()}).encode()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        plain: np.ndarray | None = None
        while not self._over.wait(0.02):
            try:
                connection.request("POST", "/models/digits/predict", body)
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except OSError as error:
                self.wrong.append(str(error))
                connection.close()
                continue
            self.asked += 1
            if answer.status != 200:
                self.wrong.append(f"{answer.status} {told}")
                continue
            version = told["model"]["version"]
            self.versions.add(version)
            # Version 1 is the original; a later one adds its number.
            found = np.array(told["outputs"]["output"]) - (version if version > 1 else 0)
            plain = found if plain is None else plain
            if np.abs(found - plain).max() > _TOLERANCE:
                self.wrong.append(f"version {version} differs by {np.abs(found - plain).max()}")
        connection.close()


@dataclass(frozen=True)
class Row:
    """What was found. Files and threads: medians of the first and of the last tenth."""

    minutes: float
    capacity_per_s: float
    offered_per_s: float
    outcome: Outcome
    versions: int
    checked: int
    wrong: list[str]
    memory_first_mb: float
    memory_last_mb: float
    memory_slope_mb_min: float
    memory_error_mb_min: float
    memory_rise_mb: float
    memory_grows: bool
    descriptors: tuple[float, float]
    threads: tuple[float, float]
    exit_code: int | None
    log: str
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        others = {s: t.count for s, t in self.outcome.answers.items() if s != 200}
        found = []
        if others or self.outcome.unanswered:
            found.append(f"errors: {others}, unanswered: {self.outcome.unanswered}")
        if self.wrong:
            found.append(f"{len(self.wrong)} wrong answers")
        if self.versions < 2:
            found.append("no version was replaced")
        if self.memory_grows:
            found.append("memory grows")
        if self.threads[1] > self.threads[0] + 2:
            found.append("threads grow")
        if self.descriptors[1] > self.descriptors[0] + 8:
            found.append("open files grow")
        if self.exit_code != 0 or self.log:
            found.append("the server's end or log")
        return found


def measure(minutes: float, reload_every_s: float, capacity_seconds: float = 5.0) -> Row:
    """Serve, load, reload and watch."""
    with tempfile.TemporaryDirectory(prefix="strain-") as name:
        folder = Path(name)
        models = folder / "models"
        subjects.digits(models)
        subjects.publish(models, "table", subjects.table())
        files = tuple(requests(folder))
        flags = ("--watch-interval-ms", str(_WATCH_MS), "--default-model", "digits",
                 "--log-level", "warning")  # fmt: skip
        seconds = minutes * 60
        with Target(models, *flags) as target:
            closed = Stream("capacity", files, 0.0, _CAPACITY_CONNECTIONS)
            warm = openloop.run(target.port, [closed], capacity_seconds)["capacity"]
            capacity = warm.count(200) / warm.seconds
            load = Stream("soak", files, _SHARE * capacity, _CONNECTIONS)
            with (
                Watch(target.process.pid, max(0.1, min(2.0, seconds / 100))) as watch,
                Changes(models, reload_every_s),
                Checker(target.port) as checker,
            ):
                outcome = openloop.run(target.port, [load], seconds)["soak"]
        return _row(minutes, capacity, outcome, checker, watch.seen, target)


def _row(
    minutes: float,
    capacity: float,
    outcome: Outcome,
    checker: Checker,
    seen: list[Usage],
    target: Target,
) -> Row:
    memory = memory_trend(seen)
    tenth = max(1, len(seen) // 10)

    def ends(values: list[int]) -> tuple[float, float]:
        return float(np.median(values[tenth : 2 * tenth])), float(np.median(values[-tenth:]))

    return Row(
        minutes, capacity, _SHARE * capacity, outcome, len(checker.versions), checker.asked,
        checker.wrong[:10], memory.first, memory.last, memory.slope, memory.error,
        memory.rise, memory.grows(TOLERATED_MB),
        ends([u.descriptors for u in seen]), ends([u.threads for u in seen]),
        target.exit_code, target.log.decode()[:1000],
        [(u.at - seen[0].at, u.memory_bytes / 1e6, u.descriptors, u.threads) for u in seen],
    )  # fmt: skip


def record(row: Row) -> dict[str, Any]:
    """A line of the results."""
    answers = {str(s): asdict(t) for s, t in row.outcome.answers.items()}
    outcome = {**asdict(row.outcome), "answers": answers}
    return {**asdict(row), "outcome": outcome, "broken": row.broken()}


def text(row: dict[str, Any]) -> str:
    """The block of the document."""
    outcome = row["outcome"]
    ok = outcome["answers"].get("200", {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0})
    errors = sum(t["count"] for s, t in outcome["answers"].items() if s != "200")
    lines: list[list[object]] = [
        ["requests answered", ok["count"]],
        ["errors, unanswered", errors + outcome["unanswered"]],
        ["offered, of a capacity of",
         f"{row['offered_per_s']:.0f} of {row['capacity_per_s']:.0f} /s"],
        ["p50, p99", f"{ok['p50_ms']:.1f} ms, {ok['p99_ms']:.1f} ms"],
        ["versions that answered one after the other", row["versions"]],
        ["answers compared, wrong", f"{row['checked']}, {len(row['wrong'])}"],
        ["memory after a quarter of the time, at the end",
         f"{row['memory_first_mb']:.1f} MB, {row['memory_last_mb']:.1f} MB"],
        ["slope of the memory",
         f"{row['memory_slope_mb_min']:.3f} ± {row['memory_error_mb_min']:.3f} MB/min"],
        ["open files, first and last", f"{row['descriptors'][0]:.0f}, {row['descriptors'][1]:.0f}"],
        ["threads, first and last", f"{row['threads'][0]:.0f}, {row['threads'][1]:.0f}"],
        ["not kept", "; ".join(row["broken"]) or "-"],
    ]  # fmt: skip
    made = document.table(["", ""], lines, "-r")
    return f"## {row['minutes']:g} minutes at 80 % of the capacity, with reloads\n\n{made}"


def main() -> int:
    parser = argparse.ArgumentParser(description="A soak test with reloads.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--reload-every", type=float, default=5, metavar="SECONDS")
    parser.add_argument("--try", action="store_true", dest="trial", help="write nothing")
    args = parser.parse_args()
    row = record(measure(args.minutes, args.reload_every))
    shown = {key: value for key, value in row.items() if key != "samples"}
    print(json.dumps(shown))
    if not args.trial:
        strain.save(RESULTS, [row], COMMAND, text(row))
    return 1 if row["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
