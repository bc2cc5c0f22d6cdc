"""TLS below a connection, in this process: any cut of what comes, any pace of what goes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import re
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest
from authority import Authority
from repository import linear, publish
from test_quick import BODY, PREDICT, Bench, Pipe, X, chunked, whole

from service.connections.secured import Secured, secured_class
from service.tls.certificates import Certificates

pytestmark = pytest.mark.slow

ROOT = Authority()
SEEDS = 40


class Socket(Pipe):
    """A transport that takes so much and then says so, and whose client reads when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.above: Secured
        self.reads = True
        self.half_closed = False
        self._high = 64 * 1024
        self._full = False

    def write(self, data):
        assert not self.half_closed
        super().write(data)
        if len(self.written) > self._high and not self._full:
            self._full = True
            self.above.pause_writing()

    def take(self, size: int) -> bytes:
        taken, self.written = self.written[:size], self.written[size:]
        if self._full and not self.written:
            self._full = False
            self.above.resume_writing()
        return taken

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.half_closed = True

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True

    def get_write_buffer_size(self):
        return len(self.written)

    def set_write_buffer_limits(self, high=None, low=None):  # noqa: ARG002
        self._high = high


class Pair:
    """A client and the server's connection, with nothing between them but this object."""

    def __init__(self, served: Bench, secured: type[Secured]) -> None:
        self.socket = Socket()
        self.socket.above = self.server = secured(served._config, served._state, {})
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=ROOT.certificate.decode())
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_hostname="127.0.0.1")
        self.received = b""
        self.ended = False
        self.server.connection_made(self.socket)

    def read(self, size: int = 1 << 20) -> None:
        """So much of what the server has written."""
        if data := self.socket.take(size):
            self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self.tls.read(1 << 16):
                self.received += part
            self.ended = True

    def shake(self) -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                break
            self.server.data_received(self.outgoing.read())
            self._incoming.write(self.socket.take(1 << 20))
        self.server.data_received(self.outgoing.read())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", linear(), test={"x": X}, batch_invariant=True)
    made = Bench(root)
    yield made
    made.registry.close(5)


@pytest.fixture(scope="module")
def secured(served: Bench, tmp_path_factory: pytest.TempPathFactory) -> type[Secured]:
    certificates = Certificates(*ROOT.pair().write(tmp_path_factory.mktemp("tls"), "server"))
    return secured_class(served._config.http_protocol_class, certificates)


ROWS = json.dumps({"inputs": X.tolist() * 200}).encode()
LARGE = b'{"inputs": [[1,2,3,4]], "more": "' + b"x" * 200_000 + b'"}'
KINDS = [
    (whole, BODY, 200), (chunked, BODY, 200), (whole, b"{", 400), (whole, ROWS, 200),
    (chunked, ROWS, 200), (whole, LARGE, 400),
]  # fmt: skip


def requests(dice: random.Random) -> tuple[bytes, list[tuple[str, int]]]:
    """A stream of them, and the id and status of each answer."""
    wanted, stream = [], b""
    for number in range(dice.randrange(1, 25)):
        make, body, status = dice.choice(KINDS)
        stream += make(PREDICT, body, X_Request_ID=f"id-{number}")
        wanted.append((f"id-{number}", status))
    return stream, wanted


def answers(received: bytes) -> list[tuple[str, int]]:
    """Id and status of all whole answers."""
    found = []
    while b"\r\n\r\n" in received:
        top, _, rest = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", top)[1])  # type: ignore[index]
        if len(rest) < length:
            break
        received = rest[length:]
        name = re.search(rb"x-request-id: (\S+)", top)[1]  # type: ignore[index]
        found.append((name.decode(), int(top.split()[1])))
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_cut_and_any_pace_give_the_same_answers(
    served: Bench, secured: type[Secured], seed: int
):
    dice = random.Random(seed)
    stream, wanted = requests(dice)
    most_read = dice.choice([37, 5_000, 1 << 20])

    async def main() -> None:
        pair = Pair(served, secured)
        pair.shake()
        at = 0
        while at < len(stream):  # records of any size
            size = dice.choice([1, 100, 16_384, 1 << 20])
            pair.tls.write(stream[at : at + size])
            at += size
        sent, at = pair.outgoing.read(), 0
        async with asyncio.timeout(120):
            while len(answers(pair.received)) < len(wanted):
                if pair.socket.reads and at < len(sent):
                    size = dice.choice([1, 29, 1_000, 100_000, 1 << 20])
                    pair.server.data_received(sent[at : at + size])
                    at += size
                if dice.random() < 0.5:
                    pair.read(most_read)
                await asyncio.sleep(0)
        assert answers(pair.received) == wanted
        pair.server.connection_lost(None)
        while not served.at_rest():
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_what_the_client_does_not_read_is_counted_and_not_encrypted(
    served: Bench, secured: type[Secured]
):
    async def main() -> None:
        pair = Pair(served, secured)
        pair.shake()
        pair.read()
        answer = b"y" * 5_000_000
        pair.server.write(answer)
        assert len(pair.socket.written) < 300_000
        unread = pair.server.get_write_buffer_size()
        assert len(answer) - 100_000 < unread < len(answer) + 300_000
        while len(pair.received) < len(answer):
            pair.read(100_000)
        assert pair.received == answer
        assert pair.server.get_write_buffer_size() == 0
        pair.server.write(b"z")
        pair.server.close()
        assert pair.socket.closed
        pair.read()
        assert pair.received[-1:] == b"z"
        assert pair.ended
        pair.server.connection_lost(None)

    asyncio.run(main())


def test_the_end_waits_for_what_was_written_before(served: Bench, secured: type[Secured]):
    async def main() -> None:
        pair = Pair(served, secured)
        pair.shake()
        pair.read()
        pair.server.write(b"y" * 1_000_000)
        pair.server.write_eof()
        pair.server.write(b"never sent")
        assert not pair.socket.half_closed
        while not pair.ended:
            pair.read()
        assert pair.received == b"y" * 1_000_000
        assert pair.socket.half_closed
        assert not pair.socket.closed
        pair.tls.write(b"what still comes is read")  # and nothing breaks
        pair.server.data_received(pair.outgoing.read())
        assert not pair.socket.closed
        pair.server.connection_lost(None)

    asyncio.run(main())


def test_bytes_that_are_no_tls_end_the_connection(served: Bench, secured: type[Secured]):
    async def main() -> None:
        for wild in (b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\0" * 100, b"SSH-2.0-x\r\n"):
            pair = Pair(served, secured)
            pair.server.data_received(wild)
            assert pair.socket.half_closed
            pair.server.data_received(b"more of it" * 1000)
            assert pair.server.eof_received() is False
            pair.server.connection_lost(None)
        pair = Pair(served, secured)
        pair.shake()
        pair.tls.write(whole(PREDICT, BODY))
        sent = bytearray(pair.outgoing.read())
        sent[-1] ^= 1  # nothing of it is believed
        pair.server.data_received(bytes(sent))
        assert pair.socket.closed
        pair.server.connection_lost(None)
        assert served.at_rest()

    asyncio.run(main())


def test_a_connection_leaves_nothing_behind(served: Bench, secured: type[Secured]):
    async def ask() -> None:
        pair = Pair(served, secured)
        pair.shake()
        pair.tls.write(whole(PREDICT, BODY))
        pair.server.data_received(pair.outgoing.read())
        while not answers(pair.received):
            pair.read()
            await asyncio.sleep(0)
        server = pair.server
        del pair.socket.above, pair.server, pair
        server.connection_lost(None)
        del server
        await asyncio.sleep(0.005)

    async def main() -> Counter[str]:
        await ask()
        gc.collect()
        await ask()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(type(each).__name__ for each in gc.garbage)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main()) == {}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
