"""How often workers were replaced: the supervisor's page among those of the workers."""

from __future__ import annotations

from service.telemetry.exposition import Exposition
from service.telemetry.pages import SharedPages

# Its event loop did not turn any more, or the process came to an end.
REASONS = ("silent", "ended")
FAMILY = (
    "foldserve_workers_replaced_total",
    "counter",
    "Workers that had ended or did not answer their supervisor, and were replaced.",
)


class Replaced:
    """The counts, shown from the start on.

    Args:
        page: the supervisor's.
        workers: how many there are.
    """

    def __init__(self, page: SharedPages, workers: int) -> None:
        self._page = page
        self._counts = {(index, why): 0 for index in range(workers) for why in REASONS}
        self._show()

    def count(self, worker: int, why: str) -> None:
        """One more; `why` is one of REASONS."""
        self._counts[worker, why] += 1
        self._show()

    def _show(self) -> None:
        page = Exposition()
        page.family(*FAMILY)
        for (worker, why), count in self._counts.items():
            page.sample(count, {"reason": why, "worker": str(worker)})
        self._page.publish(page.text())
