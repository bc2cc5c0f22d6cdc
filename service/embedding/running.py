"""A service from its start to its end, without a process, a port, a signal or a log of its own.

start    every model is loaded, as far as it can be
alive    a thread looks for new versions, another one at the key files each second
close    not ready any more, then the threads of the models end
"""

from __future__ import annotations

import logging
import threading

from service import faults
from service.assembly import Parts
from service.models.heap import give_back

logger = logging.getLogger("foldserve")

_CLOSE_S = 1.0
_SECOND_S = 1.0


class Running:
    """A service whose models are loaded.

    Args:
        parts: the service, of which it closes all.

    Raises:
        DeviceUnavailable: CUDA was required and did not start.
    """

    def __init__(self, parts: Parts) -> None:
        self.app = parts.app
        self._parts = parts
        self._context = context = parts.context
        self._closed = threading.Event()
        context.registry.load()
        give_back()  # loading has used several times the memory that is needed afterwards
        threading.Thread(target=self._look_at_keys, name="foldserve-keys", daemon=True).start()
        if context.settings.watch_interval_ms:
            interval_s = (context.settings.watch_interval_ms / 1000,)
            watch = context.registry.watch
            threading.Thread(
                target=watch, args=interval_s, name="foldserve-watch", daemon=True
            ).start()

    def close(self) -> None:
        """End its threads. Runs that have begun are waited for, but no longer than a second."""
        self._context.lifecycle.draining = True
        self._closed.set()
        if not self._parts.close(_CLOSE_S):
            logger.warning("a model was still running at the end; its answer is lost")

    def _look_at_keys(self) -> None:
        while not self._closed.wait(_SECOND_S):
            with faults.contained(logger, "the keys could not be read again"):
                self._context.access.refresh()
