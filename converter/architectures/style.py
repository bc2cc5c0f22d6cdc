"""How a network normalises, activates and is initialised: the same choices for every network.

Source of the placements: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3.2: "before the
nonlinearity", which is the default here; `bn_position="after"` is what many have tried since.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter

from converter.errors import UserError

Norm = Literal["batch", "none", "renorm"]
Position = Literal["before", "after"]
Activation = Literal["relu", "sigmoid", "tanh", "leaky_relu", "gelu"]

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "norm": get_args(Norm),
        "bn_position": get_args(Position),
        "activation": get_args(Activation),
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

_Number = Annotated[float, Parameter(metavar="NUMBER")]


STYLE = Parameter(group=Group("How it normalises, activates and is initialised", sort_key=2))


@Parameter(name="*")
@STYLE
@dataclass(frozen=True)
class Style:
    """What every architecture lets one choose.

    Attributes:
        norm: batch normalization, none, or batch renormalization (Ioffe 2017).
        bn_position: of the norm: before or after the activation.
        activation: behind every hidden layer.
        momentum: the weight of the newest batch in the running statistics, as torch has it.
        eps: added to the variance.
        scale: the norms learn gamma; else it is 1.
        center: the norms learn beta; else it is 0.
        dropout: the probability of a zero behind each hidden dense layer.
        init_scale: the initial weights (not biases, not norms) are torch's times this.
        input_norm: a batch-norm on the raw pixels, one mean and variance a channel, in place of a
            preparation of the data.

    Raises:
        UserError: for a value outside of what the tables above accept.
    """

    norm: Norm = "batch"
    bn_position: Position = "before"
    activation: Activation = "relu"
    momentum: _Number = 0.1
    eps: _Number = 1e-5
    scale: Annotated[bool, Parameter(negative="--no-scale")] = True
    center: Annotated[bool, Parameter(negative="--no-center")] = True
    dropout: _Number = 0.0
    init_scale: _Number = 1.0
    input_norm: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if expected := wrong(field.name, value):
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


def wrong(name: str, value: Any) -> str:
    """What the field `name` of a style must be, if `value` is not that; else ""."""
    if name in CHOICES:
        known = CHOICES[name]
        right, expected = value in known, "one of " + ", ".join(known)
    elif name in _RANGES:
        within, expected = _RANGES[name]
        right = type(value) in {int, float} and math.isfinite(value) and within(value)
    else:
        right, expected = type(value) is bool, "true or false"
    return "" if right else expected


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
