"""The layers that a style asks for: its norm and its activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from converter.architectures.renorm import BatchRenorm1d, BatchRenorm2d
from converter.architectures.style import Activation, Norm, Style

ACTIVATIONS: Mapping[Activation, Callable[[], nn.Module]] = MappingProxyType(
    {
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "leaky_relu": nn.LeakyReLU,  # slope 0.01 below zero
        "gelu": nn.GELU,
    }
)


def norm_layer(style: Style, channels: int, rank: int) -> nn.Module | None:
    """The norm of this style over `channels`, or None when it has none.

    Args:
        rank: 1 for activations (N, C) or (N, C, L), 2 for (N, C, H, W).
    """
    if style.norm == "none":
        return None
    layer: Any = _KINDS[style.norm][rank - 1](
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


_KINDS: Mapping[Norm, tuple[type[nn.Module], type[nn.Module]]] = {
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d),
    "renorm": (BatchRenorm1d, BatchRenorm2d),
}
