"""One run: build the network that the settings say, train it, and keep what happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from converter import architectures
from converter.errors import UserError
from converter.statistics.collect import layerwise
from converter.statistics.norms import find
from converter.training import datasets
from converter.training.data import Dataset, pixels
from converter.training.determinism import deterministic
from converter.training.evaluate import loss_and_accuracy
from converter.training.loop import Diverged, fit
from converter.training.progress import Epoch, Observer, Run, Step
from experiments.records import Record, Snapshot, Validation, thin
from experiments.settings import Settings
from experiments.watching import Watcher

# So many training images tell how well the network knows what it was trained on.
KNOWN_IMAGES = 2_000
# The batch that the layers are watched on, and how often.
WATCHED_IMAGES = 128
SNAPSHOTS = 20
# Activations of so many images stay in the caches of a CPU.
EVALUATION_BATCH = 200
RECALIBRATION_BATCH = 1_000


@dataclass(frozen=True)
class Machine:
    """Where to train: a device, and how many threads torch has on the CPU."""

    device: str = "cpu"
    threads: int = 1


def run(
    settings: Settings, data: Dataset, machine: Machine | None = None, digest: str = ""
) -> Record:
    """Train once. On one machine the same settings give the same record, but for the times.

    A training whose loss stops being finite ends there, and its record says so.

    Args:
        digest: of the data; found out when empty, which takes a moment for many images.

    Raises:
        UserError: for settings that cannot be, or more images than there are.
    """
    settings.check()
    machine = machine or Machine()
    device = torch.device(machine.device)
    digest = digest or datasets.digest(data)
    data = _part_of(data, settings.images)
    options = settings.fit(str(device), machine.threads)
    with deterministic(settings.seed, device, machine.threads):
        module = build(settings, data).to(device)
        notes = _Notes(settings, data, module)
        try:
            fit(module, data, options, [notes])
        except Diverged:
            notes.end()
        recalibrated = _recalibrated(module, data, notes) if settings.recalibrate else None
    return Record(
        settings=settings,
        data=data.description,
        digest=digest,
        images=len(data.train),
        validated=len(data.watched),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        losses=thin(notes.losses),
        validations=tuple(notes.validations),
        epoch_seconds=tuple(notes.seconds),
        layers=notes.layers,
        recalibrated=recalibrated,
        diverged=notes.diverged,
        machine={
            "torch": str(torch.__version__),
            "device": str(device),
            "threads": str(machine.threads),
        },
    )


def build(settings: Settings, data: Dataset) -> nn.Module:
    """The network, initialised from torch's global generator. Raises UserError."""
    task = data.task
    return architectures.build(
        settings.arch, style=settings.style(), input_shape=task.input_shape, classes=task.classes
    )


def _part_of(data: Dataset, images: int) -> Dataset:
    """With the first `images` training images; all when 0."""
    if not images:
        return data
    if images > len(data.train):
        raise UserError(
            f"--images is {images}, and there are {len(data.train)} training images",
            "give fewer, or 0 for all",
        )
    return replace(data, train=data.train.at(slice(images)))


def _recalibrated(module: nn.Module, data: Dataset, notes: _Notes) -> Validation | None:
    """The last validation again, with the population's statistics in the batch-norms.

    None where there are none: the activations of a network that diverged are not finite.
    """
    images = data.train.images
    device = next(module.parameters()).device

    def batches() -> Iterator[torch.Tensor]:
        return (pixels(part.to(device)) for part in torch.split(images, RECALIBRATION_BATCH))

    try:
        layerwise(module, find(module).tracked, batches)
    except UserError:
        return None
    watched, known, last = data.watched, notes.known, notes.validations[-1]
    return Validation(
        last.step,
        last.epoch,
        *loss_and_accuracy(module, watched.images, watched.labels, EVALUATION_BATCH),
        *loss_and_accuracy(module, known.images, known.labels, EVALUATION_BATCH),
    )


class _Notes(Observer):
    """Listens to `fit` and writes down what a record needs.

    The clock stands still while it validates and looks at the layers.
    """

    def __init__(self, settings: Settings, data: Dataset, module: nn.Module) -> None:
        self.settings, self.data, self.module = settings, data, module
        self.losses: list[float] = []
        self.validations: list[Validation] = []
        self.seconds: list[float] = []
        self.diverged: int | None = None
        train = data.train
        self.known = train.at(slice(KNOWN_IMAGES))
        device = next(module.parameters()).device
        self.watcher = Watcher(
            module,
            pixels(train.images[:WATCHED_IMAGES].to(device)),
            train.labels[:WATCHED_IMAGES].to(device),
        )

    @property
    def layers(self) -> dict[str, tuple[Snapshot, ...]]:
        """Of every layer that was reached."""
        return {name: tuple(found) for name, found in self.watcher.snapshots.items() if found}

    def start(self, run: Run) -> None:
        self.batches = run.batches
        steps = run.epochs * run.batches
        self.looks = {round(steps * n / SNAPSHOTS) for n in range(1, SNAPSHOTS + 1)}
        every = range(1, self.settings.evaluations)
        self.stops = {round(run.batches * n / self.settings.evaluations) for n in every}
        self.watcher.look(0)
        self.validate(0)
        self.spent, self.since = 0.0, time.perf_counter()

    def step(self, step: Step, module: nn.Module) -> None:  # noqa: ARG002
        self.spent += time.perf_counter() - self.since
        self.losses.append(step.loss)
        if step.step in self.looks:
            self.watcher.look(step.step)
        done = step.step - (step.epoch - 1) * self.batches
        if done in self.stops:
            self.validate(step.step)
        if done == self.batches:
            self.seconds.append(self.spent)
            self.spent = 0.0
        self.since = time.perf_counter()

    def epoch(self, epoch: Epoch, module: nn.Module) -> None:  # noqa: ARG002
        found = (epoch.validation_loss, epoch.validation_accuracy)
        self.validate(epoch.number * self.batches, found)
        self.since = time.perf_counter()

    def end(self) -> None:
        """The loss of the step after the last one that was told is not finite."""
        self.diverged = len(self.losses) + 1
        if self.validations[-1].step != len(self.losses):
            self.validate(len(self.losses))

    def validate(self, step: int, found: tuple[float, float] | None = None) -> None:
        """Measure now; `found` is the loss and the accuracy where they are known already."""
        watched = self.data.watched
        loss, accuracy = found or loss_and_accuracy(
            self.module, watched.images, watched.labels, EVALUATION_BATCH
        )
        known = loss_and_accuracy(
            self.module, self.known.images, self.known.labels, EVALUATION_BATCH
        )
        self.validations.append(Validation(step, step / self.batches, loss, accuracy, *known))
