"""Three 3x3 convolutions of equal width and a dense layer: 3 x conv64, dense64, dense10."""

from __future__ import annotations

from torch import nn

from converter.architectures.blocks import conv_block, dense_block, input_norm, named
from converter.architectures.style import Style
from converter.architectures.task import Task


def cnn3(style: Style, task: Task, *, width: int, hidden: int) -> nn.Module:
    """Four batch-norms. The convolutions pad nothing, so that shifts pass them at the border."""
    w = width
    H, W = (task.height - 2) // 2, (task.width - 2) // 2
    H, W = (H - 2) // 2 - 2, (W - 2) // 2 - 2
    return named(
        input_norm(style, task),
        conv_block(style, 1, task.channels, w),  # (N, w, 26, 26)
        {"pool1": nn.MaxPool2d(2)},  # (N, w, 13, 13)
        conv_block(style, 2, w, w),  # (N, w, 11, 11)
        {"pool2": nn.MaxPool2d(2)},  # (N, w, 5, 5)
        conv_block(style, 3, w, w),  # (N, w, 3, 3)
        {"flatten": nn.Flatten()},  # (N, 9w)
        dense_block(style, 4, w * H * W, hidden),  # (N, hidden)
        {"fc5": nn.Linear(hidden, task.classes)},  # (N, 10)
    )
