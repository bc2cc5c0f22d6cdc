"""One training of a comparison, as data: what was asked for, and a key that names it.

The key is a hash of every setting, so that a run is found again in the folder of a comparison
exactly when nothing about it has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from converter.architectures.style import Activation, Norm, Position, Style, wrong
from converter.errors import UserError
from converter.training.options import FitOptions

Optimizer = Literal["sgd", "adam"]

# A change of how runs are made that makes old records incomparable raises this number.
METHOD = 1


@dataclass(frozen=True)
class Settings:
    """All that one training depends on, but for the data and the machine.

    Attributes:
        arch: architectures of `train`.
        norm: no normalization, batch normalization, or batch renormalization (Ioffe 2017).
        activation: behind every hidden layer.
        bn_position: the norm stands before or after the activation.
        optimizer: sgd has no momentum, and neither decays weights.
        lr: learning rates, the same for all steps.
        batch_size: images a step.
        epochs: passes over the training images.
        momentum: the weight of the newest batch in the running statistics, as torch has it.
        dropout: the share of hidden units that is zeroed while training.
        init_scale: all weights are multiplied by it before the first step.
        images: use the first so many training images; 0 for all.
        evaluations: validations an epoch, the last at its end.
        recalibrate: after the training, also validate with the population's statistics.
        seed: of the initial weights, the order of the images, and dropout.
    """

    arch: str = "mlp"
    norm: Norm = "batch"
    activation: Activation = "relu"
    bn_position: Position = "before"
    optimizer: Optimizer = "sgd"
    lr: float = 0.01
    batch_size: int = 64
    epochs: int = 5
    momentum: float = 0.1
    dropout: float = 0.0
    init_scale: float = 1.0
    images: int = 0
    evaluations: int = 1
    recalibrate: bool = False
    seed: int = 0

    @property
    def key(self) -> str:
        """32 hexadecimal digits, the same for equal settings only."""
        text = json.dumps({"method": METHOD, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def arm(self) -> Settings:
        """These settings without the seed: what runs that differ by chance alone share."""
        return replace(self, seed=0)

    @property
    def baseline_run(self) -> Settings:
        """The run with the same seed without normalization, which a norm is compared with."""
        return without_norm(self)

    def style(self) -> Style:
        """How the network normalises, activates and is initialised. Raises UserError."""
        return Style(
            norm=self.norm,
            bn_position=self.bn_position,
            activation=self.activation,
            momentum=self.momentum,
            dropout=self.dropout,
            init_scale=self.init_scale,
        )

    def fit(self, device: str = "cpu", threads: int = 1) -> FitOptions:
        """How it is trained: the same rate for all steps, and the images as they are."""
        return FitOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=self.seed,
            device=device,
            threads=threads,
            optimizer=self.optimizer,
            schedule="constant",
            augment=False,
        )

    def check(self) -> None:
        """Raises UserError for a value that no training can have."""
        for name in ("norm", "bn_position", "activation", "momentum", "dropout", "init_scale"):
            if expected := wrong(name, value := getattr(self, name)):
                raise UserError(f"{option(name)} is {value!r}", f"give {expected}")
        if self.optimizer not in get_args(Optimizer):
            known = ", ".join(get_args(Optimizer))
            raise UserError(f"--optimizer is {self.optimizer!r}", f"give one of {known}")
        self.fit().check()
        _within("--images", self.images, self.images >= 0, "a number, or 0 for all images")
        _within("--evaluations", self.evaluations, self.evaluations >= 1, "at least 1")
        if self.recalibrate and self.norm == "none":
            raise UserError(
                "--recalibrate needs a normalization, and --norm none has no statistics",
                "leave one of the two out",
            )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Settings:
        """What `asdict` gave. Raises ValueError for other keys or types."""
        expected = {name: type(value) for name, value in vars(cls()).items()}
        if found.keys() != expected.keys():
            raise ValueError(f"the settings are {sorted(found)}, not {sorted(expected)}")
        for name, kind in expected.items():
            right = (int, float) if kind is float else (kind,)
            if type(found[name]) not in right:
                raise ValueError(f"the setting {name} is {found[name]!r}")
        return cls(**{name: kind(found[name]) for name, kind in expected.items()})


def without_norm(settings: Settings) -> Settings:
    """The same network without normalization; what only a norm has goes back to the defaults."""
    default = Settings()
    return replace(
        settings,
        norm="none",
        bn_position=default.bn_position,
        momentum=default.momentum,
        recalibrate=False,
    )


def label(arm: Settings, names: tuple[str, ...]) -> str:
    """The arm by those settings that tell it from the others: "batch, relu, lr 0.01"."""
    return ", ".join(phrase(name, getattr(arm, name)) for name in names) or "all"


def phrase(name: str, value: Any) -> str:
    """One setting in words: ("lr", 0.01) -> "lr 0.01", ("norm", "none") -> "no norm"."""
    if name == "norm":
        return {"none": "no norm", "batch": "batch-norm", "renorm": "batch renorm"}[value]
    if name == "bn_position":
        return f"{value} the activation"
    if name in ("arch", "activation", "optimizer"):
        return str(value)
    if name == "recalibrate":
        return "recalibrated" if value else "moving average"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{NAMES.get(name, name)} {shown}"


NAMES = {
    "lr": "lr",
    "batch_size": "batch",
    "init_scale": "init scale",
    "images": "training images",
    "evaluations": "validations an epoch",
}


def option(name: str) -> str:
    """The option of the command line for a field: "batch_size" -> "--batch-size"."""
    return "--" + name.replace("_", "-")


def _within(option: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"{option} is {value}", f"give {allowed}")
