"""The architectures that a checkpoint may name: a closed table, never an import path.

A checkpoint says `{"architecture": "mnist_cnn", "arguments": {"width": 16}}` and `build` turns
that into a module. Names and arguments come from a file that may be anyone's, so both are
looked up here and bounded before anything is allocated.

Every network takes float32 pixels in [0, 1], shape (N, 1, 28, 28), and returns ten logits,
shape (N, 10). No mean and no std is subtracted: the first batch-norm does that. Linear ops in
front of a batch-norm carry no bias, which that batch-norm would subtract again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from torch import nn

from converter.errors import UserError

CLASSES = 10


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
        make: takes every argument by keyword and returns the module, freshly initialised.
        input_shape: the sizes of one sample, without the batch axis.
        arguments: what `make` takes.
        description: one line for `--help` and for error messages.
    """

    make: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    arguments: Mapping[str, Size]
    description: str


def _conv_bn_relu(number: int, channels_in: int, channels_out: int) -> dict[str, nn.Module]:
    """(N, Cin, H, W) -> (N, Cout, H, W): zero padding 1 keeps the size."""
    return {
        f"conv{number}": nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        f"bn{number}": nn.BatchNorm2d(channels_out),
        f"relu{number}": nn.ReLU(),
    }


def _linear_bn_relu(number: int, features_in: int, features_out: int) -> dict[str, nn.Module]:
    """(N, Fin) -> (N, Fout)."""
    return {
        f"fc{number}": nn.Linear(features_in, features_out, bias=False),
        f"bn{number}": nn.BatchNorm1d(features_out),
        f"relu{number}": nn.ReLU(),
    }


def mnist_cnn(*, width: int, hidden: int) -> nn.Module:
    """Five 3x3 convolutions, three max-pools, one hidden linear layer: six batch-norms.

    With width 16 and hidden 128: 144,954 parameters, 5.5 million multiply-adds a sample.
    """
    w = width
    return _named(
        _conv_bn_relu(1, 1, w),  # (N, w, 28, 28)
        {"pool1": nn.MaxPool2d(2)},  # (N, w, 14, 14)
        _conv_bn_relu(2, w, 2 * w),  # (N, 2w, 14, 14)
        _conv_bn_relu(3, 2 * w, 2 * w),
        {"pool2": nn.MaxPool2d(2)},  # (N, 2w, 7, 7)
        _conv_bn_relu(4, 2 * w, 4 * w),  # (N, 4w, 7, 7)
        _conv_bn_relu(5, 4 * w, 4 * w),
        {"pool3": nn.MaxPool2d(2)},  # (N, 4w, 3, 3)
        {"flatten": nn.Flatten()},  # (N, 36w)
        _linear_bn_relu(6, 36 * w, hidden),  # (N, hidden)
        {"fc7": nn.Linear(hidden, CLASSES)},  # (N, 10)
    )


def mlp(*, first: int, second: int) -> nn.Module:
    """784-256-128-10 by default, a batch-norm after each hidden linear layer."""
    return _named(
        {"flatten": nn.Flatten()},  # (N, 784)
        _linear_bn_relu(1, 28 * 28, first),  # (N, first)
        _linear_bn_relu(2, first, second),  # (N, second)
        {"fc3": nn.Linear(second, CLASSES)},  # (N, 10)
    )


def _named(*parts: dict[str, nn.Module]) -> nn.Module:
    """The parts one after the other, each layer under the name that reports will use."""
    layers = OrderedDict(layer for part in parts for layer in part.items())
    return nn.Sequential(layers)


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "mnist_cnn": Architecture(
            make=mnist_cnn,
            input_shape=(1, 28, 28),
            arguments={
                "width": Size(16, 256, "channels of the first convolution"),
                "hidden": Size(128, 4096, "features of the hidden linear layer"),
            },
            description="five 3x3 convolutions and one hidden linear layer",
        ),
        "mlp": Architecture(
            make=mlp,
            input_shape=(1, 28, 28),
            arguments={
                "first": Size(256, 4096, "features of the first hidden layer"),
                "second": Size(128, 4096, "features of the second hidden layer"),
            },
            description="two hidden linear layers on the flattened image",
        ),
    }
)


def complete(name: str, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Check `arguments` of the architecture `name`, and return them with the defaults filled in.

    Raises:
        UserError: for an unknown name, an unknown argument, or a value that is not an integer
            from 1 to the largest accepted one.
    """
    architecture = lookup(name)
    known = architecture.arguments
    for key, value in arguments.items():
        if key not in known:
            raise UserError(
                f"architecture {name!r} takes no argument {key!r}{_did_you_mean(key, known)}",
                "its arguments: "
                + "; ".join(f"{k} (default {s.default}): {s.meaning}" for k, s in known.items()),
            )
        largest = known[key].largest
        if type(value) is not int or not 1 <= value <= largest:  # True is an int, and no size
            raise UserError(
                f"argument {key!r} of architecture {name!r} is {value!r}",
                f"give an integer from 1 to {largest}: {known[key].meaning}",
            )
    return {key: arguments.get(key, size.default) for key, size in known.items()}


def lookup(name: str) -> Architecture:
    """The row of the table with this name. Raises UserError when there is none."""
    if name not in ARCHITECTURES:
        raise UserError(
            f"unknown architecture {name!r}{_did_you_mean(name, ARCHITECTURES)}",
            "known: " + "; ".join(f"{n}: {a.description}" for n, a in ARCHITECTURES.items()),
        )
    return ARCHITECTURES[name]


def build(name: str, /, **arguments: Any) -> nn.Module:
    """Make the architecture `name`, initialised from torch's global random generator.

    Args:
        name: a key of `ARCHITECTURES`.
        arguments: integers; those left out take their defaults.

    Returns:
        A module in training mode, float32, on the CPU: (N, 1, 28, 28) -> (N, 10) logits.

    Raises:
        UserError: see `complete`.
    """
    return lookup(name).make(**complete(name, arguments))


def _did_you_mean(word: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(str(word), known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""
