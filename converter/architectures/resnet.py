"""A small residual network, and its pre-activation form.

Sources: He, Zhang, Ren and Sun 2015 (arXiv 1512.03385), figure 2: y = act(F(x) + x); the same
2016 (arXiv 1603.05027), figure 4(e): y = F(act(norm(x))) + x.
"""

from __future__ import annotations

from torch import Tensor, nn

from converter.architectures.blocks import (
    conv_block,
    conv_norm,
    dropout,
    input_norm,
    named,
    norm_and_activation,
)
from converter.architectures.parts import activation_layer, norm_layer
from converter.architectures.style import Style
from converter.architectures.task import Task

SHRINKS = (1, 2, 2)  # the stride of the first block of each stage


def resnet(style: Style, task: Task, *, width: int, blocks: int) -> nn.Module:
    """A convolution, three stages of residual blocks, the mean over all positions, one dense."""
    return _stages(Residual, style, task, width, blocks, named())


def resnet_preact(style: Style, task: Task, *, width: int, blocks: int) -> nn.Module:
    """The same with the norm and the activation in front of each convolution of a block.

    What reads the sum is then a norm as well as the next sum, so that the norms on it have no
    linear op of their own. One norm and activation more end it.
    """
    end = named(norm_and_activation(style, 2, 4 * width))  # (N, 4w, 7, 7)
    return _stages(PreActivation, style, task, width, blocks, end)


class Residual(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + x); another size takes x through a 1x1 convolution.

    With the norm after the activation, it follows the two activations instead.
    """

    def __init__(self, style: Style, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        cin, cout = channels_in, channels_out
        self.body = named(
            conv_block(style, 1, cin, cout, padding=1, stride=stride),  # (N, Cout, H/s, W/s)
            conv_norm(style, 2, cout, cout, padding=1),  # (N, Cout, H/s, W/s)
        )
        changes = stride != 1 or cin != cout
        self.shortcut = named(conv_norm(style, 3, cin, cout, 1, stride=stride) if changes else {})
        self.activation = activation_layer(style)
        norm = norm_layer(style, cout, rank=2) if style.bn_position == "after" else None
        self.bn = norm or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, H, W) -> (N, Cout, H/stride, W/stride)."""
        y: Tensor = self.bn(self.activation(self.body(x) + self.shortcut(x)))
        return y


class PreActivation(nn.Module):
    """conv(act(norm(conv(a)))) + x with a = act(norm(x)); another size takes a through a 1x1.

    With the norm after the activation, a = norm(act(x)) and likewise within.
    """

    def __init__(self, style: Style, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        cin, cout = channels_in, channels_out
        bias = _bias(style)
        self.first = named(norm_and_activation(style, 1, cin))  # (N, Cin, H, W)
        self.body = named(
            {"conv1": nn.Conv2d(cin, cout, 3, stride, padding=1, bias=bias)},
            norm_and_activation(style, 2, cout),
            {"conv2": nn.Conv2d(cout, cout, 3, padding=1, bias=bias)},  # (N, Cout, H/s, W/s)
        )
        changes = stride != 1 or cin != cout
        self.shortcut = nn.Conv2d(cin, cout, 1, stride, bias=bias) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cin, H, W) -> (N, Cout, H/stride, W/stride)."""
        a = self.first(x)
        y: Tensor = self.body(a) + (x if self.shortcut is None else self.shortcut(a))
        return y


def _bias(style: Style) -> bool:
    """Whether any convolution of the pre-activation form has one: every sum ends in a norm."""
    return style.norm == "none" or style.bn_position == "after"


def _stages(
    block: type[Residual] | type[PreActivation],
    style: Style,
    task: Task,
    width: int,
    blocks: int,
    end: nn.Sequential,
) -> nn.Module:
    w = width
    if block is Residual:
        stem = conv_block(style, 1, task.channels, w, padding=1)
    else:
        stem = {"conv1": nn.Conv2d(task.channels, w, 3, padding=1, bias=_bias(style))}
    stages: dict[str, nn.Module] = {}
    channels = w
    for number, stride in enumerate(SHRINKS, 1):
        for place in range(blocks):
            wider = w << (number - 1)  # w, 2w, 4w
            stages[f"stage{number}_{place + 1}"] = block(
                style, channels, wider, stride if place == 0 else 1
            )
            channels = wider
    return named(
        input_norm(style, task),
        stem,  # (N, w, 28, 28)
        stages,  # (N, w, 28, 28), (N, 2w, 14, 14), (N, 4w, 7, 7)
        {"end": end} if len(end) else {},
        {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()},  # (N, 4w)
        dropout(style, 3),
        {"fc": nn.Linear(4 * w, task.classes)},  # (N, 10)
    )
