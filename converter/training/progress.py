"""What a training tells while it runs, and to whom. The defaults listen to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Run:
    """What is about to be trained.

    Attributes:
        module: in training mode, on its device; hooks may be put on it.
        epochs: the last one's number.
        batches: steps of each epoch.
        done: epochs that an earlier process has trained.
    """

    module: nn.Module
    epochs: int
    batches: int
    done: int = 0


@dataclass(frozen=True)
class Step:
    """One step of the optimizer.

    Attributes:
        epoch, step: both count from 1; the steps go on over the epochs.
        loss: the batch's mean cross-entropy in nats, before the step.
        lr: the learning rate of the step.
    """

    epoch: int
    step: int
    loss: float
    lr: float


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training set gave; losses are mean cross-entropies in nats.

    Attributes:
        number: 1 for the first.
        train_loss: mean over the epoch's batches, of images as augmented, while the weights moved.
        validation_loss, validation_accuracy: after the epoch, in evaluation mode, on the images
            that were held out; on the test images, which then decide nothing, when none were.
        seconds: of the pass and its evaluation together.
    """

    number: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass
class History:
    """Everything that the observers heard.

    Attributes:
        steps, epochs: in order; of a resumed training those of the earlier process as well.
        stopped_early: whether the validation loss ended it, see `FitOptions.patience`.
    """

    steps: list[Step]
    epochs: list[Epoch]
    stopped_early: bool = False

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """The loss and learning rate of the steps, and what was measured after each epoch, at its
        last step: for each name the steps and as many numbers."""
        last = {step.epoch: step.step for step in self.steps}
        epochs = [epoch for epoch in self.epochs if epoch.number in last]
        at, steps = [last[epoch.number] for epoch in epochs], [step.step for step in self.steps]
        return {
            "train_loss": (steps, [step.loss for step in self.steps]),
            "validation_loss": (at, [epoch.validation_loss for epoch in epochs]),
            "validation_accuracy": (at, [epoch.validation_accuracy for epoch in epochs]),
            "learning_rate": (steps, [step.lr for step in self.steps]),
        }


class Observer:
    """Override what you want to hear."""

    def start(self, run: Run) -> None:
        """Before the first step."""

    def step(self, step: Step, module: nn.Module) -> None:
        """After a step. The module has taken it; its gradients are still those of the step."""

    def epoch(self, epoch: Epoch, module: nn.Module) -> None:
        """After an epoch and its evaluation; the module is in training mode."""


class Progress(Observer):
    """An observer that also hears what happens outside the loop."""

    def say(self, sentence: str) -> None:
        """Something happened: a download, a mirror that failed, a training that is resumed."""

    def received(self, done: int, total: int | None) -> None:
        """So many bytes of a file were downloaded, 0 when it begins; `total` may be unknown."""


class Everybody(Observer):
    """Passes everything on to each of several observers, in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.observers = tuple(observers)

    def start(self, run: Run) -> None:
        for observer in self.observers:
            observer.start(run)

    def step(self, step: Step, module: nn.Module) -> None:
        for observer in self.observers:
            observer.step(step, module)

    def epoch(self, epoch: Epoch, module: nn.Module) -> None:
        for observer in self.observers:
            observer.epoch(epoch, module)
