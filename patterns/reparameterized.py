"""Blocks that are trained with branches and run as one convolution, as torch modules."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from patterns.blocks import conv_bn
from patterns.registry import module


class Sum(nn.Module):
    """The sum of branches on one input, then an activation."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(sum(branch(x) for branch in self.branches))


@module((4, 6, 6), becomes="Conv Relu", exporter="dynamo")
def repvgg() -> nn.Module:
    return Sum(nn.BatchNorm2d(4), conv_bn(4, 4), conv_bn(4, 4, 1))


@module((4, 6, 6), becomes="Conv Relu")
def mobileone() -> nn.Module:
    branches = [conv_bn(4, 4, groups=4) for _ in range(3)]
    return Sum(nn.BatchNorm2d(4), *branches, conv_bn(4, 4, 1, groups=4))


@module((4, 6, 6), becomes="Conv Relu Conv Relu")
def repvgg_twice() -> nn.Module:
    return nn.Sequential(*(Sum(nn.BatchNorm2d(4), conv_bn(4, 4), conv_bn(4, 4, 1)) for _ in "ab"))


class Asymmetric(nn.Module):
    """ACNet: square, row and column, on one input."""

    def __init__(self) -> None:
        super().__init__()
        self.square = conv_bn(4, 4)
        self.row = nn.Sequential(nn.Conv2d(4, 4, (1, 3), padding=(0, 1)), nn.BatchNorm2d(4))
        self.column = nn.Sequential(nn.Conv2d(4, 4, (3, 1), padding=(1, 0)), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.square(x) + self.row(x) + self.column(x))


@module((4, 6, 6), becomes="Conv Relu")
def acnet() -> nn.Module:
    return Asymmetric()


@module((4, 6, 6))
def diverse_branch_block() -> nn.Module:
    """DBB (Ding et al., CVPR 2021): 3x3; 1x1; 1x1 then 3x3; 1x1 then an average."""
    sequence = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, 3, padding=0))
    average = nn.Sequential(conv_bn(4, 4, 1), nn.AvgPool2d(3, 1), nn.BatchNorm2d(4))
    return Sum(conv_bn(4, 4, 3, padding=0), sequence, average)
