"""What strangers do to make a server hold memory or places: a client as a process of its own.

    python -m benchmarks.serving.strangers ATTACK HTTP_PORT GRPC_PORT SECONDS

Everything leaves from 127.0.0.2, so that the server sees another address than that of the good
clients. When it has done its worst, it writes a line of JSON that says what it was answered, and
holds on until its time is over.
"""

from __future__ import annotations

import asyncio
import io
import json
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache

MB = 1024 * 1024
ADDRESS = "127.0.0.2"
KEY = "a-key-of-sixteen-characters"
_MESSAGE_BYTES = 16 * MB - 1024
_PER_SECOND = 600  # new connections: it is what they hold that counts
_SIDE = 6000  # pixels of a bomb: 36 million
_OCTETS = b"Accept: application/octet-stream\r\n"


class Ground:
    """Where it happens, and what came back."""

    def __init__(self, http_port: int, grpc_port: int, end: float) -> None:
        self.http_port = http_port
        self.grpc_port = grpc_port
        self.end = end
        self.answers: Counter[str] = Counter()
        self.sockets: list[socket.socket] = []
        self._next = 0.0

    async def connect(self, port: int = 0, receive_bytes: int = 0) -> socket.socket:
        """A connection from the strangers' address; a small buffer for what is not to be read."""
        await self._pace()
        made = socket.socket()
        made.setblocking(False)
        made.bind((ADDRESS, 0))
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, ("127.0.0.1", port or self.http_port))
        self.sockets.append(made)
        return made

    async def _pace(self) -> None:
        self._next = max(self._next + 1 / _PER_SECOND, time.monotonic())
        await asyncio.sleep(self._next - time.monotonic())

    async def send(self, made: socket.socket, data: bytes) -> str:
        """Send it, and count the status of what comes back, or why nothing does."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(made, data)
            seen = await asyncio.wait_for(loop.sock_recv(made, 16), self.end - time.monotonic())
            found = seen[9:12].decode() or "closed"
        except TimeoutError:
            found = "waits"
        except OSError:
            found = "closed"
        self.answers[found] += 1
        return found


def _post(path: str, body: bytes, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    return head + b"Content-Type: " + kind + b"\r\n" + more + b"\r\n" + body


def _wide(rows: int) -> bytes:
    """Each row is answered with a megabyte."""
    return _post(
        "/models/wide/predict", b'{"inputs":[%b]}' % b",".join([b"[1]"] * rows), more=_OCTETS
    )


async def readers(ground: Ground) -> None:
    """1,000 connections that ask for 4 MB each and read nothing but the status."""

    async def one() -> None:
        with suppress(OSError):
            await ground.send(await ground.connect(receive_bytes=4096), _wide(4))

    await asyncio.gather(*[one() for _ in range(1000)])


async def last_bytes(ground: Ground) -> None:
    """300 that read their 8 MB but for the last 100 kB."""
    loop = asyncio.get_running_loop()

    async def one() -> None:
        try:
            made = await ground.connect(receive_bytes=4096)
            await loop.sock_sendall(made, _wide(8))
            seen = (await loop.sock_recv(made, 4096))[9:12].decode()
            left = 8 * MB - 100_000
            while seen == "200" and left > 0:
                left -= len(await loop.sock_recv(made, min(left, 256 * 1024))) or left
            ground.answers[seen or "closed"] += 1
        except OSError:
            ground.answers["closed"] += 1

    await asyncio.gather(*[one() for _ in range(300)])


async def bombs(ground: Ground) -> None:
    """100 pictures of 36 million pixels in small files: PNG and progressive JPEG."""
    posts = pictures()

    async def one(number: int) -> None:
        with suppress(OSError):
            await ground.send(await ground.connect(), posts[number % 2])

    await asyncio.gather(*[one(number) for number in range(100)])


@cache
def pictures() -> list[bytes]:
    """Requests with a bomb each."""
    from PIL import Image

    png, jpeg = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (_SIDE, _SIDE)).save(png, "PNG")
    Image.new("RGB", (_SIDE, _SIDE)).save(jpeg, "JPEG", progressive=True, subsampling=0)
    kinds = ((png, b"image/png"), (jpeg, b"image/jpeg"))
    return [_post("/models/vision/predict", f.getvalue(), kind) for f, kind in kinds]


async def lists(ground: Ground) -> None:
    """40 bodies of 16 MB that are lists of nothing: as objects they take 25 times as much."""
    body = b'{"inputs":[' + b"[]," * (16 * MB // 3 - 8) + b"[]]}"
    post = _post("/models/digits/predict", body)

    async def one() -> None:
        with suppress(OSError):
            await ground.send(await ground.connect(), post)

    await asyncio.gather(*[one() for _ in range(40)])


async def heads(ground: Ground) -> None:
    """900 connections that send 30 kB of headers of four bytes each, and no end of them."""
    begun = b"POST /models/digits/predict HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 7500

    async def one() -> None:
        with suppress(OSError):
            await ground.send(await ground.connect(), begun)

    await asyncio.gather(*[one() for _ in range(900)])


async def idle(ground: Ground) -> None:
    """3,000 connections that say nothing."""

    async def one() -> None:
        try:
            made = await ground.connect()
            seen = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(made, 16), ground.end - time.monotonic()
            )
            ground.answers[seen[9:12].decode() or "closed"] += 1
        except TimeoutError:
            ground.answers["waits"] += 1
        except OSError:
            ground.answers["closed"] += 1

    await asyncio.gather(*[one() for _ in range(3000)])


async def messages(ground: Ground) -> None:
    """200 gRPC messages of 16 MB without a key."""
    await _messages(ground, ())


async def keyed_messages(ground: Ground) -> None:
    """200 gRPC messages of 16 MB with a key, which may come in."""
    await _messages(ground, (("x-api-key", KEY),))


async def _messages(ground: Ground, metadata: tuple[tuple[str, str], ...]) -> None:
    import grpc

    from service.protocols import grpc_messages

    request = grpc_messages.classes()["ModelInferRequest"](model_name="wide")
    request.inputs.add(name="x", datatype="FP32", shape=[_MESSAGE_BYTES // 4, 1])
    request.raw_input_contents.append(bytes(_MESSAGE_BYTES))
    message = request.SerializeToString()
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]

    async def one() -> None:
        target = f"127.0.0.1:{ground.grpc_port}"
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            try:
                await call(message, metadata=metadata, timeout=ground.end - time.monotonic())
            except grpc.aio.AioRpcError as error:
                ground.answers[error.code().name] += 1
            else:
                ground.answers["OK"] += 1

    await asyncio.gather(*[one() for _ in range(200)])


async def nothing(ground: Ground) -> None:
    """Nothing, for comparison."""


ATTACKS: dict[str, Callable[[Ground], Awaitable[None]]] = {
    made.__name__: made
    for made in (nothing, readers, last_bytes, heads, bombs, lists, idle, messages, keyed_messages)
}


async def _run(name: str, http_port: int, grpc_port: int, seconds: float) -> None:
    ground = Ground(http_port, grpc_port, time.monotonic() + seconds)
    with suppress(TimeoutError):
        await asyncio.wait_for(ATTACKS[name](ground), seconds + 1)
    print(json.dumps(ground.answers), flush=True)
    await asyncio.sleep(max(0.0, ground.end - time.monotonic()))
    for each in ground.sockets:
        each.close()


def main() -> int:
    name, http_port, grpc_port, seconds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if name == bombs.__name__:
        pictures()  # before the time begins
    asyncio.run(_run(name, int(http_port), int(grpc_port), float(seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
