"""A body that comes through plain ASGI, in whatever pieces."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from starlette.types import Message

from service import http
from service.budget import Budget
from service.errors import BodyTooLarge
from service.exchange import Exchange


class Client:
    """Sends a body in pieces of one size, without telling its length."""

    def __init__(self, body: bytes, size: int) -> None:
        self._body, self._size, self._at = body, size, 0
        self.exchange = Exchange("id", Budget(10**9))
        self.scope = {"headers": [], "state": {"exchange": self.exchange}}

    async def receive(self) -> Message:
        piece = self._body[self._at : self._at + self._size]
        self._at += self._size
        return {"type": "http.request", "body": piece, "more_body": self._at < len(self._body)}

    def read(self, most: int) -> bytes:
        return bytes(asyncio.run(http.read_body(self.scope, self.receive, most, 60.0)))


@pytest.mark.parametrize("size", [1, 3, 1000, 5000])
def test_every_byte_in_its_place(size: int) -> None:
    body = bytes(range(250)) * 20
    client = Client(body, size)
    assert client.read(len(body)) == body
    assert client.exchange.body_bytes == len(body)
    assert client.exchange.read > 0


def test_more_than_is_taken() -> None:
    with pytest.raises(BodyTooLarge):
        Client(b"x" * 100, 7).read(99)


def test_pieces_of_a_byte_take_no_more_than_the_body_twice() -> None:
    body = b"x" * 200_000
    tracemalloc.start()
    try:
        Client(body, 1).read(len(body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(body)  # a list of the pieces took seven times
