"""What the training loop may be asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from converter.errors import UserError
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
        augment: whether the images are moved a little; features (one row) never are.
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
                "give at least 2: one sample has no variance for a batch-norm to learn. Behind a "
                "dense layer its variance is 0, and every output of the norm its beta",
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
