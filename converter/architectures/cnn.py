"""Two 3x3 convolutions with pooling and a dense layer: conv32-conv64-dense128-dense10."""

from __future__ import annotations

from torch import nn

from converter.architectures.blocks import conv_block, dense_block, input_norm, named
from converter.architectures.style import Style
from converter.architectures.task import Task


def cnn(style: Style, task: Task, *, width: int, hidden: int) -> nn.Module:
    """Three batch-norms. The convolutions pad nothing, so that shifts pass them at the border."""
    w = width
    H, W = (task.height - 2) // 2, (task.width - 2) // 2
    H, W = (H - 2) // 2, (W - 2) // 2
    return named(
        input_norm(style, task),
        conv_block(style, 1, task.channels, w),  # (N, w, 26, 26)
        {"pool1": nn.MaxPool2d(2)},  # (N, w, 13, 13)
        conv_block(style, 2, w, 2 * w),  # (N, 2w, 11, 11)
        {"pool2": nn.MaxPool2d(2)},  # (N, 2w, 5, 5)
        {"flatten": nn.Flatten()},  # (N, 50w)
        dense_block(style, 3, 2 * w * H * W, hidden),  # (N, hidden)
        {"fc4": nn.Linear(hidden, task.classes)},  # (N, 10)
    )
