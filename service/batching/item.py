"""A request on its way through a model, and what it gets in the end."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import numpy as np

from service.errors import ServiceError
from service.exchange import COUNTED_BYTES, Exchange
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


class Answer(Protocol):
    """Where an outcome goes: a future, or something else that takes a result once."""

    def done(self) -> bool:
        """Whether the outcome is no longer wanted, or has been given already."""

    def set_result(self, outcome: Outcome, /) -> object:
        """Take it."""


class Item:
    """A request on its way: what to run, until when, and whom to tell.

    `answer` is told on the thread of `loop`. `lane`: only requests of one lane can be joined.
    `exchange`: the record of the request, which is told its batch, and is asked whether there is
    memory for the answer.
    """

    __slots__ = (
        "answer", "deadline", "exchange", "gone", "inputs", "lane", "loop", "priority", "rows",
        "since", "taken",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        answer: Answer,
        loop: asyncio.AbstractEventLoop,
        exchange: Exchange | None = None,
        lane: Lane = (),
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.answer = answer
        self.loop = loop
        self.exchange = Exchange("") if exchange is None else exchange
        self.lane = lane
        self.priority = self.exchange.priority
        self.since = time.monotonic()
        self.taken = False  # by a runner: it no longer waits
        self.gone = False  # its answer is no longer wanted


def lane_of(inputs: Tensors) -> Lane:
    """Names, shapes beyond the batch axis, and dtypes: equal for requests that can be joined."""
    return tuple([(name, a.shape[1:], a.dtype.char) for name, a in sorted(inputs.items())])
