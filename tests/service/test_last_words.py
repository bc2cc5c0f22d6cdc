"""An answer before the body was read reaches a client that sends all of the body first.

Closing on bytes that were not read resets the connection, and the answer is lost on the way. So it
is with a client that sends, and only then reads, and says `Connection: close` or speaks HTTP/1.0,
as nginx does to the servers behind it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from repository import linear, publish

pytestmark = pytest.mark.slow

LARGE = 8_000_000
KEYS = "a-key-of-sixteen-characters\n"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", linear())
    return root


@pytest.fixture(scope="module")
def served(start, models: Path):
    return start(models, "--max-body-bytes", "1000000")


@pytest.fixture(scope="module")
def locked(start, models: Path, tmp_path_factory: pytest.TempPathFactory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEYS)
    return start(models, "--api-keys-file", str(keys))


EARLY = [
    (401, "POST /predict", ""),
    (403, "POST /v2/repository/models/m/load", ""),
    (404, "POST /nowhere", ""),
    (404, "POST /v2/models/none/infer", ""),
    (404, "POST /v1/models/none:predict", ""),
    (405, "PUT /health/live", ""),
    (405, "PUT /v2/models/m/infer", ""),
    (413, "POST /predict", ""),
    (413, "POST /v2/models/m/infer", ""),
    (415, "POST /predict", "Content-Encoding: br\r\n"),
]
CLOSING = {"close": ("1.1", "Connection: close\r\n"), "1.0": ("1.0", ""), "kept": ("1.1", "")}


def head(line: str, version: str, more: str, length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"{line} HTTP/{version}\r\nHost: x\r\n{more}{size}\r\n\r\n".encode()


def exchange(url: str, first: bytes, body: bytes, *, kept: bool = False) -> bytes:
    """Send everything, then read to the end, as a client without a second thread does."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        # One send for both: the server has answered before the second half is on its way.
        connection.sendall(first + body)
        if kept:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def status(answer: bytes) -> int:
    first, _, rest = answer.partition(b"\r\n")
    body = rest.partition(b"\r\n\r\n")[2]
    assert json.loads(body), answer[:500]
    return int(first.split()[1])


@pytest.mark.parametrize("closing", CLOSING)
@pytest.mark.parametrize(("code", "line", "more"), EARLY)
def test_an_early_answer_arrives(served, locked, code: int, line: str, more: str, closing: str):
    url = (locked if code == 401 else served).url
    version, close = CLOSING[closing]
    for _ in range(3):
        answer = exchange(
            url, head(line, version, more + close, LARGE), b" " * LARGE, kept=closing == "kept"
        )
        assert status(answer) == code, answer[:300]


@pytest.mark.parametrize("line", ["POST /nowhere", "POST /predict"])
def test_it_arrives_before_a_body_without_a_length(served, line: str):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = exchange(
        served.url, head(line, "1.1", "Connection: close\r\n", None), chunk * 200 + b"0\r\n\r\n"
    )
    assert status(answer) == (404 if "nowhere" in line else 413)


def test_it_arrives_while_the_body_is_still_being_sent(served):
    """The end of the answer is the end of the connection's one half: no need to wait for more."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head("POST /nowhere", "1.0", "", LARGE) + b" " * 1000)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        assert status(received) == 404
        connection.sendall(b" " * (LARGE - 1000))  # nobody has hung up on it


def cut_off(connection: socket.socket, piece: bytes, times: int, pause_s: float = 0) -> bool:
    """Whether the connection is reset while so many pieces are sent."""
    try:
        for _ in range(times):
            time.sleep(pause_s)
            connection.sendall(piece)
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_who_never_stops_is_cut_off(start, models: Path):
    server = start(models)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head("POST /nowhere", "1.0", "", 10**12))
        assert cut_off(connection, b" " * 1_000_000, 400)
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head("POST /nowhere", "1.0", "", 10**6))
        assert cut_off(connection, b" ", 12, pause_s=5)  # and so is who says nothing for seconds
    assert server.stop() == 0
    assert server.err == ""


# --- behind nginx -------------------------------------------------------------------------

CONF = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log info;
worker_rlimit_nofile 1024;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    proxy_request_buffering {buffering};
    location / {{ proxy_pass {url}; }}
  }}
}}
"""


@pytest.fixture(params=["on", "off"])
def proxied(served, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """nginx as it comes: HTTP/1.0 to the server behind it, `Connection: close`."""
    if NGINX is None:
        assert not os.environ.get("ALL_TOOLS_REQUIRED"), "no nginx"
        pytest.skip("nginx is not installed (Debian: apt install nginx)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        CONF.format(folder=tmp_path, port=port, url=served.url, buffering=request.param)
    )
    process = subprocess.Popen(
        [NGINX, "-p", str(tmp_path), "-c", str(conf), "-e", str(tmp_path / "error.log")]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/health/live", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < end
                assert process.poll() is None, (tmp_path / "error.log").read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_early_answers_arrive_through_nginx(proxied: str):
    for code, line, more in EARLY[1:]:
        # What is refused for its size has to be large.
        for size in (LARGE, 10_000_000) if code == 413 else (1_000, 100_000, LARGE, 10_000_000):
            answer = exchange(
                proxied, head(line, "1.1", "Connection: close\r\n" + more, size), b" " * size
            )
            assert status(answer) == code, (line, size, answer[:300])


def test_several_at_a_time_do_too(proxied: str):
    said: list[int] = []

    # nginx itself may end a connection whose body it has not read, so each request has its own.
    once = {"Connection": "close"}

    def ask() -> None:
        with httpx.Client(base_url=proxied, timeout=60, trust_env=False, headers=once) as client:
            said.extend(client.post("/predict", content=b" " * LARGE).status_code for _ in range(4))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == [413] * 24
