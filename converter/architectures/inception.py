"""A small branch net: convolutions of several sizes side by side, concatenated.

Source: Szegedy et al. 2015 (arXiv 1409.4842), figure 2(b), with a norm behind each convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from converter.architectures.blocks import (
    conv_block,
    dropout,
    input_norm,
    named,
)
from converter.architectures.style import Style
from converter.architectures.task import Task


def inception(style: Style, task: Task, *, width: int) -> nn.Module:
    """A convolution, two groups of four branches, the mean over all positions, one dense."""
    w = width
    return named(
        input_norm(style, task),
        conv_block(style, 1, task.channels, w, padding=1),  # (N, w, 28, 28)
        {
            "pool1": nn.MaxPool2d(2),  # (N, w, 14, 14)
            "branches1": Branches(style, w, w),  # (N, 4w, 14, 14)
            "pool2": nn.MaxPool2d(2),  # (N, 4w, 7, 7)
            "branches2": Branches(style, 4 * w, 2 * w),  # (N, 8w, 7, 7)
            "pool3": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),  # (N, 8w)
        },
        dropout(style, 2),
        {"fc": nn.Linear(8 * w, task.classes)},  # (N, 10)
    )


class Branches(nn.Module):
    """1x1; 1x1 and 3x3; 1x1 and 5x5; 3x3 maximum and 1x1: `each` channels from every one."""

    def __init__(self, style: Style, channels_in: int, each: int) -> None:
        super().__init__()
        cin, c = channels_in, each
        self.one = named(conv_block(style, 1, cin, c, 1))  # (N, c, H, W), and so are all
        self.three = named(
            conv_block(style, 1, cin, c, 1),
            conv_block(style, 2, c, c, 3, padding=1),
        )
        self.five = named(
            conv_block(style, 1, cin, c, 1),
            conv_block(style, 2, c, c, 5, padding=2),
        )
        self.pooled = named(
            {"pool": nn.MaxPool2d(3, stride=1, padding=1)},
            conv_block(style, 1, cin, c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, H, W) -> (N, 4c, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)
