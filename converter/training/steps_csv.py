"""The steps of a training as comma-separated values, for those who plot themselves."""

from __future__ import annotations

import csv
import io

from converter.training.progress import History

COLUMNS = (
    "step",
    "epoch",
    "lr",
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "epoch_seconds",
)


def to_bytes(history: History) -> bytes:
    """A line for each step; the last step of an epoch also has what was measured after it."""
    last = {step.epoch: step.step for step in history.steps}
    epochs = {epoch.number: epoch for epoch in history.epochs}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for step in history.steps:
        epoch = epochs.get(step.epoch) if last[step.epoch] == step.step else None
        measured = (
            ("", "", "")
            if epoch is None
            else (epoch.validation_loss, epoch.validation_accuracy, epoch.seconds)
        )
        writer.writerow([step.step, step.epoch, step.lr, step.loss, *measured])
    return text.getvalue().encode()
