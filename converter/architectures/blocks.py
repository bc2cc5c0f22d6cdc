"""A linear op with what belongs to it: its norm, its activation, its dropout, in the style's order.

A linear op directly in front of a norm carries no bias: the norm would subtract it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from converter.architectures.parts import activation_layer, norm_layer
from converter.architectures.style import Style
from converter.architectures.task import Task

Parts = dict[str, nn.Module]


def conv_block(
    style: Style,
    number: int,
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    *,
    padding: int = 0,
    stride: int = 1,
) -> Parts:
    """(N, Cin, H, W) -> (N, Cout, H', W'); the layers are called conv1, bn1, relu1."""

    def conv(bias: bool) -> nn.Module:
        return nn.Conv2d(
            channels_in, channels_out, kernel, padding=padding, stride=stride, bias=bias
        )

    return _block(style, number, "conv", conv, norm_layer(style, channels_out, rank=2))


def conv_norm(
    style: Style,
    number: int,
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    *,
    padding: int = 0,
    stride: int = 1,
) -> Parts:
    """(N, Cin, H, W) -> (N, Cout, H', W') without an activation, for a branch that is summed.

    A style with the norm after the activation has none here.
    """
    norm = norm_layer(style, channels_out, rank=2) if style.bn_position == "before" else None
    conv = nn.Conv2d(
        channels_in, channels_out, kernel, stride=stride, padding=padding, bias=norm is None
    )
    return {f"conv{number}": conv} | ({} if norm is None else {f"bn{number}": norm})


def norm_and_activation(style: Style, number: int, channels: int) -> Parts:
    """Both in the style's order, (N, C, H, W) -> the same shape."""
    norm = norm_layer(style, channels, rank=2)
    parts: Parts = {} if norm is None else {f"bn{number}": norm}
    activation: Parts = {f"{style.activation}{number}": activation_layer(style)}
    return parts | activation if style.bn_position == "before" else activation | parts


def dense_block(style: Style, number: int, features_in: int, features_out: int) -> Parts:
    """(N, Fin) -> (N, Fout); the layers are called fc1, bn1, relu1, dropout1."""

    def linear(bias: bool) -> nn.Module:
        return nn.Linear(features_in, features_out, bias=bias)

    parts = _block(style, number, "fc", linear, norm_layer(style, features_out, rank=1))
    return parts | dropout(style, number)


def dropout(style: Style, number: int) -> Parts:
    """Dropout, when the style has some."""
    return {f"dropout{number}": nn.Dropout(style.dropout)} if style.dropout else {}


def input_norm(style: Style, task: Task) -> Parts:
    """A batch-norm on the raw pixels (N, C, H, W), when the style has one."""
    if not style.input_norm:
        return {}
    return {"input_norm": nn.BatchNorm2d(task.channels, eps=style.eps, momentum=style.momentum)}


def named(*parts: Parts) -> nn.Sequential:
    """The parts one after the other, each layer under the name that reports will use."""
    return nn.Sequential(OrderedDict(layer for part in parts for layer in part.items()))


def _block(
    style: Style,
    number: int,
    name: str,
    linear: Callable[[bool], nn.Module],
    norm: nn.Module | None,
) -> Parts:
    before = norm is not None and style.bn_position == "before"
    parts: Parts = {f"{name}{number}": linear(not before)}
    if norm is not None and before:
        parts[f"bn{number}"] = norm
    parts[f"{style.activation}{number}"] = activation_layer(style)
    if norm is not None and not before:
        parts[f"bn{number}"] = norm
    return parts
