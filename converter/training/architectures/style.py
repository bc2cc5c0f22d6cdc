"""How a network normalises, activates and is initialised: the same choices for every network.

Source of the placements: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3.2: "before the
nonlinearity", which is the default here; `bn_position="after"` is what many have tried since.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from types import MappingProxyType
from typing import Any

from torch import nn

from converter.errors import UserError

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "leaky_relu": nn.LeakyReLU,  # slope 0.01 below zero
        "gelu": nn.GELU,
    }
)

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "norm": ("batch", "none", "renorm"),
        "bn_position": ("before", "after"),
        "activation": tuple(ACTIVATIONS),
    }
)

# The closed or half-open interval of each number, and how to say it.
_RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = MappingProxyType(
    {
        "momentum": (lambda v: 0 < v <= 1, "a number above 0, up to 1"),
        "eps": (lambda v: 0 < v <= 1, "a number above 0, up to 1"),
        "dropout": (lambda v: 0 <= v < 1, "a number from 0, below 1"),
        "init_scale": (lambda v: 0 < v <= 1000, "a number above 0, up to 1000"),
    }
)


@dataclass(frozen=True)
class Style:
    """What every architecture lets one choose.

    Attributes:
        norm: "batch", "none", or "renorm" for Batch Renormalization (Ioffe 2017).
        bn_position: of the norm, "before" or "after" the activation.
        activation: one of `ACTIVATIONS`.
        momentum: the weight of the newest batch in the running statistics, as torch has it.
        eps: added to the variance.
        scale, center: whether the norm learns gamma and beta; else gamma = 1, beta = 0.
        dropout: the probability of a zero behind each hidden dense layer.
        init_scale: the initial weights (not biases, not norms) are torch's times this.
        input_norm: a batch-norm on the raw pixels, one mean and variance a channel, in place of
            a preparation of the data.

    Raises:
        UserError: for a value outside of what the table above accepts.
    """

    norm: str = "batch"
    bn_position: str = "before"
    activation: str = "relu"
    momentum: float = 0.1
    eps: float = 1e-5
    scale: bool = True
    center: bool = True
    dropout: float = 0.0
    init_scale: float = 1.0
    input_norm: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in CHOICES:
                known = CHOICES[field.name]
                right, expected = value in known, "one of " + ", ".join(known)
            elif field.name in _RANGES:
                within, expected = _RANGES[field.name]
                right = type(value) in {int, float} and math.isfinite(value) and within(value)
            else:
                right, expected = type(value) is bool, "true or false"
            if not right:
                raise UserError(f"the style's {field.name!r} is {value!r}", f"give {expected}")

    @property
    def affine(self) -> bool:
        """Whether the norms learn anything at all."""
        return self.scale or self.center

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values: the style in a checkpoint."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def parse_style(content: Style | Mapping[str, Any] | None) -> Style:
    """A style from the fields that are given, which may come from anyone's file.

    Raises:
        UserError: for a field that there is not, or a value that it cannot have.
    """
    if content is None or isinstance(content, Style):
        return content or Style()
    if not isinstance(content, Mapping):
        raise UserError(f"the style is {type(content).__name__}, not a dictionary")
    known = [field.name for field in fields(Style)]
    for key in content:
        if key not in known:
            raise UserError(f"the style has no field {key!r}", "its fields: " + ", ".join(known))
    return Style(**content)


def norm_layer(style: Style, channels: int, rank: int) -> nn.Module | None:
    """The norm of this style over `channels`, or None when it has none.

    Args:
        rank: 1 for activations (N, C) or (N, C, L), 2 for (N, C, H, W).

    Raises:
        UserError: for Batch Renormalization where that layer is missing.
    """
    if style.norm == "none":
        return None
    layer: Any = _KINDS[style.norm](rank)(
        channels, eps=style.eps, momentum=style.momentum, affine=style.affine
    )
    if style.affine and not style.scale:
        layer.register_parameter("weight", None)  # gamma = 1
    if style.affine and not style.center:
        layer.register_parameter("bias", None)  # beta = 0
    assert isinstance(layer, nn.Module)
    return layer


def activation_layer(style: Style) -> nn.Module:
    """A new module of the style's activation; it changes no shape."""
    return ACTIVATIONS[style.activation]()


def _batch(rank: int) -> Callable[..., nn.Module]:
    return nn.BatchNorm1d if rank == 1 else nn.BatchNorm2d


def _renorm(rank: int) -> Callable[..., nn.Module]:
    try:
        layers = import_module("converter.training.layers.renorm")
    except ModuleNotFoundError as error:
        raise UserError("Batch Renormalization is not part of this version") from error
    found: Callable[..., nn.Module] = layers.BatchRenorm1d if rank == 1 else layers.BatchRenorm2d
    return found


_KINDS: Mapping[str, Callable[[int], Callable[..., nn.Module]]] = {
    "batch": _batch,
    "renorm": _renorm,
}
