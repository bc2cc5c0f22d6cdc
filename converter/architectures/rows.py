"""The table of the networks that can be trained: a row for each name.

It imports no torch: the command line shows it before there is anything to train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from converter.architectures.task import Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Size:
    """An integer argument of an architecture: its default, and the largest that is accepted."""

    default: int
    largest: int
    meaning: str


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        make: takes a style, a task and every argument by keyword, and returns the module,
            freshly initialised by torch's own rules.
        arguments: what `make` takes.
        description: one line for `--help` and for error messages.
        smallest: height and width that an image must have at least.
    """

    make: Callable[..., nn.Module]
    arguments: Mapping[str, Size]
    description: str
    smallest: int = 1

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The sizes of one sample when nothing else is said, without the batch axis."""
        return Task().input_shape


def _maker(module: str, function: str) -> Callable[..., nn.Module]:
    """The function of that module, which is imported when a network is made: it needs torch."""

    def make(*args: Any, **kwargs: Any) -> nn.Module:
        found = import_module(f"converter.architectures.{module}")
        return getattr(found, function)(*args, **kwargs)  # type: ignore[no-any-return]

    return make


_RESIDUAL: Mapping[str, Size] = {
    "width": Size(16, 256, "channels of the first stage, each stage has twice as many"),
    "blocks": Size(1, 16, "residual blocks a stage"),
}
_RECURRENT: Mapping[str, Size] = {
    "hidden": Size(64, 1024, "features of the state"),
    "dense": Size(64, 4096, "features of the hidden linear layer"),
}

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "mnist_cnn": Architecture(
            make=_maker("mnist_cnn", "mnist_cnn"),
            arguments={
                "width": Size(16, 256, "channels of the first convolution"),
                "hidden": Size(128, 4096, "features of the hidden linear layer"),
            },
            description="five 3x3 convolutions and one hidden linear layer",
            smallest=8,
        ),
        "mlp": Architecture(
            make=_maker("mlp", "mlp"),
            arguments={
                "first": Size(256, 4096, "features of the first hidden layer"),
                "second": Size(128, 4096, "features of the second hidden layer"),
            },
            description="two hidden linear layers on the flattened image",
        ),
        "mlp-small": Architecture(
            make=_maker("mlp", "mlp_small"),
            arguments={"hidden": Size(64, 4096, "features of the hidden layer")},
            description="one hidden linear layer on the flattened image",
        ),
        "cnn": Architecture(
            make=_maker("cnn", "cnn"),
            arguments={
                "width": Size(32, 256, "channels of the first convolution, the second has twice"),
                "hidden": Size(128, 4096, "features of the hidden linear layer"),
            },
            description="two convolutions with pooling and one hidden linear layer",
            smallest=10,
        ),
        "cnn3": Architecture(
            make=_maker("cnn3", "cnn3"),
            arguments={
                "width": Size(64, 256, "channels of each convolution"),
                "hidden": Size(64, 4096, "features of the hidden linear layer"),
            },
            description="three convolutions and one hidden linear layer",
            smallest=18,
        ),
        "resnet": Architecture(
            make=_maker("resnet", "resnet"),
            arguments=_RESIDUAL,
            description="three stages of residual blocks",
        ),
        "resnet-preact": Architecture(
            make=_maker("resnet", "resnet_preact"),
            arguments=_RESIDUAL,
            description="residual blocks with the norms and activations first",
        ),
        "inception": Architecture(
            make=_maker("inception", "inception"),
            arguments={"width": Size(16, 256, "channels of the first branches")},
            description="two groups of four branches, concatenated",
            smallest=4,
        ),
        "repvgg": Architecture(
            make=_maker("repvgg", "repvgg"),
            arguments={"width": Size(16, 256, "channels of the first block")},
            description="five blocks of 3x3, 1x1 and identity branches, summed",
        ),
        "rnn": Architecture(
            make=_maker("rnn", "rnn_lstm"),
            arguments=_RECURRENT,
            description="the rows as a sequence through an LSTM, its projection normalised",
        ),
        "rnn-gru": Architecture(
            make=_maker("rnn", "rnn_gru"),
            arguments=_RECURRENT,
            description="the rows as a sequence through a GRU, its projection normalised",
        ),
    }
)
