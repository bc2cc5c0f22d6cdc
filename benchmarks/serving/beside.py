"""Work that goes on in a thread of its own while a context is open."""

from __future__ import annotations

import threading
from typing import Self


class Beside:
    """A subclass gives `_work`, which ends soon after `_over` is set.

    What goes wrong in it is raised at the end of the context: a watcher that has died has seen
    nothing, which must not look as if all had been well.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001  told at the end of the context
            self._failure = error

    def _work(self) -> None:
        raise NotImplementedError
