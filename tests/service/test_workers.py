"""Several server processes on one port: who serves, who is started again, how all end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import repository
from repository import linear, publish
from test_metrics import parse

if TYPE_CHECKING:
    from conftest import Served

X = np.random.default_rng(2).standard_normal((2, 4)).astype(np.float32)
SCORES = repository.reference(linear(), {"x": X})["scores"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/task").exists() or not hasattr(socket, "SO_REUSEPORT"),
        reason="reads the children of a process from /proc",
    ),
]


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def listening(pid: int) -> bool:
    """Whether the process has a listening TCP socket of its own."""
    inodes = set()
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            link = str(fd.readlink())
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return False
    return any(line.split()[3] == "0A" and line.split()[9] in inodes for line in lines)


def serving(pid: int) -> list[int]:
    return [child for child in children(pid) if listening(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ask(url: str) -> httpx.Response:
    """One request on a connection of its own; the kernel picks the worker."""
    return httpx.post(f"{url}/predict", json={"inputs": X.tolist()}, timeout=60, trust_env=False)


def right(response: httpx.Response) -> None:
    assert response.status_code == 200
    np.testing.assert_allclose(response.json()["outputs"]["scores"], SCORES, rtol=1e-5)


def test_all_workers_answer_and_end_with_the_supervisor(start, tmp_path: Path):
    publish(tmp_path, "m", linear(), test={"x": X})
    served = start(tmp_path, "--workers", "3")
    pid = served.process.pid
    url = served.url
    assert "in each of 3 workers" in served.out
    until(lambda: len(serving(pid)) == 3)
    assert not listening(pid)
    for _ in range(12):
        right(ask(url))
    workers = children(pid)
    assert served.stop() == 0
    assert served.err == ""
    assert served.out.count("Foldserve ") == 1
    assert not any(alive(worker) for worker in workers)


def test_the_supervisor_loads_no_runtime(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--workers", "2")
    assert served.url
    assert "onnxruntime" not in Path(f"/proc/{served.process.pid}/maps").read_text()
    assert served.stop() == 0


BODY = b'{"inputs": [[1.0]]}'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)


def begun(url: str) -> socket.socket:
    """A connection whose request is under way: its route waits for BODY."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(HEAD)
    assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_under_way(start, tmp_path: Path, number: int):
    repository.publish(tmp_path, "slow", repository.slow(8000))
    served = start(tmp_path, "--workers", "2", "--drain-timeout-ms", "60000",
                   "--drain-delay-ms", "500")  # fmt: skip
    url = served.url
    until(lambda: len(serving(served.process.pid)) == 2)
    with begun(url) as connection:
        served.process.send_signal(number)
        connection.sendall(BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert served.end() == 0
    assert served.err == ""


def test_a_worker_that_dies_is_replaced_and_the_others_serve_on(start, tmp_path: Path):
    publish(tmp_path, "m", linear(), test={"x": X})
    served = start(tmp_path, "--workers", "2")
    url, pid = served.url, served.process.pid
    until(lambda: len(serving(pid)) == 2)
    victim, other = serving(pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim))
    right(ask(url))  # the port is the other's now
    until(lambda: len(serving(pid)) == 2)
    assert other in serving(pid)
    assert victim not in serving(pid)
    right(ask(url))
    served.wait_for("ended with signal 9; another is started")
    assert sum(replaced(served).values()) == 1
    assert served.stop() == 0


BLOCKED = """
import signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(3600))  # on the main thread: the event loop's
"""


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR2])
def test_a_worker_that_hangs_is_replaced_and_the_others_serve_on(
    start, tmp_path: Path, number: int
):
    models, site = tmp_path / "models", tmp_path / "site"
    publish(models, "m", linear(), test={"x": X})
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKED)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    served = start(models, "--workers", "2", "--worker-timeout-ms", "3000",
                   env={"PYTHONPATH": path})  # fmt: skip
    pid, url = served.process.pid, served.url
    until(lambda: len(serving(pid)) == 2)
    which = int(number == signal.SIGSTOP)
    hung = children(pid)[which]  # in the order in which they were started
    os.kill(hung, number)
    until(lambda: hung not in children(pid))
    served.wait_for(f"(pid {hung}) is killed: its event loop has not turned for")
    until(lambda: len(serving(pid)) == 2)
    for _ in range(8):
        right(ask(url))
    assert served.err.count("is killed") == 1
    assert replaced(served) == {("0", "ended"): 0, ("1", "ended"): 0, ("0", "silent"): 1 - which,
                                ("1", "silent"): which}  # fmt: skip
    assert served.stop() == 0


def replaced(served: Served) -> dict[tuple[str, str], float]:
    """What the metrics say, by worker and reason."""
    with served.client() as client:
        samples = parse(client.get("/metrics").text)
    return {
        (dict(labels)["worker"], dict(labels)["reason"]): count
        for (name, labels), count in samples.items()
        if name == "foldserve_workers_replaced_total"
    }


SLOW = """
import hashlib, time
read = hashlib.file_digest
hashlib.file_digest = lambda *of: (time.sleep(5), read(*of))[1]  # as of a file that is huge
"""


def test_a_long_load_is_not_taken_for_a_hang(start, tmp_path: Path):
    """At the start in both, and of a new version while they serve."""
    models, site = tmp_path / "models", tmp_path / "site"
    publish(models, "m", linear(), test={"x": X})
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    served = start(models, "--workers", "2", "--worker-timeout-ms", "3000",
                   "--watch-interval-ms", "200", env={"PYTHONPATH": path})  # fmt: skip
    pid, url = served.process.pid, served.url
    until(lambda: len(serving(pid)) == 2)
    workers = serving(pid)
    publish(models, "m", linear(), 2, test={"x": X})

    def new() -> bool:
        answers = [ask(url) for _ in range(4)]
        for answer in answers:
            right(answer)
        return all(answer.json()["model"]["version"] == 2 for answer in answers)

    until(new)
    assert serving(pid) == workers
    assert served.err.count("is killed") == 0
    assert served.stop() == 0


def test_a_machine_that_was_suspended_is_no_hang(start, tmp_path: Path):
    """Everything stands still, and the supervisor is the first to go on."""
    publish(tmp_path, "m", linear(), test={"x": X})
    served = start(tmp_path, "--workers", "2", "--worker-timeout-ms", "3000")
    pid, url = served.process.pid, served.url
    until(lambda: len(serving(pid)) == 2)
    workers = serving(pid)
    for each in (pid, *workers):
        os.kill(each, signal.SIGSTOP)
    time.sleep(6)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.5)
    for each in workers:
        os.kill(each, signal.SIGCONT)
    time.sleep(4)  # in which one that is taken for silent would be killed
    right(ask(url))
    assert serving(pid) == workers
    assert served.err == ""
    assert served.stop() == 0


def test_a_worker_that_hangs_does_not_hold_the_end_up(start, tmp_path: Path):
    publish(tmp_path, "m", linear(), test={"x": X})
    served = start(tmp_path, "--workers", "2", "--worker-timeout-ms", "2000")
    until(lambda: len(serving(served.process.pid)) == 2)
    os.kill(serving(served.process.pid)[1], signal.SIGSTOP)
    assert served.stop() == 128 + signal.SIGKILL
    assert served.err.count("is killed") == 1


def test_a_long_drain_is_not_taken_for_a_hang(start, tmp_path: Path):
    """While connections are waited for, the loop that beats has ended."""
    repository.publish(tmp_path, "slow", repository.slow(8000))
    served = start(tmp_path, "--workers", "2", "--worker-timeout-ms", "1500",
                   "--drain-timeout-ms", "60000")  # fmt: skip
    url = served.url
    until(lambda: len(serving(served.process.pid)) == 2)
    with begun(url) as connection:
        served.process.send_signal(signal.SIGTERM)
        time.sleep(4)  # a body that takes longer than a worker may be silent
        connection.sendall(BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert served.end() == 0
    assert "is killed" not in served.err


def test_workers_do_not_outlive_their_supervisor(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--workers", "2")
    assert served.url
    pid = served.process.pid
    until(lambda: len(serving(pid)) == 2)
    workers = children(pid)
    served.process.kill()
    until(lambda: not any(alive(worker) for worker in workers))
    served.end()


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "service", "--workers", "3", *flags],
        capture_output=True, text=True, timeout=120, env=clean,
    )  # fmt: skip


def test_workers_that_cannot_start_end_everything_and_say_why_once(tmp_path: Path):
    result = command("--port", "0", "--models", str(tmp_path / "nope"))
    assert result.returncode == 1
    assert result.stderr.count("does not exist") == 1
    assert "Traceback" not in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = command("--port", port, "--models", str(tmp_path))
    assert result.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in result.stderr


def test_a_port_that_other_workers_share_is_in_use(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--workers", "2")
    result = command("--port", served.url.rpartition(":")[2], "--models", str(tmp_path))
    assert result.returncode == 1
    assert "is in use" in result.stderr
    assert served.stop() == 0
