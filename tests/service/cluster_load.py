"""Clients that never stop, and count what went wrong; and a Ray of our own for the tests."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

_WORKER = re.compile(r'foldserve_ready\{worker="(\d+)"\} 1')


class Load:
    """Threads that ask without a pause from `with` to its end.

    Args:
        url: of the service.
        path, body: of each request.
        judge: what is wrong with an answer, None for nothing.
        threads: clients at a time, each with a connection of its own.
        pause_s: of each client between two requests.
    """

    def __init__(
        self,
        url: str,
        path: str,
        body: Any,
        judge: Callable[[httpx.Response], str | None],
        threads: int = 4,
        pause_s: float = 0.0,
    ) -> None:
        self._url, self._path, self._body, self._judge = url, path, body, judge
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        self.failures: list[str] = []
        self.answers = 0

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120, trust_env=False, verify=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._path, json=self._body)
                    trouble = self._judge(answer)
                except httpx.HTTPError as error:
                    trouble = repr(error)
                self.answers += 1
                if trouble:
                    self.failures.append(trouble)
                self._stop.wait(self._pause_s)


def replicas(client: httpx.Client) -> set[int]:
    """The process ids of the replicas that are ready, as the metrics have them."""
    return {int(pid) for pid in _WORKER.findall(client.get("/metrics").text)}


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
