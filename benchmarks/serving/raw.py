"""onnxruntime without a server: the most that any server could reach here.

    best     the most samples a second over layouts: one session on all cores, or one thread a
             core that share a session of one thread each; batches of 1, 8 and 32
    single   the time of one run of one sample on all cores

It runs in a process of its own, as a server does, which sleeps between its turns.
`python -m benchmarks.serving.raw` is that process: a request a line in, a result a line out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from benchmarks.serving.peer import TOKEN, Model

ROOT = Path(__file__).parents[2]
BATCHES = (1, 8, 32)


@dataclass(frozen=True, order=True)
class Layout:
    """`callers` threads that share a session of `threads` threads, on batches of `batch`."""

    callers: int
    threads: int
    batch: int

    def __str__(self) -> str:
        who = f"{self.callers} callers of {self.threads} thread" if self.callers > 1 else (
            f"one caller of {self.threads} threads"
        )  # fmt: skip
        return f"{who}, batch {self.batch}"


def cores() -> int:
    return len(os.sched_getaffinity(0))


def layouts() -> list[Layout]:
    count = cores()
    ways = sorted({(1, count), (count, 1)})
    return [Layout(callers, threads, batch) for callers, threads in ways for batch in BATCHES]


class Raw:
    """The process, as a context."""

    def __init__(self, model: Model) -> None:
        self._environment = {**os.environ, **model.environment(), TOKEN: "raw"}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, env=self._environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def per_second(self, layout: Layout, seconds: float) -> float:
        """Samples a second."""
        return float(self._ask({"layout": layout.__dict__, "seconds": seconds}))

    def single_ms(self, seconds: float) -> float:
        """The median time of one sample on all cores."""
        return float(self._ask({"single": True, "seconds": seconds}))

    def answer(self) -> np.ndarray:
        """What the model says to `Model.sample`."""
        return np.asarray(self._ask({"answer": True}), np.float32)

    def _ask(self, request: dict[str, Any]) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the process of raw onnxruntime has ended")
        return json.loads(line)


class _Inside:
    def __init__(self) -> None:
        self.model = Model.served()
        self.sample = self.model.sample()
        self.sessions = {threads: self.model.session(threads) for threads in {1, cores()}}

    def run(self, threads: int, batch: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.sessions[threads].run(
            [self.model.output], {self.model.input: batch}
        )[0]
        return found

    def per_second(self, layout: Layout, seconds: float) -> float:
        batch = np.repeat(self.sample, layout.batch, axis=0)
        self.run(layout.threads, batch)
        counts = [0] * layout.callers
        started = time.perf_counter()
        end = started + seconds
        ended = [started] * layout.callers

        def work(caller: int) -> None:
            while not counts[caller] or time.perf_counter() < end:
                self.run(layout.threads, batch)
                counts[caller] += layout.batch
            ended[caller] = time.perf_counter()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(layout.callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(c / (e - started) for c, e in zip(counts, ended, strict=True))

    def single_ms(self, seconds: float) -> float:
        took: list[float] = []
        end = time.perf_counter() + seconds
        while not took or time.perf_counter() < end:
            began = time.perf_counter()
            self.run(cores(), self.sample)
            took.append(time.perf_counter() - began)
        return median(took) * 1e3


def main() -> None:
    inside = _Inside()
    for line in sys.stdin:
        request = json.loads(line)
        found: Any
        if "layout" in request:
            found = inside.per_second(Layout(**request["layout"]), request["seconds"])
        elif "single" in request:
            found = inside.single_ms(request["seconds"])
        else:
            found = inside.run(1, inside.sample).tolist()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
