"""A batch is run: what each of its items gets, and what is told of it, wherever it runs.

A model whose outputs do not have a row for each row of the inputs is never batched again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from service import faults
from service.batching.batch import NotByRows, Run, admit, counted, execute, one_by_one
from service.batching.item import Item, Outcome
from service.batching.limits import Ran
from service.batching.room import Room
from service.errors import defect

logger = logging.getLogger("foldserve.batcher")


class Execution:
    """Called by the runners of a model, and by the event loop.

    `max_batch_rows`: rows that are joined at most; 1 from the first batch on that cannot be split.
    `observe` may be set to be told of each batch, by the thread that ran it. It must not hold the
    ServedModel: the threads of the model live as long as that does.

    Args:
        name: the model's, for the log.
        room: learns how long the rows took.
        max_batch_rows: see above.
        answer_row_bytes: what the outputs take for each row, as far as that is known before a run.
    """

    def __init__(
        self, name: str, room: Room, max_batch_rows: int, answer_row_bytes: int = 0
    ) -> None:
        self.max_batch_rows = max_batch_rows
        self.observe: Callable[[Ran], object] | None = None
        self._name = name
        self._room = room
        self._answer_row_bytes = answer_row_bytes

    def outcomes(self, batch: list[Item], run: Run, free: float) -> list[tuple[Item, Outcome]]:
        """Run a batch, and pair each of its items with what it gets; never raises.

        Args:
            batch: items of one lane.
            run: may raise.
            free: since when the runner had nothing to do, on the clock of time.monotonic().
        """
        started = time.monotonic()
        refused: list[tuple[Item, Outcome]] = []
        try:
            batch, refused = admit(batch, self._answer_row_bytes)
            try:
                ran = execute(run, batch, self._name) if batch else []
            except NotByRows as reason:
                if self.max_batch_rows > 1:
                    self.max_batch_rows = 1
                    logger.error("model %s is not batched any more: %s", self._name, reason)
                ran = one_by_one(run, batch, self._name)
            return [*refused, *counted(ran)]
        except Exception:  # noqa: BLE001  a defect; the runner and the loop live on
            faults.report(logger, f"a batch of model {self._name} could not be run")
            return [*refused, *[(item, defect()) for item in batch]]
        finally:
            if batch:
                rows = sum([item.rows for item in batch])
                self._tell(batch, Ran(rows, len(batch), free, started, time.monotonic()))

    def _tell(self, batch: list[Item], ran: Ran) -> None:
        """Tell of a batch; whatever fails there fails for itself."""
        what = f"a batch of model {self._name} could not be counted"
        for item in batch:
            try:
                item.exchange.batch = ran
            except Exception:  # noqa: BLE001
                faults.report(logger, what)
        with faults.contained(logger, what):
            self._room.learn(ran.rows, ran.requests, ran.seconds)
        if self.observe is not None:
            with faults.contained(logger, what):
                self.observe(ran)
