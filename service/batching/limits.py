"""How a model's requests are run, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """`choose.running` measures what suits a model.

    `runners`: threads that run the session at a time.
    `max_batch_rows`: rows that are joined at most; a single request may have more.
    `max_wait_s`: how long the first item of a batch waits for others, 0 for not at all.
    `inline_rows`: requests up to that many rows run on the event loop, as do their batches.
    `row_s`: seconds of a run for each of its rows, where there are many of them.
    `one_shape`: the model has no open size beyond the batch axis, so there is one lane.
    """

    runners: int = 1
    max_batch_rows: int = 1
    max_wait_s: float = 0.0
    inline_rows: int = 0
    row_s: float = 0.0
    one_shape: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that was run, as `Execution.observe` and each of its requests are told.

    `free`: when its runner had nothing to do; it ran from `started` to `ended`. All three on the
    clock of time.monotonic().
    """

    rows: int
    requests: int
    free: float = field(default=0.0, compare=False)
    started: float = field(default=0.0, compare=False)
    ended: float = field(default=0.0, compare=False)

    @property
    def seconds(self) -> float:
        return self.ended - self.started
