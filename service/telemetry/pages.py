"""The metrics of several worker processes, whichever of them is asked.

Each worker writes its page into one folder once a second, aside and renamed; the worker that is
asked adds its own as it is now. Every sample has the label `worker`, so that counters of a worker
that was started again begin anew by themselves, as Prometheus expects.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("foldserve.metrics")

PAGES = ".prom"


class SharedPages:
    """One worker's view of the folder, or the supervisor's.

    Args:
        folder: made and removed by the supervisor.
        index: of this worker, from 0; of the supervisor, the number that no worker has.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self._folder = folder
        self._name = str(index)
        self.labels = {"worker": str(index)}
        self._said = False

    def publish(self, page: str, end: str = PAGES) -> None:
        """Put this worker's page where the others find it; `end` tells one kind from another."""
        aside = self._folder / f".{self._name}{end}"
        try:
            aside.write_text(page, encoding="utf-8")
            aside.replace(self._folder / f"{self._name}{end}")
        except OSError as error:
            if not self._said:  # a full disk must not fill the log as well
                self._said = True
                logger.error("the metrics cannot be shared: %s", error.strerror)

    def withdraw(self) -> None:
        """Who has ended is neither ready nor busy: its page is not shown any more."""
        with suppress(OSError):
            (self._folder / f"{self._name}{PAGES}").unlink(missing_ok=True)

    def others(self, end: str = PAGES) -> list[str]:
        """The pages of the other workers, as they were a second ago at most."""
        pages = []
        for path in sorted(self._folder.glob(f"[0-9]*{end}")):
            if path.name == f"{self._name}{end}":
                continue
            try:
                pages.append(path.read_text(encoding="utf-8"))
            except OSError:
                continue
        return pages
