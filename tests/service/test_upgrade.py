"""Clients that would rather speak another protocol, as Java's do of every server they meet."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest
from repository import linear, publish
from test_connections import GOOD, LIVE, answer, closed, connect, refused

# What java.net.http.HttpClient and curl --http2 say without TLS.
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\n" + H2C
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def served(start, tmp_path_factory: pytest.TempPathFactory):
    root: Path = tmp_path_factory.mktemp("models")
    publish(root, "m", linear())
    served = start(root)
    yield served
    assert served.stop() == 0
    assert served.err == ""


class Answers:
    """For `answer`: what comes on a connection, where several answers may come in one read."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def makefile(self, _: str):
        return contextlib.nullcontext(self._file)


def scores(connection: socket.socket) -> list[list[float]]:
    status, _, body = answer(connection)
    assert status == 200, body
    return json.loads(body)["outputs"]["scores"]


def test_a_body_is_read_as_if_nothing_had_been_asked_for(served):
    request = HEAD % b"/predict" + b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
    usual = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
    chunked = HEAD % b"/predict" + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        len(GOOD),
        GOOD,
    )
    with connect(served) as connection:
        answers = Answers(connection)
        connection.sendall(usual)
        expected = scores(answers)
        for sent in (request, chunked, request + usual):
            connection.sendall(sent)
            assert scores(answers) == expected
        assert scores(answers) == expected


def test_in_pieces(served):
    request = HEAD % b"/predict" + b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
    with connect(served) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in (5, 30, 120, request.index(b"\r\n\r\n") + 4, len(request) - 3):
            connection.sendall(request[:cut])
            # A second connection's answer: the server has read what was sent before.
            with connect(served) as other:
                other.sendall(LIVE)
                assert answer(other)[0] == 200
            connection.sendall(request[cut:])
            assert len(scores(connection)) == 1


def test_a_large_body(served):
    rows = b"[1, 2, 3, 4]," * 20_000
    body = b'{"inputs": [%b]}' % rows[:-1]
    with connect(served) as connection:
        connection.sendall(HEAD % b"/predict" + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        assert answer(connection)[0] in (200, 413)
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_a_body_is_never_taken_for_a_request(served):
    inside = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(served) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HEAD % b"/predict" + b"Content-Length: %d\r\n\r\n" % len(inside))
        with connect(served) as other:
            other.sendall(LIVE)
            assert answer(other)[0] == 200
        connection.sendall(inside + LIVE)
        answers = Answers(connection)
        refused(answers, 400, "malformed_json")
        assert json.loads(answer(answers)[2]) == {"status": "live"}


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0"])
def test_what_comes_behind_a_request_without_a_body_is_answered(served, protocol: bytes):
    asked = LIVE[:-2] + b"Connection: upgrade, close\r\nUpgrade: %b\r\n\r\n" % protocol
    with connect(served) as connection:
        connection.sendall(asked.replace(b", close", b"") + asked + LIVE)
        answers = Answers(connection)
        assert answer(answers)[0] == 200
        status, headers, _ = answer(answers)
        assert (status, headers["connection"]) == (200, "close")
        assert closed(connection)


def test_many_in_one_read_are_too_many(served):
    asked = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(asked * 3000)
        came = b""
        while part := connection.recv(65536):
            came += part
        assert 1 <= came.count(b"HTTP/1.1 200 OK") <= 101
    assert served.err == ""


def test_bad_bodies_of_such_requests(served):
    with connect(served) as connection:
        connection.sendall(HEAD % INFER.encode() + b"Content-Length: 2\r\n\r\n{}")
        status, _, body = answer(connection)
        assert (status, list(json.loads(body))) == (400, ["error"])
        connection.sendall(HEAD % b"/predict" + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        refused(connection, 400, "malformed_http")
        assert closed(connection)
