"""The layers that a style asks for: its norm and its activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from torch import nn

from converter.errors import UserError
from converter.training.architectures.style import Activation, Norm, Style

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


_KINDS: Mapping[Norm, Callable[[int], Callable[..., nn.Module]]] = {
    "batch": _batch,
    "renorm": _renorm,
}
