"""The head of a request and a body in chunks, read as another parser does, and on a real server."""

from __future__ import annotations

import socket
import time
from itertools import pairwise
from pathlib import Path

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import as_long_as_asked, linear, publish
from test_connections import GOOD, LIVE, POST, answer, closed, connect, refused
from test_metrics import until
from test_upgrade import Answers

from service.connections import head as heads
from service.connections.chunks import Chunks
from service.connections.head import HeadParser
from service.errors import HeadersTooLarge, MalformedHttp, ServiceError

FIRST = b"GET /a%20b?c=d HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
LINES = b"X-A: 1 \r\nx-a: 2\r\nContent-Length: 12\r\nConnection: Foo, Close\r\n\r\n"
SEVERAL = FIRST + HOST + LINES


def test_what_a_head_says():
    head = heads.read(SEVERAL, 1000)
    assert (head.method, head.path, head.raw_path, head.query) == ("GET", "/a b", b"/a%20b", b"c=d")
    assert head.headers == [
        (b"host", b"x"), (b"x-a", b"1"), (b"x-a", b"2"), (b"content-length", b"12"),
        (b"connection", b"Foo, Close"),
    ]  # fmt: skip
    assert head.first[b"x-a"] == b"1"
    assert (head.length, head.keep_alive, head.expects) == (12, False, False)


@pytest.mark.parametrize(
    ("sent", "length", "keep_alive", "expects"),
    [
        (FIRST + HOST, 0, True, False),
        (FIRST + HOST + b"Transfer-Encoding: chunked\r\n", None, True, False),
        (FIRST + HOST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n", 1, True, True),
        (b"GET / HTTP/1.0\r\n", 0, False, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n", 0, False, False),
        (FIRST + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n", 0, True, False),
        (b"GET http://x HTTP/1.1\r\n" + HOST, 0, True, False),
    ],
)
def test_its_body_and_its_connection(
    sent: bytes, length: int | None, keep_alive: bool, expects: bool
):
    head = heads.read(sent + b"\r\n", 1000)
    assert (head.length, head.keep_alive, head.expects) == (length, keep_alive, expects)


@pytest.mark.parametrize(
    "sent",
    [
        FIRST,
        FIRST + HOST + HOST,
        FIRST + HOST + b"X-A: 1\r\n 2\r\n",
        FIRST + HOST + b"X-A : 1\r\n",
        FIRST + HOST + b"X-A: 1\n",
        FIRST + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        FIRST + HOST + b"Transfer-Encoding: chunked, gzip\r\n",
        FIRST + HOST + b"Transfer-Encoding: identity\r\n",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        b"GET / HTTP/2.0\r\n" + HOST,
        b"GET /\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n" + HOST,
    ],
)
def test_heads_that_two_could_read_in_two_ways(sent: bytes):
    with pytest.raises(MalformedHttp):
        heads.read(sent + b"\r\n", 1000)


@given(st.lists(st.integers(1, len(SEVERAL) - 1), max_size=8), st.binary(max_size=9))
def test_pieces_make_the_same_head(cuts: list[int], behind: bytes):
    parser = HeadParser(len(SEVERAL))
    places = [0, *sorted(set(cuts)), len(SEVERAL)]
    pieces = [SEVERAL[a:b] for a, b in pairwise(places)]
    for piece in pieces[:-1]:
        assert parser.feed(piece) == -1
    assert parser.feed(pieces[-1] + behind) == len(pieces[-1])
    assert parser.head() == heads.read(SEVERAL, len(SEVERAL))


def test_the_limit_is_exact():
    for pieces in ([SEVERAL], [SEVERAL[:-1], SEVERAL[-1:]]):
        for limit in (len(SEVERAL), len(SEVERAL) - 1):
            parser = HeadParser(limit)
            if limit < len(SEVERAL):
                with pytest.raises(HeadersTooLarge):
                    [parser.feed(piece) for piece in pieces]
            else:
                assert [parser.feed(piece) for piece in pieces][-1] == len(pieces[-1])


# --- chunks -------------------------------------------------------------------------------


def reference(sent: bytes) -> tuple[bytes, bytes] | None:
    """Content, and what is behind the end, as h11 finds them; None for what it does not take."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + sent)
    content = b""
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Data):
                content += event.data
            if isinstance(event, h11.EndOfMessage):
                return content, bytes(parser.trailing_data[0])
            if event is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None


def ours(pieces: list[bytes]) -> tuple[bytes, bytes] | None:
    chunks, content, behind = Chunks(), b"", b""
    try:
        for piece in pieces:
            if chunks.complete:
                behind += piece
                continue
            parts, behind = chunks.feed(piece)
            content += b"".join(parts)
    except ServiceError:
        return None
    return (content, behind) if chunks.complete else None


GOOD_CHUNKS = b"5\r\nabcde\r\n0A;x=y\r\n0123456789\r\n1;\r\n\r\r\n0\r\nA: b\r\nC:\r\n\r\nbehind"


@given(st.lists(st.integers(1, len(GOOD_CHUNKS) - 1), max_size=12))
def test_chunks_in_pieces(cuts: list[int]):
    places = [0, *sorted(set(cuts)), len(GOOD_CHUNKS)]
    pieces = [GOOD_CHUNKS[a:b] for a, b in pairwise(places)]
    assert ours(pieces) == (b"abcde0123456789\r", b"behind") == reference(GOOD_CHUNKS)


@given(
    st.integers(0, len(GOOD_CHUNKS) - 7),
    st.sampled_from([b"", b"\r", b"\n", b"0", b" ", b";", b"\0", b"-", b"\r\n", b"g", b"\t"]),
    st.integers(0, 2),
)
def test_what_is_changed_is_read_alike_or_not_at_all(place: int, put: bytes, taken: int):
    sent = GOOD_CHUNKS[:place] + put + GOOD_CHUNKS[place + taken :]
    found = ours([sent])
    assert found is None or found == reference(sent)
    assert ours([bytes([byte]) for byte in sent]) == found


# --- a real server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(start, tmp_path_factory: pytest.TempPathFactory):
    root: Path = tmp_path_factory.mktemp("models")
    publish(root, "m", linear())
    publish(root, "slow", as_long_as_asked())
    served = start(root, "--default-model", "m")
    yield served
    served.process.kill()  # a run of `slow` is still under way
    served.end()


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_limit_of_the_server_is_exact(served, pieces: int):
    begin = LIVE[:-2] + b"X-Long: "
    for size in (32_768, 32_769):
        head = begin + b"a" * (size - len(begin) - 4) + b"\r\n\r\n"
        assert len(head) == size
        with connect(served) as connection:
            if pieces > 1:
                connection.sendall(head[:100])
                time.sleep(0.1)
                head = head[100:]
            connection.sendall(head)
            if size == 32_768:
                assert answer(connection)[0] == 200
            else:
                refused(connection, 431, "headers_too_large")


def test_who_closes_one_half_is_answered(served):
    """Without a task, by a task, by a thread, and several at once; and then the rest is closed."""
    large = b'{"inputs": [%b]}' % b",".join([b"[1, 2, 3, 4]"] * 3000)
    slow = b'{"inputs": [[1e4]]}'
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    for sent, count in (
        (POST, 1),
        (LIVE, 1),
        (head % (b"/models/m/predict", len(large), large), 1),
        (head % (b"/models/slow/predict", len(slow), slow), 1),
        (POST + LIVE + POST, 3),
    ):
        with connect(served) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answers = Answers(connection)
            assert [answer(answers)[0] in (200, 413) for _ in range(count)] == [True] * count
            assert closed(connection)


def test_who_closes_it_within_a_request_is_not(served):
    for sent in (POST[:-1], POST[:20], b"", POST.replace(GOOD, b"")):
        with connect(served) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert closed(connection)


def test_empty_lines_before_a_request_are_passed_over(served):
    with connect(served) as connection:
        for sent in (b"\r\n" + LIVE, b"\r\n\r\n" + POST, b"\r\n" * 3 + LIVE):
            connection.sendall(sent)
            assert answer(connection)[0] == 200


def test_a_writer_of_single_bytes_is_answered(served):
    with connect(served) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST:
            connection.sendall(bytes([byte]))
        assert answer(connection)[0] == 200


def test_who_has_gone_is_not_waited_for(served):
    """A client that leaves closes its half first; only who has not gone passes an interim over."""
    body = b'{"inputs": [[1e12]]}'
    head = b"POST /models/slow/predict HTTP/1.1\r\nHost: x\r\nX-Timeout-Ms: %d\r\n"
    end = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with served.client() as client, connect(served) as stays, connect(served) as goes:
        stays.sendall(head % 6000 + end)
        stays.shutdown(socket.SHUT_WR)
        goes.sendall(head % 60_000 + end)
        goes.close()
        labels = {"route": "/models/{name}/predict", "model": "slow", "code": "499"}
        until(client, "foldserve_requests_total", 1, **labels)
        received = b""
        while part := stays.recv(65536):
            received += part
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert received.startswith(interim)
    assert received.replace(interim, b"").startswith(b"HTTP/1.1 504 ")
