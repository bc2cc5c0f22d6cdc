"""Admission to a model's queue: as many rows as it holds, and as it can run in time.

wait of a row       what waits before it * seconds of a row, as the last runs took
full                what waits and the request's rows are more than the queue holds
as good as full     the wait would take more than half of the time until the deadline
"""

from __future__ import annotations

import math
import time

from service.errors import QueueFull, TooManySamples

_LONGEST_RETRY_S = 60
# The share of the time until its deadline that a request may spend on the queue, as far as is
# known: what is admitted should be answered, and the next runs may be slower than the last ones.
_QUEUE_SHARE = 0.5


class Room:
    """Counted in samples (rows), not in requests.

    Args:
        capacity_samples: rows that may wait, the ones running not counted.
        model: its name, for messages.
        runners: how many run at a time.
    """

    def __init__(self, capacity_samples: int, model: str, runners: int) -> None:
        self.capacity_samples = capacity_samples
        self.seconds_per_row = 0.0  # of late, with all runners at work
        self.rows_per_request = 1.0  # of late
        self.full_at = -math.inf  # when it last had no room for a request, by time.monotonic()
        self._model = model
        self._runners = runners
        self._turn = 0.0
        self._coming = 0

    def check(self, rows: int, waiting: int, time_left_s: float) -> None:
        """Admit a request.

        Args:
            rows: of the request.
            waiting: rows on the queue.
            time_left_s: until its deadline.

        Raises:
            TooManySamples, QueueFull.
        """
        if rows > self.capacity_samples:
            raise TooManySamples(
                f"The request has {rows} rows, the queue holds {self.capacity_samples}."
            )
        if not waiting:
            return
        wait_s = waiting * self.seconds_per_row
        if waiting + rows > self.capacity_samples:
            why = f"there is no room for {rows} more"
        elif 0 < _QUEUE_SHARE * time_left_s < wait_s + rows * self.seconds_per_row * self._runners:
            why = f"they take {wait_s:.1f} s, longer than this request can wait"
        else:
            return
        raise self._full(waiting, why)

    def check_arrivals(self, requests: int, waiting: int) -> None:
        """Admit the last of so many requests that are being read, of the usual size.

        Raises:
            QueueFull.
        """
        rows = requests * self.rows_per_request
        if requests > 1 and waiting + rows > self.capacity_samples:
            raise self._full(waiting, "others arrive at the same time")

    def coming(self, turn: float) -> int:
        """Requests that were let in during this turn of the event loop, and are not here yet.

        Args:
            turn: the loop's time(), which is the same for all of a turn.
        """
        if turn != self._turn:
            self._turn, self._coming = turn, 0
        return self._coming

    def let_in(self) -> None:
        """One more is coming in this turn."""
        self._coming += 1

    def learn(self, rows: int, requests: int, took_s: float) -> None:
        """A batch of so many rows of so many requests has been run."""
        per_row = took_s / rows / self._runners
        smoothed = self.seconds_per_row or per_row
        self.seconds_per_row = 0.8 * smoothed + 0.2 * per_row
        self.rows_per_request = 0.8 * self.rows_per_request + 0.2 * rows / requests

    def _full(self, waiting: int, why: str) -> QueueFull:
        self.full_at = time.monotonic()
        wait_s = math.ceil(waiting * self.seconds_per_row)
        return QueueFull(
            f"{waiting} of {self.capacity_samples} samples are waiting "
            f"for model {self._model!r}; {why}.",
            retry_after_s=min(max(wait_s, 1), _LONGEST_RETRY_S),
        )
