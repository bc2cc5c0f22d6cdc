"""A request on its way through a model, and what it gets in the end."""

from __future__ import annotations

import asyncio

import numpy as np

from service.errors import ServiceError
from service.exchange import COUNTED_BYTES, USUAL_PRIORITY, Exchange
from service.signature import Tensors


class Outputs(dict[str, np.ndarray]):
    """Tensors of a run, or one request's rows of them, and what is known of the whole run.

    `finite`: no number of it is NaN or infinite. `small`: all of it does not count as memory, and
    is written in no time.
    """

    __slots__ = ("finite", "small")

    def __init__(self, tensors: Tensors | None = None, *, finite: bool, small: bool) -> None:
        super().__init__(tensors or {})
        self.finite = finite
        self.small = small

    @classmethod
    def of(cls, tensors: Tensors) -> Outputs:
        arrays = tensors.values()
        finite = all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in arrays)
        texts = any(a.dtype.kind == "O" for a in arrays)
        small = not texts and sum([a.nbytes for a in arrays]) <= COUNTED_BYTES
        return cls(tensors, finite=finite, small=small)


Outcome = Outputs | ServiceError
Lane = tuple[object, ...]


class Item:
    """A request on its way: what to run, until when, and where its outcome goes.

    `exchange`: the record of the request, which is told its batch, and is asked whether there is
    memory for the answer. `lane`: only requests of one lane can be joined. `since`: when it came
    to the batcher. `taken`: by a runner, it no longer waits. `gone`: its outcome is no longer
    wanted, or has been given.
    """

    inputs: Tensors
    rows: int
    deadline: float
    loop: asyncio.AbstractEventLoop
    exchange: Exchange
    since = 0.0
    lane: Lane = ()
    priority = USUAL_PRIORITY
    taken = False
    gone = False

    def take(self, outcome: Outcome) -> None:
        """Told the outcome, once, on the thread of `loop`."""
        raise NotImplementedError


class Awaited(Item):
    """One whose outcome a task awaits: that of `future`."""

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        exchange: Exchange | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.loop = loop
        self.exchange = Exchange("") if exchange is None else exchange
        self.priority = self.exchange.priority
        self.future: asyncio.Future[Outcome] = loop.create_future()

    @property
    def gone(self) -> bool:  # type: ignore[override]
        return self.future.done()

    def take(self, outcome: Outcome) -> None:
        self.future.set_result(outcome)


def lane_of(inputs: Tensors) -> Lane:
    """Names, shapes beyond the batch axis, and dtypes: equal for requests that can be joined."""
    return tuple([(name, a.shape[1:], a.dtype.char) for name, a in sorted(inputs.items())])
