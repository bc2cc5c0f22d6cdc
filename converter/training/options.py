"""What may be asked of a training, declared once: for Python and for the command line.

The docstrings are the help of `train` and `finetune`, the annotations their types and choices, and
`check` says what no training can have, whoever asks for it. Nothing here needs torch to be shown.

The annotations are objects, not text: a class in another module that inherits the fields could not
evaluate the names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter, Token

from converter import architectures
from converter.architectures.rows import ARCHITECTURES
from converter.architectures.style import Style
from converter.architectures.task import LARGEST_SIDE
from converter.errors import UserError

Optimizer = Literal["adamw", "adam", "sgd", "momentum"]
Schedule = Literal["cosine", "constant"]

NETWORK = Parameter(group=Group("The network", sort_key=1))
DATA = Parameter(group=Group("The data", sort_key=3))
TRAINING = Parameter(group=Group("The training", sort_key=4))
WRITTEN = Parameter(group=Group("What is written", sort_key=5))

Folder = Annotated[Path, Parameter(metavar="FOLDER")]
File = Annotated[Path, Parameter(metavar="FILE")]
Whole = Annotated[int, Parameter(metavar="N")]
Number = Annotated[float, Parameter(metavar="NUMBER")]

DEFAULT_OUTPUT = Path("models/mnist/checkpoint.pt")
ARCH_ARG = "an argument of the architecture, may be repeated. " + "; ".join(
    f"{name}: " + ", ".join(f"{key}={size.default}" for key, size in row.arguments.items())
    for name, row in ARCHITECTURES.items()
)
_ARCH = "; ".join(f"{name}: {row.description}" for name, row in ARCHITECTURES.items())
_LARGEST = (1, LARGEST_SIDE, LARGEST_SIDE)


def image_size(text: str) -> tuple[int, int]:
    """ "64" -> (64, 64), "48x64" -> (48, 64). Raises UserError."""
    found = re.fullmatch("([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", text)
    if not found:
        raise UserError(f"--image-size is {text!r}", "give 64, or 48x64 for height and width")
    height, width = found[1], found[2] or found[1]
    return int(height), int(width)


def arch_args(pairs: Sequence[str]) -> dict[str, int]:
    """["width=8", "hidden=64"] -> {"width": 8, "hidden": 64}. Raises UserError."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"--arch-arg {pair!r} is not NAME=NUMBER", "for example width=8")
        if name in found:
            raise UserError(f"--arch-arg {name!r} is given twice")
        found[name] = int(value)
    return found


def _size(_: Any, tokens: Sequence[Token]) -> tuple[int, int]:
    return image_size(tokens[0].value)


@Parameter(name="*")
@dataclass(frozen=True)
class FitOptions:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        lr: peak of the learning rate.
        optimizer: each at torch's own defaults, adamw with a weight decay of 0.01.
        schedule: of the learning rate: a warm-up and a cosine, or constant.
        augment: shift, turn and scale the images a little; features (one row) never are.
        patience: stop when the validation loss has not fallen for so many epochs, and keep the
            best; needs held-out images (default: never).
        mixed_precision: float16 where it is safe, with a scaled loss; on CUDA only.
        seed: of the weights, the held-out images, the order and the augmentation.
        device: auto, cpu, cuda or cuda:N; auto is CUDA where there is one.
        threads: CPU threads that a command gives torch. The order in which a step sums depends on
            it, and so do the trained weights.
    """

    epochs: Annotated[Whole, TRAINING] = 12
    batch_size: Annotated[Whole, TRAINING] = 128
    lr: Annotated[Number, TRAINING] = 0.01
    optimizer: Annotated[Optimizer, TRAINING] = "adamw"
    schedule: Annotated[Schedule, TRAINING] = "cosine"
    augment: Annotated[bool, TRAINING, Parameter(negative="--no-augment")] = True
    patience: Annotated[int | None, TRAINING, Parameter(metavar="EPOCHS")] = None
    mixed_precision: Annotated[bool, TRAINING] = False
    seed: Annotated[Whole, TRAINING] = 0
    device: Annotated[str, TRAINING, Parameter(metavar="DEVICE")] = "cpu"
    threads: Annotated[Whole, TRAINING] = 2

    def check(self) -> None:
        """Raises UserError for a value that no training can have."""
        from converter.training.devices import pick_device  # needs torch

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
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("schedule", self.schedule, get_args(Schedule)),
        ):
            if value not in known:
                raise UserError(f"unknown {name} {value!r}", "known: " + ", ".join(known))
        if not 1 <= self.threads <= 1024:
            raise UserError(f"--threads is {self.threads}", "give an integer from 1 to 1024")
        device = pick_device(self.device)
        if self.mixed_precision and device.type != "cuda":
            raise UserError(
                f"mixed precision is for CUDA, the device is {device}",
                "leave out --mixed-precision: float16 gains nothing on this device",
            )

    def unusual(self) -> dict[str, Any]:
        """What differs from the defaults and has no place of its own in a checkpoint."""
        return {
            found.name: getattr(self, found.name)
            for found in fields(self)
            if found.name in _UNUSUAL and getattr(self, found.name) != found.default
        }


# Options that older checkpoints do not have, and that are written where they are not the default.
_UNUSUAL = ("validation", "optimizer", "schedule", "augment", "patience", "mixed_precision")


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """What to train on.

    Attributes:
        dataset: mnist, fashion-mnist, an .npz file with x and y (or x_train, y_train, x_test,
            y_test), or a folder with a sub-folder of pictures for each class.
        data_dir: where the four files of mnist or fashion-mnist are; without it they are
            downloaded once to $XDG_CACHE_HOME/foldserve or ~/.cache/foldserve, 11 MB and 31 MB.
        image_size: of a folder of pictures: squeeze them to SIZE by SIZE pixels, or HEIGHTxWIDTH.
        validation: hold out this share of the training images and measure each epoch on them;
            without it on the test images, which then decide nothing.
    """

    dataset: Annotated[str, DATA, Parameter(metavar="NAME_OR_PATH")] = "mnist"
    data_dir: Annotated[Folder | None, DATA] = None
    image_size: Annotated[
        tuple[int, int] | None, DATA, Parameter(metavar="SIZE", converter=_size, n_tokens=1)
    ] = None
    validation: Annotated[float, DATA, Parameter(metavar="SHARE")] = 0.0

    def check_data(self) -> None:
        """Raises UserError for a share that there cannot be."""
        if not 0 <= self.validation < 1:
            raise UserError(f"--validation is {self.validation}", "give a share from 0, below 1")


@Parameter(name="*")
@dataclass(frozen=True)
class TrainOptions(FitOptions, DataOptions):
    """What a training may be asked for; the defaults are those of the checkpoint in `models/`.

    Attributes:
        arch: a name of `architectures.ARCHITECTURES`, timm:NAME or torchvision:NAME.
        arch_args: the architecture's own arguments.
        style: how the network normalises, activates and is initialised.
        output: the checkpoint to write; an existing one is replaced when the training is done
            (default: models/mnist/checkpoint.pt for the network that ships, ARCH.pt for
            others).
        resume: go on after the last whole epoch of a training that was stopped, as if it had not
            been: its state is in FILE.unfinished.
        csv: also write a line for each step here.
    """

    arch: Annotated[str, NETWORK, Parameter(metavar="ARCH", help=_ARCH)] = "mnist_cnn"
    arch_args: Annotated[dict[str, Any], Parameter(parse=False)] = field(default_factory=dict)
    style: Style = field(default_factory=Style)
    device: Annotated[str, TRAINING, Parameter(metavar="DEVICE")] = "auto"
    output: Annotated[File, WRITTEN, Parameter(show_default=False)] = Path()
    resume: Annotated[bool, WRITTEN] = False
    csv: Annotated[File | None, WRITTEN] = None

    def __post_init__(self) -> None:
        if self.output == Path():
            object.__setattr__(self, "output", default_output(self.arch, self.dataset))

    def check(self) -> None:
        """Raises UserError for a value that no training can have."""
        # The data will say how large the images are; any network takes the largest.
        architectures.complete(self.arch, self.network() | {"input_shape": _LARGEST})
        super().check()
        if self.patience is not None and not self.validation:
            raise UserError(
                "--patience without held-out images: the test images would decide when to stop",
                "hold some out: --validation 0.1",
            )
        self.check_data()

    def network(self) -> dict[str, Any]:
        """What the network needs of it, but for what the data says."""
        return {**self.arch_args, "style": self.style}


def default_output(arch: str, dataset: str) -> Path:
    """Nothing but the network that ships is written over it."""
    if arch == TrainOptions.arch and dataset == TrainOptions.dataset:
        return DEFAULT_OUTPUT
    return Path(re.sub("[^A-Za-z0-9._-]", "-", arch) + ".pt")
