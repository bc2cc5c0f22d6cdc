"""Requests that run together: join their rows, run once, give each its own rows back.

    inputs    x = concatenate(x_1, ..., x_k) along axis 0, for each input of the model
    outputs   y_i = y[start_i : start_i + rows_i], a view, start_i = rows_1 + ... + rows_(i-1)

If the joined run fails, every request runs once more by itself, so that only the one that caused it
fails. If an output has another number of rows than went in, its rows cannot be told
apart: the model is never batched again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from service.batching.item import Item, Outcome, Outputs
from service.batching.settling import late
from service.errors import InferenceFailed, ServiceError
from service.exchange import COUNTED_BYTES
from service.signature import Tensors

logger = logging.getLogger("foldserve.batcher")

Run = Callable[[Tensors], Tensors]


class NotByRows(Exception):
    """The outputs of a joined run do not have one row for each row of the inputs."""


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
            item.exchange.expect(item.rows * answer_row_bytes)
        except ServiceError as error:
            refused.append((item, error.with_traceback(None)))
        else:
            admitted.append(item)
    return admitted, refused


def counted(settled: list[tuple[Item, Outcome]]) -> list[tuple[Item, Outcome]]:
    """The outcomes, each or the refusal to keep it; in the thread that has made them.

    The event loop may be far behind: what waits for it must not be without a count.
    """
    if all(isinstance(outcome, Outputs) and outcome.small for _, outcome in settled):
        return settled
    return [(item, _counted(item, outcome)) for item, outcome in settled]


def _counted(item: Item, outcome: Outcome) -> Outcome:
    if isinstance(outcome, ServiceError) or outcome.small:
        return outcome
    try:
        item.exchange.expect(sum([array.nbytes for array in outcome.values()]))
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


def _alone(run: Run, item: Item, model: str) -> Outcome:
    try:
        return Outputs.of(attempt(run, _aligned(item.inputs)))
    except ServiceError as error:
        if error.__cause__ is not None and isinstance(error, InferenceFailed):
            request, cause = item.exchange.request_id, error.__cause__
            logger.error("model %s failed on request %s", model, request, exc_info=cause)
        return error.with_traceback(None)


def attempt(run: Run, inputs: Tensors) -> Tensors:
    """`run(inputs)`, with any failure of it as a ServiceError."""
    try:
        return run(inputs)
    except ServiceError:
        raise
    except Exception as error:
        raise InferenceFailed("The model could not be run on this input.") from error


def _aligned(inputs: Tensors) -> Tensors:
    """With a copy of each array that begins at an address which does not suit its dtype."""
    if all(array.flags.aligned for array in inputs.values()):
        return inputs
    return {name: np.require(array, requirements="A") for name, array in inputs.items()}


def _join(items: Sequence[Item]) -> Tensors:
    return {name: np.concatenate([i.inputs[name] for i in items]) for name in items[0].inputs}


def _split(outputs: Tensors, items: Sequence[Item]) -> list[Outputs]:
    rows = sum(item.rows for item in items)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise NotByRows(f"output {name!r} has shape {array.shape} for a batch of {rows} rows")
    whole = Outputs.of(outputs)
    finite, small, new = whole.finite, whole.small, Outputs.__new__
    parts: list[Outputs] = []
    start = 0
    for item in items:
        stop = start + item.rows
        part = new(Outputs)
        part.finite, part.small = finite, small
        for name, array in outputs.items():
            part[name] = array[start:stop]
        parts.append(part)
        start = stop
    return parts
