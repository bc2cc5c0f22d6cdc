"""Dense layers on the flattened image: 784-256-128-10, and the small 784-64-10."""

from __future__ import annotations

from torch import nn

from converter.architectures.blocks import dense_block, input_norm, named
from converter.architectures.style import Style
from converter.architectures.task import Task


def mlp(style: Style, task: Task, *, first: int, second: int) -> nn.Module:
    """784-256-128-10 by default: two batch-norms, 235,530 parameters."""
    return named(
        input_norm(style, task),
        {"flatten": nn.Flatten()},  # (N, 784)
        dense_block(style, 1, task.pixels, first),  # (N, first)
        dense_block(style, 2, first, second),  # (N, second)
        {"fc3": nn.Linear(second, task.classes)},  # (N, 10)
    )


def mlp_small(style: Style, task: Task, *, hidden: int) -> nn.Module:
    """784-64-10 by default: one batch-norm, 50,954 parameters."""
    return named(
        input_norm(style, task),
        {"flatten": nn.Flatten()},  # (N, 784)
        dense_block(style, 1, task.pixels, hidden),  # (N, hidden)
        {"fc2": nn.Linear(hidden, task.classes)},  # (N, 10)
    )
