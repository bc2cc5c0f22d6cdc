"""The server that is put under strain: a process, and what it holds of the machine.

    memory        proportional set size (PSS) from smaps_rollup, of the server and its workers
    descriptors   open files and sockets
    threads       of the process

`Watch` samples them at intervals from a thread; `trend` is the least-squares line through the
samples, x in minutes, with the standard error of its slope:

    slope = Sxy / Sxx        error = sqrt(sum((y - line)^2) / (n - 2) / Sxx)
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Self

from benchmarks.serving.beside import Beside

ROOT = Path(__file__).parents[2]
_URL = re.compile(rb"^  url +http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
_START_S = 120.0
_END_S = 60.0
_BLOCKS = 12


class Target:
    """`python -m service` on a free port, as a context; `exit_code` is known afterwards.

    Args:
        models: the repository.
        flags: of the server.
    """

    def __init__(self, models: Path, *flags: str) -> None:
        self._words = [
            sys.executable, "-m", "service", "--models", str(models), "--port", "0", *flags,
        ]  # fmt: skip
        self.port = 0
        self.exit_code: int | None = None
        self.log = b""
        self.said = ""

    def __enter__(self) -> Self:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
        self._out = tempfile.TemporaryFile()
        self._err = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self._words, cwd=ROOT, stdout=self._out, stderr=self._err, env=clean
        )
        end = time.monotonic() + _START_S
        while b"  ready " not in (said := _content(self._out)):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise RuntimeError(f"the server did not start: {_content(self._err).decode()}")
            time.sleep(0.02)
        found = _URL.search(said)
        assert found is not None, said
        self.port = int(found[1])
        self.said = said.decode()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log = _content(self._err)
        self._out.close()
        self._err.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _content(file: tempfile._TemporaryFileWrapper[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@dataclass(frozen=True)
class Usage:
    """At a time of time.monotonic()."""

    at: float
    memory_bytes: int
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """Of a process, on Linux."""
    root = Path(f"/proc/{pid}")
    rollup = (root / "smaps_rollup").read_text()
    kib = next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]
    status = (root / "status").read_text()
    threads = next(line for line in status.splitlines() if line.startswith("Threads:")).split()[1]
    return Usage(
        time.monotonic(), int(kib) * 1024, sum(1 for _ in (root / "fd").iterdir()), int(threads)
    )


class Watch(Beside):
    """Samples a process until the end of the context; the samples are in `seen`."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__()
        self.seen: list[Usage] = []
        self._pid = pid
        self._every_s = every_s

    def _work(self) -> None:
        while True:
            self.seen.append(usage(self._pid))
            if self._over.wait(self._every_s):
                return


@dataclass(frozen=True)
class Trend:
    """A line through samples: units a minute, and the standard error of that.

    `rise`: what the line gains from its first to its last sample.
    """

    slope: float
    error: float
    first: float
    last: float
    rise: float

    def grows(self, tolerated: float = 0.0) -> bool:
        """Whether it rises by more than two standard errors, and by more than `tolerated`."""
        return self.slope > 2 * self.error and self.rise > tolerated


def trend(minutes: list[float], values: list[float]) -> Trend:
    """The least-squares line; raises ValueError for fewer than three samples."""
    count = len(values)
    if count < 3:
        raise ValueError("a trend needs three samples")
    middle, mean = sum(minutes) / count, sum(values) / count
    sxx = sum((x - middle) ** 2 for x in minutes)
    sxy = sum((x - middle) * (y - mean) for x, y in zip(minutes, values, strict=True))
    slope = sxy / sxx
    left = sum((y - mean - slope * (x - middle)) ** 2 for x, y in zip(minutes, values, strict=True))
    error = math.sqrt(left / (count - 2) / sxx)
    return Trend(slope, error, values[0], values[-1], slope * (minutes[-1] - minutes[0]))


# Pages that a process touches now and then: one percent of a small server.
TOLERATED_MB = 1.0


def memory_trend(seen: list[Usage], skip: float = 0.25) -> Trend:
    """In MB, and MB a minute; the first share of the time is the server's warming up.

    Neighbouring samples are alike, which would make the standard error too small: the line goes
    through the means of `_BLOCKS` stretches of time.
    """
    begin = seen[0].at + skip * (seen[-1].at - seen[0].at)
    kept = [u for u in seen if u.at >= begin]
    blocks = min(_BLOCKS, len(kept))
    cuts = [round(i * len(kept) / blocks) for i in range(blocks + 1)]
    stretches = [kept[a:b] for a, b in pairwise(cuts)]
    return trend(
        [sum(u.at for u in block) / len(block) / 60 for block in stretches],
        [sum(u.memory_bytes for u in block) / len(block) / 1e6 for block in stretches],
    )


class Probe(Beside):
    """Asks /health/live and /health/ready in turn, at fixed times; see `took_ms` and `failed`.

    A request that is due while the one before it is not answered is late from its due time on.
    """

    PATHS = ("/health/live", "/health/ready")

    def __init__(self, port: int, every_s: float) -> None:
        super().__init__()
        self.took_ms: list[float] = []
        self.failed: list[str] = []
        self._port = port
        self._every_s = every_s

    def _work(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        due = time.monotonic()
        turn = 0
        while not self._over.wait(max(0.0, due - time.monotonic())):
            path = self.PATHS[turn % 2]
            begun = min(time.monotonic(), due + self._every_s)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failed.append(f"{path}: {answer.status}")
            except OSError as error:
                self.failed.append(f"{path}: {error}")
                connection.close()
            self.took_ms.append((time.monotonic() - begun) * 1e3)
            turn += 1
            due += self._every_s
        connection.close()
