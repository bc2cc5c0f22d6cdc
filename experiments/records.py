"""What is kept of a run: one JSON file for each, in the folder of the comparison.

A run is written when it is finished, whole or not at all. A comparison that was killed finds
there what it has, and makes the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import UserError
from converter.files import atomic
from experiments.settings import Settings

FORMAT = "foldserve.run/1"
# Of the losses of the steps, so many are kept: means of equal stretches.
MOST_LOSSES = 200
# A file of another size is no record of ours.
LARGEST = 16 * 2**20


@dataclass(frozen=True)
class Validation:
    """How the network did after `step` steps, in evaluation mode.

    Attributes:
        step, epoch: steps made, and passes over the data, which may be a fraction.
        loss, accuracy: on the validation images; mean cross-entropy in nats, share in [0, 1].
        train_loss, train_accuracy: the same on some images of the training set.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    train_loss: float
    train_accuracy: float


@dataclass(frozen=True)
class Snapshot:
    """A layer at one moment of the training, on a batch that is the same every time.

    Attributes:
        step: steps made.
        mean, std: of all values that enter the layer.
        drift: how far the distribution of these values moved since the snapshot before, see
            `watching.drift`; 0 for the first.
        gradient: Euclidean norm of the loss's gradient by the layer's weight.
    """

    step: int
    mean: float
    std: float
    drift: float
    gradient: float


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        settings: what was asked for.
        data: which images, in words; `images` of them to train and `validated` to validate.
        digest: sha256 of the whole data set, see `datasets.digest`.
        parameters: how many numbers were learned.
        losses: (steps made, mean training loss of the stretch that ends there).
        validations: the first before any step, the last after all.
        epoch_seconds: wall time of each epoch's steps, without validations and snapshots.
        layers: name -> its snapshots, first layer first.
        recalibrated: the last validation again, with the population's statistics.
        diverged: the step whose loss was not finite, where the training ended; None if none.
        machine: versions, threads and device.
    """

    settings: Settings
    data: str
    digest: str
    images: int
    validated: int
    parameters: int
    losses: tuple[tuple[int, float], ...]
    validations: tuple[Validation, ...]
    epoch_seconds: tuple[float, ...]
    layers: dict[str, tuple[Snapshot, ...]]
    recalibrated: Validation | None = None
    diverged: int | None = None
    machine: dict[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """At the end, on the validation images."""
        return self.validations[-1].accuracy

    @property
    def best(self) -> float:
        """The highest of the validations."""
        return max(v.accuracy for v in self.validations)

    @property
    def best_step(self) -> int:
        """After how many steps the highest accuracy was first there."""
        return self.steps_to(self.best) or 0

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return self.validations[-1].step

    @property
    def gap(self) -> float:
        """Accuracy on training images less that on validation images, at the end: overfitting."""
        return self.validations[-1].train_accuracy - self.accuracy

    def steps_to(self, accuracy: float) -> int | None:
        """The first validation that reaches `accuracy`, in steps; None if none does."""
        return next((v.step for v in self.validations if v.accuracy >= accuracy), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the record again."""
        return {"format": FORMAT, "key": self.settings.key, **asdict(self)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Record:
        """Raises KeyError, TypeError or ValueError for anything else than `to_json` gave."""
        if found["format"] != FORMAT:
            raise ValueError(f"the format is {found['format']!r}, not {FORMAT!r}")
        recalibrated = found["recalibrated"]
        return cls(
            settings=Settings.from_json(found["settings"]),
            data=str(found["data"]),
            digest=str(found["digest"]),
            images=int(found["images"]),
            validated=int(found["validated"]),
            parameters=int(found["parameters"]),
            losses=tuple((int(step), float(loss)) for step, loss in found["losses"]),
            validations=tuple(Validation(**v) for v in found["validations"]),
            epoch_seconds=tuple(float(s) for s in found["epoch_seconds"]),
            layers={
                str(name): tuple(Snapshot(**s) for s in snapshots)
                for name, snapshots in found["layers"].items()
            },
            recalibrated=Validation(**recalibrated) if recalibrated else None,
            diverged=found["diverged"],
            machine={str(k): str(v) for k, v in found["machine"].items()},
        )


class Folder:
    """The records of a comparison, `<key>.json` each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the folder. Raises UserError when that is not possible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path} cannot be made: {error.strerror or error}") from error

    def file(self, settings: Settings) -> Path:
        """Where the run with these settings is, or will be."""
        return self.path / f"{settings.key}.json"

    def write(self, record: Record) -> None:
        """Keep a run. Raises UserError when the file cannot be written."""
        # NaN and infinity, which a diverged run has, are written as Python's json does.
        text = json.dumps(record.to_json(), separators=(",", ":")) + "\n"
        path = self.file(record.settings)
        try:
            atomic.write_bytes(path, text.encode())
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error

    def read(self, settings: Settings) -> Record | None:
        """The run with these settings, or None if it is not finished.

        Raises:
            UserError: the file is damaged, or tells of another run.
        """
        path = self.file(settings)
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError("it is too large")
            record = Record.from_json(json.loads(path.read_bytes()))
            if record.settings != settings:
                raise ValueError("it tells of another run")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is not a record of a run: {error}", "remove it, and the run is made again"
            ) from error
        return record

    def read_all(self, runs: Iterable[Settings]) -> list[Record]:
        """Those of `runs` that are finished. Raises UserError, see `read`."""
        return [record for run in runs if (record := self.read(run)) is not None]


def thin(losses: Sequence[float], most: int = MOST_LOSSES) -> tuple[tuple[int, float], ...]:
    """Means of up to `most` stretches of equal length: [(steps made at its end, mean)]."""
    length = max(1, -(-len(losses) // most))
    stretches = [losses[start : start + length] for start in range(0, len(losses), length)]
    ends = [min(start + length, len(losses)) for start in range(0, len(losses), length)]
    return tuple((end, sum(s) / len(s)) for end, s in zip(ends, stretches, strict=True))
