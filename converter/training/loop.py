"""The training loop, read top to bottom.

By default AdamW on the cross-entropy, a learning rate that rises for a fifth of the steps and
then falls along a cosine to zero, and images that are shifted, turned and scaled a little
(features, which come as images of one row, are not). The weights of the last step are the result,
unless `patience` stops it: then those of the epoch with the lowest validation loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from converter.errors import UserError
from converter.training.augment import augment, can_move
from converter.training.data import Dataset, pixels
from converter.training.evaluate import loss_and_accuracy
from converter.training.options import FitOptions
from converter.training.progress import Epoch, Everybody, History, Observer, Run, Step
from converter.training.schedules import SCHEDULES
from converter.training.snapshot import Snapshot
from converter.training.state import State


class Diverged(UserError):
    """The loss is not finite any more. `history` holds what was until then."""

    def __init__(self, step: Step, history: History) -> None:
        batch = f"epoch {step.epoch}, step {step.step}"
        super().__init__(
            f"the training loss became {step.loss} in {batch}",
            f"give a smaller --lr than {step.lr:g}; nothing was written",
        )
        self.history = history


def fit(
    module: nn.Module,
    data: Dataset,
    options: FitOptions,
    observers: Sequence[Observer] = (),
    *,
    resume: Snapshot | None = None,
    save: Callable[[Snapshot], None] | None = None,
) -> History:
    """Train `module` in place and return what happened; prints and writes nothing.

    The last, incomplete batch of an epoch is left out, so that every batch weighs the same in
    the running statistics of the batch-norms. The images lie on the device as they were read,
    a byte a pixel; a batch is one gather, and nothing is done for each sample.

    Dropout draws from torch's global generator: for repeatable results see
    `determinism.deterministic`. Batch Renormalization gets limits that fit the number of steps.

    Args:
        resume: go on after this snapshot; the module is overwritten with its weights.
        save: is called after each epoch with what a later call can resume from.

    Raises:
        UserError: for options that cannot be, a training set smaller than a batch, or a
            snapshot of another network.
        Diverged: when the loss is not finite.
    """
    options.check()
    batches = len(data.train) // options.batch_size
    if not batches:
        raise UserError(
            f"{len(data.train)} training images do not fill a batch of {options.batch_size}",
            "give a smaller --batch-size",
        )
    if options.patience is not None and data.validation is None:
        raise UserError(
            "without held-out images the test images would decide when to stop",
            "hold some out: --validation 0.1",
        )
    steps = options.epochs * batches
    state = State(module, options, steps)
    if resume is not None:
        state.restore(resume)
    history, observer = state.history, Everybody(observers)
    moves = options.augment and can_move(data.train.images)
    images, labels = data.train.images.to(state.device), data.train.labels.to(state.device)

    observer.start(Run(module, options.epochs, batches, done=len(history.epochs)))
    for number in range(len(history.epochs) + 1, options.epochs + 1):
        if state.is_stuck():
            break
        started, total = time.perf_counter(), 0.0
        module.train()
        order = torch.randperm(len(labels), generator=state.generator).to(state.device)  # (N,)
        for chosen in torch.split(order, options.batch_size)[:batches]:  # (B,)
            x = pixels(images[chosen])  # (B, C, H, W)
            if moves:
                x = augment(x, state.generator)
            lr = SCHEDULES[options.schedule](len(history.steps), steps, options.lr)
            step = Step(number, len(history.steps) + 1, state.step(x, labels[chosen], lr), lr)
            history.steps.append(step)
            if not math.isfinite(step.loss):
                raise Diverged(step, history)
            total += step.loss
            observer.step(step, module)

        watched = data.watched
        measured = loss_and_accuracy(module, watched.images, watched.labels)
        epoch = Epoch(number, total / batches, *measured, time.perf_counter() - started)
        history.epochs.append(epoch)
        state.keep_best()
        if save is not None:
            save(state.snapshot())
        observer.epoch(epoch, module)
    state.return_to_best()
    return history
