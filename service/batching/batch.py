"""Requests that run together: join their rows, run once, give each its own rows back.

    inputs    x = concatenate(x_1, ..., x_k) along axis 0, for each input of the model
    outputs   y_i = y[start_i : start_i + rows_i], a view, start_i = rows_1 + ... + rows_(i-1)

If the joined run fails, every request runs once more by itself, so that only the one that caused it
fails. If an output has another number of rows than went in, its rows cannot be told
apart: the model is never batched again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from service import faults
from service.errors import DeadlineExceeded, InferenceFailed, ServiceError
from service.exchange import COUNTED_BYTES
from service.signature import Tensors

logger = logging.getLogger("foldserve.batcher")

Run = Callable[[Tensors], Tensors]


class Outputs(dict[str, np.ndarray]):
    """Tensors of a run, or one request's rows of them, and what is known of the whole run.

    `finite`: no number of it is NaN or infinite. `small`: all of it does not count as memory, and
    is written in no time.
    """

    __slots__ = ("finite", "small")

    def __init__(self, tensors: Tensors, finite: bool, small: bool) -> None:
        super().__init__(tensors)
        self.finite = finite
        self.small = small

    @classmethod
    def of(cls, tensors: Tensors) -> Outputs:
        arrays = tensors.values()
        finite = all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in arrays)
        texts = any(a.dtype.kind == "O" for a in arrays)
        return cls(tensors, finite, not texts and sum([a.nbytes for a in arrays]) <= COUNTED_BYTES)


# Of a request that does not say how urgent it is; smaller numbers are served before larger ones.
USUAL_PRIORITY = 2

Outcome = Outputs | ServiceError
Lane = tuple[object, ...]
# Told for each item: when its runner was free, when the run began and ended (time.monotonic()),
# and the rows that ran together.
Told = Callable[[float, float, float, int], object]
# Asked for each item whether there is memory for so many bytes of its answer: before the run for
# what is known then, after it for all of them. Raises a ServiceError if there is none.
Count = Callable[[int], object]


class Answer(Protocol):
    """Where an outcome goes: a future, or something else that takes a result once."""

    def done(self) -> bool:
        """Whether the outcome is no longer wanted, or has been given already."""

    def set_result(self, outcome: Outcome, /) -> object:
        """Take it."""


class NotByRows(Exception):
    """The outputs of a joined run do not have one row for each row of the inputs."""


class Item:
    """A request on its way: what to run, until when, and whom to tell.

    `answer` is told on the thread of `loop`. `lane`: only requests of one lane can be joined.
    `told`, `count`: see `Told`, `Count`.
    """

    __slots__ = (
        "answer", "count", "deadline", "gone", "inputs", "lane", "loop", "priority", "request",
        "rows", "since", "taken", "told",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        answer: Answer,
        loop: asyncio.AbstractEventLoop,
        request: str = "",
        lane: Lane = (),
        told: Told | None = None,
        count: Count | None = None,
        priority: int = USUAL_PRIORITY,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.answer = answer
        self.loop = loop
        self.request = request
        self.lane = lane
        self.told = told
        self.count = count
        self.priority = priority
        self.since = time.monotonic()
        self.taken = False  # by a runner: it no longer waits
        self.gone = False  # its answer is no longer wanted


def lane_of(inputs: Tensors) -> Lane:
    """Names, shapes beyond the batch axis, and dtypes: equal for requests that can be joined."""
    return tuple([(name, a.shape[1:], a.dtype.char) for name, a in sorted(inputs.items())])


def settle(answer: Answer, outcome: Outcome) -> None:
    """Give an outcome, if it is still wanted; never raises, for other items are behind it."""
    try:
        if not answer.done():
            answer.set_result(outcome)
    except Exception:  # noqa: BLE001  a defect of the one who waits
        faults.report(logger, "an answer could not be given")


def _settle_all(settled: Iterable[tuple[Item, Outcome]]) -> None:
    for item, outcome in settled:
        settle(item.answer, outcome)


def deliver(settled: Sequence[tuple[Item, Outcome]]) -> None:
    """Tell every one of them from a runner's thread: a single wake-up of each loop."""
    loops = {item.loop for item, _ in settled}
    for loop in loops:
        mine = settled if len(loops) == 1 else [pair for pair in settled if pair[0].loop is loop]
        with suppress(RuntimeError):  # the loop is closed, and with it all that waited
            loop.call_soon_threadsafe(_settle_all, mine)


def execute(run: Run, items: Sequence[Item], model: str) -> list[tuple[Item, Outcome]]:
    """Run `items`, together if there are several, and pair each with what it gets.

    Args:
        run: {input name: array} to {output name: array}; may raise, a ServiceError is handed
            on, anything else becomes InferenceFailed and is logged.
        items: of one lane, at least one.
        model: its name, for the log.

    Raises:
        NotByRows: nothing was answered yet; the caller must run the items one by one.
    """
    if len(items) == 1:
        return [(items[0], _alone(run, items[0], model))]
    try:
        outputs = run(_join(items))
    except Exception as error:  # noqa: BLE001  which one is to blame shows when each runs alone
        logger.debug("model %s: a batch of %d failed: %s", model, len(items), type(error).__name__)
        return one_by_one(run, items, model)
    return list(zip(items, _split(outputs, items), strict=True))


def admit(
    items: list[Item], answer_row_bytes: int
) -> tuple[list[Item], list[tuple[Item, Outcome]]]:
    """Count the answers before they are made: those that may run, and what the others get."""
    if sum([item.rows for item in items]) * answer_row_bytes <= COUNTED_BYTES:
        return items, []
    admitted: list[Item] = []
    refused: list[tuple[Item, Outcome]] = []
    for item in items:
        try:
            if item.count is not None:
                item.count(item.rows * answer_row_bytes)
        except ServiceError as error:
            refused.append((item, error.with_traceback(None)))
        else:
            admitted.append(item)
    return admitted, refused


def counted(item: Item, outcome: Outcome) -> Outcome:
    """The outcome, or the refusal to keep it; in the thread that has made it.

    The event loop may be far behind: what waits for it must not be without a count.
    """
    if item.count is None or isinstance(outcome, ServiceError) or outcome.small:
        return outcome
    try:
        item.count(sum([array.nbytes for array in outcome.values()]))
    except ServiceError as error:
        return error.with_traceback(None)
    return outcome


def one_by_one(run: Run, items: Iterable[Item], model: str) -> list[tuple[Item, Outcome]]:
    """Run each item by itself, except those that have been abandoned or are late by now."""
    settled: list[tuple[Item, Outcome]] = []
    for item in items:
        if item.gone:
            continue
        if time.monotonic() >= item.deadline:
            settled.append((item, late()))
            continue
        settled.append((item, _alone(run, item, model)))
    return settled


def late() -> DeadlineExceeded:
    return DeadlineExceeded("The request waited until its deadline.")


def not_in_time() -> DeadlineExceeded:
    return DeadlineExceeded("The answer was not ready in time.")


def _alone(run: Run, item: Item, model: str) -> Outcome:
    try:
        return Outputs.of(attempt(run, item.inputs))
    except ServiceError as error:
        if error.__cause__ is not None and isinstance(error, InferenceFailed):
            logger.error(
                "model %s failed on request %s", model, item.request, exc_info=error.__cause__
            )
        return error.with_traceback(None)


def attempt(run: Run, inputs: Tensors) -> Tensors:
    """`run(inputs)`, with any failure of it as a ServiceError."""
    try:
        return run(inputs)
    except ServiceError:
        raise
    except Exception as error:
        raise InferenceFailed("The model could not be run on this input.") from error


def _join(items: Sequence[Item]) -> Tensors:
    return {name: np.concatenate([i.inputs[name] for i in items]) for name in items[0].inputs}


def _split(outputs: Tensors, items: Sequence[Item]) -> list[Outputs]:
    rows = sum(item.rows for item in items)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise NotByRows(f"output {name!r} has shape {array.shape} for a batch of {rows} rows")
    whole = Outputs.of(outputs)
    parts: list[Outputs] = []
    start = 0
    for item in items:
        stop = start + item.rows
        rows_of_it = {name: array[start:stop] for name, array in outputs.items()}
        parts.append(Outputs(rows_of_it, whole.finite, whole.small))
        start = stop
    return parts
