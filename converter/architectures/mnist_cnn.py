"""The network that ships: five 3x3 convolutions, three max-pools, one hidden linear layer."""

from __future__ import annotations

from torch import nn

from converter.architectures.blocks import conv_block, dense_block, input_norm, named
from converter.architectures.style import Style
from converter.architectures.task import Task


def mnist_cnn(style: Style, task: Task, *, width: int, hidden: int) -> nn.Module:
    """Six batch-norms; zero padding 1 keeps the size of every convolution.

    With width 16 and hidden 128: 144,954 parameters, 5.5 million multiply-adds a sample.
    """
    w = width
    return named(
        input_norm(style, task),
        conv_block(style, 1, task.channels, w, padding=1),  # (N, w, 28, 28)
        {"pool1": nn.MaxPool2d(2)},  # (N, w, 14, 14)
        conv_block(style, 2, w, 2 * w, padding=1),  # (N, 2w, 14, 14)
        conv_block(style, 3, 2 * w, 2 * w, padding=1),
        {"pool2": nn.MaxPool2d(2)},  # (N, 2w, 7, 7)
        conv_block(style, 4, 2 * w, 4 * w, padding=1),  # (N, 4w, 7, 7)
        conv_block(style, 5, 4 * w, 4 * w, padding=1),
        {"pool3": nn.MaxPool2d(2)},  # (N, 4w, 3, 3)
        {"flatten": nn.Flatten()},  # (N, 36w)
        dense_block(style, 6, 4 * w * (task.height // 8) * (task.width // 8), hidden),
        {"fc7": nn.Linear(hidden, task.classes)},  # (N, 10)
    )
