"""A real server of the S3 protocol, and a proxy before it that spoils what it hands on."""

from __future__ import annotations

import atexit
import functools
import http.client
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

# A reader that gives up leaves its socket to the garbage collector: it is to be silent about it,
# and to come before the tests of the next module.
MARKS = [
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
    ),
    pytest.mark.usefixtures("collected"),
]
_AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request"
SECRET = "a-secret-that-nobody-may-see"


@functools.cache
def server() -> str:
    """moto's server, started once for all tests of the process; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    atexit.register(process.kill)
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, "moto's server has ended"
        assert time.monotonic() < end, "moto's server does not answer"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    return f"http://127.0.0.1:{port}"


def bucket() -> str:
    """A new bucket; its name."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    ask("PUT", f"/{name}")
    return name


def ask(method: str, path: str, body: bytes = b"") -> bytes:
    """A request straight to the server."""
    connection = http.client.HTTPConnection(urlsplit(server()).netloc, timeout=60)
    try:
        connection.request(method, path, body, {"Authorization": _AUTHORIZATION})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        return content
    finally:
        connection.close()


def upload(folder: Path, path: str) -> None:
    """A folder's files to `bucket/key`, straight to the server, the manifests last."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda f: f.name == "model.json"):
        ask("PUT", f"/{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def remove(path: str) -> None:
    ask("DELETE", f"/{path}")


def environment(url: str) -> dict[str, str]:
    """How the libraries are told of the server and of a user."""
    return {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": url,
    }


class Proxy(ThreadingHTTPServer):
    """Between a reader and the store.

    `fault`: what happens to answers for files called `spoilt`, or to all of them ("" spoils all):
    cut, wrong, short, long, stalled, slow, down; None for nothing.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.fault: str | None = None
        self.spoilt = "model.onnx"
        self.seen: list[str] = []  # the requests
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a reader that has given up


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"  # or who expects "100 Continue" waits for it in vain

    def _forward(self) -> None:
        proxy = self.server
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        proxy.seen.append(f"{self.command} {self.path}")
        fault = proxy.fault if proxy.spoilt in self.path else None
        if fault == "down":
            return
        if fault == "stalled":
            proxy.released.wait(60)
            return
        if fault == "slow":
            time.sleep(0.3)
        connection = http.client.HTTPConnection(urlsplit(server()).netloc, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        length = answer.headers.get("content-length", str(len(content)))
        cut = content
        if fault and self.command == "GET":
            cut = content[: len(content) // 2] if fault == "cut" else cut
            content = {
                "wrong": bytes(len(content)),
                "short": content[: len(content) // 2],
                "long": content + b"more",
            }.get(fault, content)
            cut = cut if fault == "cut" else content
            length = str(len(content))
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            if key.lower() not in {"connection", "content-length", "transfer-encoding"}:
                self.send_header(key, value)
        self.send_header("content-length", length)
        self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(cut)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def running(httpd: ThreadingHTTPServer) -> Iterator[str]:
    """A server in a thread; its address."""
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
