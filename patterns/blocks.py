"""Blocks of well-known networks, as torch modules: exported by the loader."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patterns.registry import module


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **more: int) -> nn.Sequential:
    more.setdefault("padding", kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, bias=False, **more),  # type: ignore[arg-type]
        nn.BatchNorm2d(outputs),
    )


class Residual(nn.Module):
    """act(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None,
                 act: nn.Module | None = None, swap: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()
        self.act, self.swap = act or nn.ReLU(), swap

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.body(x), self.shortcut(x)
        return self.act(b + a if self.swap else a + b)


@module((4, 6, 6))
def resnet_basic_block() -> nn.Module:
    return Residual(nn.Sequential(conv_bn(4, 4), nn.ReLU(), conv_bn(4, 4)))


@module((4, 6, 6), exporter="dynamo")
def resnet_block_with_a_projection() -> nn.Module:
    body = nn.Sequential(conv_bn(4, 6, stride=2), nn.ReLU(), conv_bn(6, 6))
    return Residual(body, conv_bn(4, 6, 1, stride=2), swap=True)


@module((4, 6, 6))
def resnet_bottleneck() -> nn.Module:
    body = nn.Sequential(conv_bn(4, 2, 1), nn.ReLU(), conv_bn(2, 2), nn.ReLU(), conv_bn(2, 4, 1))
    return Residual(body)


@module((4, 7, 7))
def resnet_d_shortcut() -> nn.Module:
    """An average pooling in front of the 1x1."""
    body = nn.Sequential(conv_bn(4, 6, stride=2), nn.ReLU(), conv_bn(6, 6))
    pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    return Residual(body, nn.Sequential(pool, conv_bn(4, 6, 1)))


class PreActivation(nn.Module):
    """ResNet v2: batch-norm, relu, convolution; the sum is read by the next one too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.tanh(x) * self.conv2(F.relu(self.norm2(y)))


@module((3, 6, 6), left=1, reason="shared-value")
def pre_activation_block() -> nn.Module:
    """The second batch-norm folds; the first one's input is read by others."""
    return PreActivation()


class PyramidBlock(nn.Module):
    """PyramidNet: batch-norm first and last, no relu behind the first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x)) + x


@module((4, 6, 6))
def pyramid_block() -> nn.Module:
    return PyramidBlock()


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.ReLU(),
            nn.Conv2d(2, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


@module((4, 6, 6))
def se_resnet_block() -> nn.Module:
    body = nn.Sequential(conv_bn(4, 4), nn.ReLU(), conv_bn(4, 4), SqueezeExcite(4))
    return Residual(body)


def inverted_residual(act: type[nn.Module], excite: bool = False) -> nn.Module:
    parts = [
        conv_bn(4, 8, 1), act(), conv_bn(8, 8, groups=8), act(),
        *([SqueezeExcite(8)] if excite else []), conv_bn(8, 4, 1),
    ]  # fmt: skip
    return Residual(nn.Sequential(*parts), act=nn.Identity())


@module((4, 6, 6))
def inverted_residual_relu6() -> nn.Module:
    return inverted_residual(nn.ReLU6)


@module((4, 6, 6), exporter="dynamo")
def inverted_residual_hard_swish() -> nn.Module:
    return inverted_residual(nn.Hardswish, excite=True)


@module((4, 6, 6))
def inverted_residual_silu() -> nn.Module:
    return inverted_residual(nn.SiLU, excite=True)


class ShuffleUnit(nn.Module):
    """ShuffleNet v2: half of the channels pass, the other half is transformed, then shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_bn(3, 3, 1), nn.ReLU(), conv_bn(3, 3, groups=3), conv_bn(3, 3, 1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@module((6, 6, 6))
def shuffle_unit() -> nn.Module:
    return ShuffleUnit()


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm = nn.LayerNorm(4)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
        self.gamma = nn.Parameter(torch.empty(4).uniform_(0.3, 1.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y), approximate="tanh"))
        return x + y.permute(0, 3, 1, 2)


@module((4, 6, 6), keeps=("LayerNormalization",), exporter="dynamo")
def convnext_block() -> nn.Module:
    return ConvNeXt()


class Convolution1d(nn.Module):
    """A temporal convolution block with causal padding: weight-norm, batch-norm, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3, dilation=2))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + F.relu(self.norm(self.conv(F.pad(x, (4, 0))))))


@module((4, 8))
def temporal_convolution() -> nn.Module:
    return Convolution1d()
