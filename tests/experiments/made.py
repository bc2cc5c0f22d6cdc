"""Records as a training would leave them, with numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.records import Record, Snapshot, Validation
from experiments.settings import Settings


def record(
    settings: Settings,
    accuracies: Sequence[float] = (0.1, 0.5, 0.9),
    *,
    train: float | None = None,
    drift: float = 0.1,
    recalibrated: float | None = None,
    diverged: int | None = None,
) -> Record:
    """A run that was validated every ten steps; `train` is its last accuracy on known images."""
    validations = [Validation(10 * n, n, 1.0 - a, a, 1.0 - a, a) for n, a in enumerate(accuracies)]
    if train is not None:
        validations[-1] = replace(validations[-1], train_accuracy=train)
    last = validations[-1]
    return Record(
        settings=settings,
        data="made up",
        digest="00",
        images=640,
        validated=100,
        parameters=10,
        losses=tuple((step, 2.0 / step) for step in range(1, last.step + 1)),
        validations=tuple(validations),
        epoch_seconds=(1.0, 3.0, 2.0),
        layers={
            name: tuple(Snapshot(s, 0.1, 1.0, drift * (s > 0), 0.5) for s in (0, 10, 20))
            for name in ("fc1", "fc2")
        },
        recalibrated=None if recalibrated is None else replace(last, accuracy=recalibrated),
        diverged=diverged,
        machine={"torch": "2", "device": "cpu", "threads": "1"},
    )
