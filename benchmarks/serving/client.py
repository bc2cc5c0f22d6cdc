"""The client: a fixed request, again and again, over a number of connections.

`wrk` is cheap enough not to be what is measured. Where it is missing, or in tests, `Python` does
the same, and says so in the results: it takes as much CPU as the server of a small model.

    requests    answers within the time, whatever their status
    errors      of the sockets, answers other than 2xx and 3xx, and no answer within 30 s
    p50, p99    of the time from a request to its answer
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from typing import Any, Protocol

from benchmarks.serving.peer import Request

_SCRIPT = Path(__file__).with_name("post.lua")
_TIMEOUT_S = 30
_KINDS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True)
class Driven:
    """What a client counted; `errors` by kind, without the kinds that did not occur."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    def row(self) -> dict[str, Any]:
        return asdict(self)


class Client(Protocol):
    """Drives a server of 127.0.0.1 for some seconds."""

    name: str

    def drive(self, port: int, request: Request, connections: int, seconds: int) -> Driven: ...


class Wrk:
    """The C client, one thread."""

    def __init__(self) -> None:
        found = shutil.which("wrk")
        if found is None:
            raise FileNotFoundError(
                "wrk is not installed: apt-get install wrk (or --client python for a try)"
            )
        self._path = found
        version = subprocess.run([found, "-v"], capture_output=True, text=True, check=False)
        self.name = " ".join((version.stdout + version.stderr).split()[:2])

    def drive(self, port: int, request: Request, connections: int, seconds: int) -> Driven:
        with tempfile.TemporaryDirectory(prefix="serving-bench-") as folder:
            body, head = Path(folder) / "body", Path(folder) / "headers"
            body.write_bytes(request.body)
            head.write_text("".join(f"{k}: {v}\n" for k, v in request.headers.items()))
            words = [
                self._path, "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={_TIMEOUT_S}s",
                "--latency", f"-s{_SCRIPT}", f"http://127.0.0.1:{port}{request.path}",
                "--", str(body), str(head),
            ]  # fmt: skip
            ran = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=seconds + 2 * _TIMEOUT_S
            )
        return parse(ran.stdout + ran.stderr)


def parse(text: str) -> Driven:
    """The line that post.lua writes.

    Raises:
        ValueError: there is none; the text has wrk's reason.
    """
    found = re.search(r"^RESULT (\{.*\})$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"wrk gave no result: {' '.join(text.split())[-300:]}")
    row = json.loads(found[1])
    errors = {kind: row[kind] for kind in _KINDS if row[kind]}
    return Driven(
        row["requests"], row["microseconds"] / 1e6, row["p50_us"] / 1e3, row["p99_us"] / 1e3, errors
    )  # fmt: skip


class Python:
    """The same in asyncio."""

    name = "Python client"

    def drive(self, port: int, request: Request, connections: int, seconds: float) -> Driven:
        return asyncio.run(_drive(port, request, connections, seconds))


async def _drive(port: int, request: Request, connections: int, seconds: float) -> Driven:
    lines = [f"POST {request.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{k}: {v}" for k, v in request.headers.items()]
    lines.append(f"Content-Length: {len(request.body)}")
    message = "\r\n".join([*lines, "", ""]).encode() + request.body
    took: list[float] = []
    errors = dict.fromkeys(_KINDS, 0)
    started = time.perf_counter()
    end = started + seconds

    async def one() -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            errors["connect"] += 1
            return
        try:
            while (begun := time.perf_counter()) < end:
                writer.write(message)
                await writer.drain()
                status = await asyncio.wait_for(_answer(reader), _TIMEOUT_S)
                now = time.perf_counter()
                if now < end:
                    took.append(now - begun)
                    errors["status"] += status >= 400
        except TimeoutError:
            errors["timeout"] += 1
        except (OSError, EOFError, ValueError):
            errors["read"] += 1
        finally:
            writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    lasted = min(time.perf_counter(), end) - started
    cut = quantiles(took, n=100) if len(took) > 1 else [*took, 0.0] * 99
    found = {kind: count for kind, count in errors.items() if count}
    return Driven(len(took), lasted, cut[49] * 1e3, cut[98] * 1e3, found)


async def _answer(reader: asyncio.StreamReader) -> int:
    """The status of an answer with a Content-Length, after reading all of it."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if length is None:
        raise ValueError("an answer without Content-Length")
    await reader.readexactly(int(length[1]))
    return int(head.split(None, 2)[1])


def ask(port: int, request: Request, timeout_s: float = _TIMEOUT_S) -> tuple[int, Any, bytes]:
    """Status, headers (in small letters) and body of one answer; raises OSError."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body
    finally:
        connection.close()
