"""A server as processes: started, waited for, paused while others have their turn, ended.

All processes of a server carry a token in their environment, which children inherit wherever
they go (Ray's and mosec's leave their parent's group), so that exactly they are signalled.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.serving import client, tree
from benchmarks.serving.client import Client, Driven
from benchmarks.serving.peer import TOKEN, Model, Peer, Request, Route

ROOT = Path(__file__).parents[2]
_START_S = 60.0
_END_S = 8.0
# Idle is what takes less than this share of a core for a moment.
_IDLE_SHARE = 0.4
_LOOK_S = 0.1
_SETTLE_S = 5.0
_PORTS = (20_000, 32_000)
# float32, summed in another order.
_TOLERANCE = 1e-4


class Failed(Exception):
    """The server cannot be measured; the text says why."""


class Server:
    """One running server. Use as a context; it is stopped at the end, whatever happens.

    Args:
        peer: which one.
        python: of the peer's environment.
        model: what it serves.
        port: the two above it must be free as well.
        folder: for its files and its log.

    Raises:
        Failed: by `__enter__`, when it ends or does not answer in time.
    """

    def __init__(self, peer: Peer, python: Path, model: Model, port: int, folder: Path) -> None:
        self.peer = peer
        self.model = model
        self.port = port
        self.started_s = 0.0
        self._python = python
        self._folder = folder
        self._token = uuid.uuid4().hex
        self._scratch = ""
        self._requests: dict[str, Request] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.peer.prepare is not None:
            self.peer.prepare(self.model, self._folder, self.port)
        words, added = self.peer.start(self.model, self.port, self._folder)
        # Their temporary files go when they go. A short path: some keep Unix sockets there.
        self._scratch = tempfile.mkdtemp(prefix="sb-")
        added |= dict.fromkeys(("TMPDIR", "RAY_TMPDIR", "PYTRITON_HOME"), self._scratch)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FOLDSERVE_", "PYTHON"))}
        began = time.perf_counter()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), *words],
                cwd=ROOT,
                env={**kept, "PYTHONPATH": str(ROOT), **added, TOKEN: self._token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.started_s = time.perf_counter() - began
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _START_S
        request = self.request(self.peer.routes[0])
        said = "nothing listens"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise Failed(f"it ended with code {self._process.returncode}: {self._last_words()}")
            try:
                status, _, body = client.ask(self.port, request, 30.0)
                if status == 200:
                    return
                said = f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}"
            except OSError as error:
                said = str(error)
            time.sleep(0.05)
        raise Failed(f"no answer within {_START_S:.0f} s ({said}): {self._last_words()}")

    def _last_words(self) -> str:
        text = (self._folder / "log").read_text(encoding="utf-8", errors="replace").strip()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it wrote nothing"

    def request(self, route: Route) -> Request:
        """What is asked again and again; made once."""
        if route.key not in self._requests:
            self._requests[route.key] = route.ask(self.model, self.model.sample())
        return self._requests[route.key]

    def check(self, route: Route, expected: np.ndarray) -> None:
        """Ask once and compare with raw onnxruntime; raises Failed."""
        request = self.request(route)
        try:
            status, headers, body = client.ask(self.port, request)
        except OSError as error:
            raise Failed(f"no answer: {error}") from None
        if not 200 <= status < 300:
            raise Failed(f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}")
        try:
            found = route.read(self.model, headers, body).reshape(expected.shape)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Failed(f"an answer that cannot be read: {error!r}") from None
        worst = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not worst <= _TOLERANCE:
            raise Failed(f"WRONG: its answer differs from onnxruntime's by {worst:.2g}")

    def drive(self, driver: Client, route: Route, connections: int, seconds: int) -> Driven:
        """Let the client ask; raises Failed."""
        try:
            return driver.drive(self.port, self.request(route), connections, seconds)
        except (ValueError, OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"the client failed: {error}") from None

    def pause(self) -> None:
        """Stop all its processes until `resume`."""
        self._signal(signal.SIGSTOP)

    def settle(self) -> None:
        """Wait until it has done what is left of requests whose client has gone."""
        end = time.monotonic() + _SETTLE_S
        busy_s = self.cpu_s()
        while time.monotonic() < end:
            time.sleep(_LOOK_S)
            before_s, busy_s = busy_s, self.cpu_s()
            if busy_s - before_s < _IDLE_SHARE * _LOOK_S:
                return

    def rest(self) -> None:
        """Its turn is over: pause it, if it would disturb the others."""
        if self.peer.restless:
            self.pause()

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def memory_bytes(self) -> int:
        """The proportional set size of all its processes; 0 where the system does not tell."""
        return sum(tree.memory_bytes(pid) for pid in self.processes())

    def cpu_s(self) -> float:
        """CPU time of all its processes until now; another load on the machine does not change
        what a request takes of it."""
        return sum(map(tree.cpu_s, self.processes()))

    def close(self) -> None:
        """End all its processes: in good order, or else at once."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        end = time.monotonic() + 2.0
        while self._signal(signal.SIGTERM) and time.monotonic() < end:
            self._process.poll()
            time.sleep(0.05)
        while self._signal(signal.SIGKILL):
            self._process.poll()
            time.sleep(0.02)
        self._process.wait()
        self._process = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def processes(self) -> list[int]:
        """Whoever carries the token."""
        mark = f"{TOKEN}={self._token}".encode()
        return [pid for pid in _pids() if mark in _environment(pid)]

    def _signal(self, number: int) -> bool:
        found = self.processes()
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(found)


def free_ports(count: int = 3) -> int:
    """The first of so many free ports in a row, below those that clients' connections take."""
    for first in random.sample(range(*_PORTS, count), k=200):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise Failed("no three free ports in a row")


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
