"""Limits of a connection: slow, huge, too many, piled up, and not HTTP at all."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from repository import linear, publish

pytestmark = pytest.mark.slow

GOOD = b'{"inputs": [[1, 2, 3, 4]]}'
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", linear())
    return root


def connect(served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer whole: status, headers in lower case, body."""
    with connection.makefile("rb") as file:
        status = file.readline()
        assert status.startswith(b"HTTP/1.1 "), status
        headers = {}
        while (line := file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(status.split()[1]), headers, file.read(int(headers["content-length"]))


def refused(connection: socket.socket, status: int, code: str) -> dict[str, str]:
    got, headers, body = answer(connection)
    assert (got, json.loads(body)["code"]) == (status, code)
    assert set(json.loads(body)) == {"code", "message", "hint"}
    return headers


def closed(connection: socket.socket) -> bool:
    """Whether the server ends the connection (within the socket's time-out)."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_headers_that_trickle(start, models: Path):
    served = start(models, "--header-timeout-ms", "50")
    for sent in (b"P", b"\r\n", b"POST /predict HTTP/1.1\r\nHost:"):
        with connect(served) as connection:
            connection.sendall(sent)
            refused(connection, 408, "header_timeout")
            assert closed(connection)
    with connect(served) as connection:  # the second request of a connection, too
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200
        connection.sendall(b"GET / HT")
        refused(connection, 408, "header_timeout")
    assert served.stop() == 0
    assert served.err == ""


def test_silent_and_idle_connections_are_closed_without_a_word(start, models: Path):
    served = start(models, "--keep-alive-timeout-ms", "50")
    with connect(served) as silent, connect(served) as idle:
        idle.sendall(LIVE)
        assert answer(idle)[0] == 200
        assert closed(silent)
        assert closed(idle)
    assert served.stop() == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 3_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 3_000_000,
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500_000,
        b"G" * 100 + b" ",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS handshake
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: f"{sent[:20]!r}{len(sent)}",
)
def test_heads_that_are_refused(start, server, sent: bytes):
    before = len(server.err)
    with connect(server) as connection:
        connection.sendall(sent)
        status, _, body = answer(connection)
        code = json.loads(body)["code"]
        assert (status, code) in {(431, "headers_too_large"), (400, "malformed_http")}
        assert (status == 431) == (len(sent) > 500)
        assert closed(connection)
    with connect(server) as connection:
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200
    assert server.err[before:] == ""


def test_many_headers_within_the_limits(server):
    with connect(server) as connection:
        head = b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + b"a: " + b"b" * 300 + b"\r\n"
        connection.sendall(head + b"a: b\r\n" * 98 + b"\r\n")
        assert answer(connection)[0] == 200


def test_requests_piled_up(start, models: Path):
    served = start(models)
    with connect(served) as connection:
        connection.sendall(LIVE * 90)
        with connection.makefile("rb") as file:
            for _ in range(90):
                assert file.readline() == b"HTTP/1.1 200 OK\r\n"
                while file.readline() != b"\r\n":
                    pass
                file.read(len('{"status":"live"}'))
    with connect(served) as connection:
        connection.sendall(LIVE * 5000)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        assert received.count(b"HTTP/1.1 200 OK") < 5000
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
    assert served.stop() == 0
    assert served.err == ""


def test_too_many_connections_are_told_so_and_health_still_answers(start, models: Path):
    served = start(models, "--max-connections", "3")
    held = [connect(served) for _ in range(3)]
    for connection in held:
        connection.sendall(POST)
        assert answer(connection)[0] == 200
    with connect(served) as one_more:
        one_more.sendall(POST)
        headers = refused(one_more, 503, "too_many_connections")
        assert headers["retry-after"] == "1"
        one_more.sendall(LIVE)
        assert answer(one_more)[0] == 200
    crowd: list[socket.socket] = []
    for _ in range(20):
        for connection in held:  # who is silent for a second makes room, and these are not
            connection.sendall(POST)
            assert answer(connection)[0] == 200
        crowd += [connect(served) for _ in range(10)]
    refused(crowd[0], 503, "too_many_connections")  # the oldest make room, unheard
    assert closed(crowd[0])
    for path in (b"/health/live", b"/v2/health/live"):
        crowd[-1].sendall(LIVE.replace(b"/health/live", path))
        assert answer(crowd[-1])[0] == 200
    for connection in crowd:
        connection.close()
    held[0].sendall(POST)
    assert answer(held[0])[0] == 200
    for connection in held:
        connection.close()
    with served.client() as client:  # all have left
        while client.post("/predict", content=GOOD).status_code == 503:
            client.close()
            client = served.client()
    assert served.stop() == 0
    assert served.err == ""


# --- where one request ends and the next begins -------------------------------------------


def test_a_length_that_is_too_short_is_an_error_of_that_request(server):
    """The bytes behind its end are no HTTP: the request is answered, and then it is over."""
    with connect(server) as connection:
        connection.sendall(POST.replace(b"Content-Length: 26", b"Content-Length: 10"))
        refused(connection, 400, "malformed_json")
        while connection.recv(65536):  # at most an error about those bytes
            pass


def test_a_body_that_is_not_awaited_ends_the_connection(server):
    """After an answer in the place of `100 Continue`, a body or a head could come next."""
    head = POST.replace(b"/predict", b"/nowhere").partition(b"\r\n\r\n")[0]
    with connect(server) as connection:
        connection.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        refused(connection, 404, "not_found")
        assert closed(connection)


def test_the_rest_of_a_body_is_not_awaited_for_ever(start, models: Path):
    served = start(models, "--body-timeout-ms", "50")
    with connect(served) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n{")
        refused(connection, 404, "not_found")
        assert closed(connection)
    assert served.stop() == 0


def test_a_large_body_that_was_refused_early_is_no_head(server):
    """More of it than --max-header-bytes comes after the answer."""
    body = b" " * 1_000_000
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(
                b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
            )
            refused(connection, 404, "not_found")
            connection.sendall(body)
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_chunks_are_the_only_coding_that_is_undone(server):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %b\r\n\r\n"
    with connect(server) as connection:
        for coding, status in ((b"gzip, chunked", 415), (b"Chunked", 400), (b"a , chunked", 415)):
            connection.sendall(head % coding + b"2\r\n{}\r\n0\r\n\r\n")
            assert answer(connection)[0] == status
