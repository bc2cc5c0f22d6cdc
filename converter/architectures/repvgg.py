"""A small RepVGG, trained with its branches: 3x3, 1x1 and identity, each with its norm, summed.

Source: Ding et al. 2021 (arXiv 2101.03697), figure 2(B). Folding makes one 3x3 convolution of
each block.
"""

from __future__ import annotations

from torch import Tensor, nn

from converter.architectures.blocks import conv_norm, dropout, input_norm, named
from converter.architectures.parts import activation_layer, norm_layer
from converter.architectures.style import Style
from converter.architectures.task import Task


def repvgg(style: Style, task: Task, *, width: int) -> nn.Module:
    """Five blocks; where the size changes there is no identity branch."""
    w = width
    return named(
        input_norm(style, task),
        {
            "block1": Block(style, task.channels, w, 1),  # (N, w, 28, 28)
            "block2": Block(style, w, 2 * w, 2),  # (N, 2w, 14, 14)
            "block3": Block(style, 2 * w, 2 * w, 1),
            "block4": Block(style, 2 * w, 4 * w, 2),  # (N, 4w, 7, 7)
            "block5": Block(style, 4 * w, 4 * w, 1),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),  # (N, 4w)
        },
        dropout(style, 1),
        {"fc": nn.Linear(4 * w, task.classes)},  # (N, 10)
    )


class Block(nn.Module):
    """act(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x)).

    With the norm after the activation there is one: norm(act(conv3x3(x) + conv1x1(x) + x)).
    """

    def __init__(self, style: Style, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        cin, cout = channels_in, channels_out
        before = style.bn_position == "before"
        self.three = named(conv_norm(style, 1, cin, cout, 3, padding=1, stride=stride))
        self.one = named(conv_norm(style, 1, cin, cout, 1, stride=stride))
        self.identity: nn.Module | None = None
        if stride == 1 and cin == cout:
            self.identity = (norm_layer(style, cout, rank=2) if before else None) or nn.Identity()
        self.activation = activation_layer(style)
        self.bn = (None if before else norm_layer(style, cout, rank=2)) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, H, W) -> (N, Cout, H/stride, W/stride)."""
        y = self.three(x) + self.one(x)
        if self.identity is not None:
            y = y + self.identity(x)
        y = self.bn(self.activation(y))
        assert isinstance(y, Tensor)
        return y
