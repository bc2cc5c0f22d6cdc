"""The least that a server of HTTP/1.1 in Python costs: uvloop, httptools, always the same answer.

    python -m benchmarks.serving.floor      # started by `benchmarks.serving.processor`

It reads every request to its end, looks at nothing of it, and writes as many bytes as a model's
answer has in binary. What ours takes beyond it is spent on predictions.
"""

from __future__ import annotations

import asyncio

import httptools
import uvloop

from benchmarks.serving import peer
from benchmarks.serving.peer import Model, Peer
from benchmarks.serving.peers import foldserve

PEER = Peer(
    "floor", "the floor", (), ("-m", "benchmarks.serving.floor"), foldserve.PEER.routes,
    "uvloop, httptools, always the same answer",
)  # fmt: skip


class Connection(asyncio.Protocol):
    """One of them; `answer` is that of every request."""

    answer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Told by the parser."""
        self._transport.write(self.answer)


async def serve() -> None:
    """Until the process is ended."""
    body = bytes(4 * Model.served().classes)
    Connection.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", peer.port())
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
