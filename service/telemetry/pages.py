"""The metrics of several worker processes, whichever of them is asked.

Each worker writes its page into one folder once a second, aside and renamed; the worker that is
asked adds its own as it is now. Every sample has the label `worker`, so that counters of a worker
that was started again begin anew by themselves, as Prometheus expects.
"""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger("foldserve.metrics")


class SharedPages:
    """One worker's view of the folder.

    Args:
        folder: made and removed by the supervisor.
        index: of this worker, from 0.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self._folder = folder
        self._name = f"{index}.prom"
        self.labels = {"worker": str(index)}
        self._said = False

    def publish(self, page: str) -> None:
        """Put this worker's page where the others find it."""
        aside = self._folder / f".{self._name}"
        try:
            aside.write_text(page, encoding="utf-8")
            aside.replace(self._folder / self._name)
        except OSError as error:
            if not self._said:  # a full disk must not fill the log as well
                self._said = True
                logger.error("the metrics cannot be shared: %s", error.strerror)

    def others(self) -> list[str]:
        """The pages of the other workers, as they were a second ago at most."""
        pages = []
        for path in sorted(self._folder.glob("[0-9]*.prom")):
            if path.name == self._name:
                continue
            try:
                pages.append(path.read_text(encoding="utf-8"))
            except OSError:
                continue
        return pages
