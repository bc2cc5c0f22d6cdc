"""Numbers of the runs that share a seed: what a claim is about.

A measure takes one repetition, the runs of all arms with the same seed, and gives one number.
It is evaluated for each seed; `verdict.estimate` makes a mean and an interval of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from experiments.records import Record
from experiments.settings import Settings, without_norm


class MissingRunError(LookupError):
    """A run that a measure asks for is not finished, or was never asked for."""


class Repetition:
    """The finished runs with one seed; `common` says what is not named when one is looked up."""

    def __init__(self, common: Settings, records: Iterable[Record]) -> None:
        self.common = common
        self.records = {record.settings: record for record in records}

    def run(self, **settings: Any) -> Record:
        """The run with `settings`, the others as in `common`. Raises MissingRunError."""
        wanted = replace(self.common, **settings)
        if wanted.norm == "none":
            wanted = without_norm(wanted)
        if wanted not in self.records:
            raise MissingRunError(wanted)
        return self.records[wanted]


Measure = Callable[[Repetition], float]


def of(quantity: Callable[[Record], float], **settings: Any) -> Measure:
    """The quantity of one run."""
    return lambda repetition: quantity(repetition.run(**settings))


def less(left: Measure, right: Measure) -> Measure:
    """left - right, of the same seed."""
    return lambda repetition: left(repetition) - right(repetition)


def spread(
    quantity: Callable[[Record], float], axis: str, values: Iterable[Any], **settings: Any
) -> Measure:
    """Largest less smallest of the quantity over the values of one setting."""
    every = tuple(values)

    def measure(repetition: Repetition) -> float:
        found = [quantity(repetition.run(**settings, **{axis: value})) for value in every]
        return max(found) - min(found)

    return measure


def fraction(run: Record, baseline: Record) -> float | None:
    """Steps until `run` is as accurate as `baseline` ever is, as a share of the baseline's own.

    Ioffe and Szegedy 2015, section 4.2.2 and figure 3: "steps to reach" the accuracy of the
    network without batch-norm. Where that accuracy is never reached, the steps that were made
    count: the true share is larger. None for a baseline that never got better.
    """
    if not baseline.best_step:
        return None
    reached = run.steps_to(baseline.best)
    return (run.steps if reached is None else reached) / baseline.best_step


def fraction_of_steps(**settings: Any) -> Measure:
    """`fraction` of the run against its own network without normalization."""

    def measure(repetition: Repetition) -> float:
        run = repetition.run(**settings)
        baseline = repetition.run(**{**settings, "norm": "none"})
        found = fraction(run, baseline)
        return float("nan") if found is None else found

    return measure


def accuracy(run: Record) -> float:
    """On the validation images, at the end."""
    return run.accuracy


def recalibrated(run: Record) -> float:
    """The same with the population's statistics. Raises MissingRunError when not measured."""
    if run.recalibrated is None:
        raise MissingRunError(run.settings)
    return run.recalibrated.accuracy


def gap(run: Record) -> float:
    """Accuracy on training images less that on validation images."""
    return run.gap


def mean_drift(run: Record) -> float:
    """The mean drift over the training, of all layers but the first, whose input is the data.

    Raises MissingRunError where there are no two snapshots of a second layer.
    """
    hidden = list(run.layers.values())[1:]
    found = [snapshot.drift for snapshots in hidden for snapshot in snapshots[1:]]
    if not found:
        raise MissingRunError(run.settings)
    return sum(found) / len(found)
