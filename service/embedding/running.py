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

_SECOND_S = 1.0


class Running:
    """A service whose models are loaded.

    Raises:
        DeviceUnavailable: CUDA was required and did not start.
    """

    def __init__(self, parts: Parts) -> None:
        self.app = parts.app
        self._parts = parts
        self._context = context = parts.context
        self._closed = threading.Event()
        try:
            context.registry.load()
        except BaseException:
            parts.close()  # whoever asks next begins anew
            raise
        give_back()  # loading has used several times the memory that is needed afterwards
        threading.Thread(target=self._look_at_keys, name="foldserve-keys", daemon=True).start()
        parts.watch()

    def close(self) -> None:
        """End its threads. Runs that have begun are waited for, but no longer than a second."""
        self._context.lifecycle.draining = True
        self._closed.set()
        if not self._parts.close():
            logger.warning("a model was still running at the end; its answer is lost")

    def _look_at_keys(self) -> None:
        while not self._closed.wait(_SECOND_S):
            with faults.contained(logger, "the keys could not be read again"):
                self._context.access.refresh()
