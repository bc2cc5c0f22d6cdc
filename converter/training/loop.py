"""The training loop, read top to bottom.

By default AdamW on the cross-entropy, a learning rate that rises for a fifth of the steps and
then falls along a cosine to zero, and images that are shifted, turned and scaled a little. The
weights of the last step are the result, unless `patience` stops it: then those of the epoch with
the lowest validation loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from converter.errors import UserError
from converter.training.augment import augment
from converter.training.data import Dataset, pixels
from converter.training.evaluate import loss_and_accuracy
from converter.training.progress import Epoch, Everybody, History, Observer, Run, Step
from converter.training.schedules import OPTIMIZERS, SCHEDULES


@dataclass(frozen=True)
class FitOptions:
    """How to train.

    Attributes:
        epochs, batch_size: passes over the training images, images a step.
        lr: the peak of the learning rate.
        seed: of the order of the images and of their augmentation.
        device: where; a `torch.device` or its name.
        optimizer, schedule: a key of `schedules.OPTIMIZERS` and of `schedules.SCHEDULES`.
        augment: whether the images are moved a little.
        patience: stop when the validation loss has not fallen for so many epochs, and go back
            to the weights of the best one; None never stops. Needs a validation split.
        mixed_precision: float16 where it is safe, with a scaled loss; on CUDA only.
    """

    epochs: int = 12
    batch_size: int = 128
    lr: float = 0.01
    seed: int = 0
    device: torch.device | str = "cpu"
    optimizer: str = "adamw"
    schedule: str = "cosine"
    augment: bool = True
    patience: int | None = None
    mixed_precision: bool = False

    def check(self) -> None:
        """Raises UserError for a value that no training can have."""
        if self.epochs < 1:
            raise UserError(f"--epochs is {self.epochs}", "give at least 1")
        if self.batch_size < 2:
            raise UserError(
                f"--batch-size is {self.batch_size}",
                "give at least 2: one sample has no variance for a batch-norm to learn",
            )
        if not 0 < self.lr < float("inf"):
            raise UserError(f"--lr is {self.lr}", "give a positive number, 0.01 is the default")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed is {self.seed}", "give an integer from 0 to 2^63 - 1")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"--patience is {self.patience}", "give at least 1 epoch")
        for name, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}", "known: " + ", ".join(known))
        if self.mixed_precision and torch.device(self.device).type != "cuda":
            raise UserError(
                f"mixed precision is for CUDA, the device is {self.device}",
                "leave out --mixed-precision: float16 gains nothing on this device",
            )


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
) -> History:
    """Train `module` in place and return what happened; prints and writes nothing.

    The last, incomplete batch of an epoch is left out, so that every batch weighs the same in
    the running statistics of the batch-norms. The images lie on the device as they were read,
    a byte a pixel; a batch is one gather, and nothing is done for each sample.

    Dropout draws from torch's global generator: for repeatable results see
    `determinism.deterministic`.

    Raises:
        UserError: for options that cannot be, or a training set smaller than a batch.
        Diverged: when the loss is not finite.
    """
    options.check()
    batches = len(data.train) // options.batch_size
    if not batches:
        raise UserError(
            f"{len(data.train)} training images do not fill a batch of {options.batch_size}",
            "give a smaller --batch-size",
        )
    device = torch.device(options.device)
    rate, steps = SCHEDULES[options.schedule], options.epochs * batches
    # The generator is on the CPU on every device, and apart from the one of the initial weights.
    generator = torch.Generator().manual_seed(options.seed)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    module.to(device).train()
    optimizer = OPTIMIZERS[options.optimizer](module.parameters(), options.lr)
    history, observer = History([], []), Everybody(observers)

    observer.start(Run(module, options.epochs, batches))
    for number in range(1, options.epochs + 1):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=generator).to(device)  # (N,)
        for chosen in torch.split(order, options.batch_size)[:batches]:  # (B,)
            lr = rate(len(history.steps), steps, options.lr)
            for group in optimizer.param_groups:
                group["lr"] = lr

            x = pixels(images[chosen])  # (B, C, H, W)
            if options.augment:
                x = augment(x, generator)
            loss = functional.cross_entropy(module(x), labels[chosen])  # logits (B, classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

            step = Step(number, len(history.steps) + 1, loss.item(), lr)
            history.steps.append(step)
            if not math.isfinite(step.loss):
                raise Diverged(step, history)
            total += step.loss
            observer.step(step, module)

        watched = data.watched
        measured = loss_and_accuracy(module, watched.images, watched.labels)
        epoch = Epoch(number, total / batches, *measured, time.perf_counter() - started)
        history.epochs.append(epoch)
        observer.epoch(epoch, module)
    return history
