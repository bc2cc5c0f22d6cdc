"""What every call shares that is answered without a task: the gate, the pool, the status lines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.connections.gate import Gate


class Answering:
    """Used on the event loop only.

    Args:
        gate: is told of every request, at its beginning and at its end.
        pool: encodes the answers that would hold up the event loop.
    """

    def __init__(self, gate: Gate, pool: ThreadPoolExecutor) -> None:
        self.gate = gate
        self.pool = pool
        self._defaults: list[tuple[bytes, bytes]] = []
        self._heads: dict[int, bytes] = {}

    def head(self, status: int, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """The status line and the headers of every answer, up to the content type.

        Args:
            status: of the answer.
            defaults: the headers of every answer; the server makes a new list once a second, and
                what was joined from the old one is forgotten then.
        """
        if defaults is not self._defaults:
            self._defaults, self._heads = defaults, {}
        head = self._heads.get(status)
        if head is None:
            lines = [b"%b: %b\r\n" % pair for pair in defaults]
            head = self._heads[status] = STATUS_LINE[status] + b"".join(lines) + b"content-type: "
        return head
