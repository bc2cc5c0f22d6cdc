"""Blocks of well-known networks, as torch modules: exported by the loader."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.converter.patterns.registry import module


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


class UNet(nn.Module):
    """One level: down, up by a transposed convolution, joined with the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(conv_bn(3, 4), nn.ReLU())
        self.below = nn.Sequential(nn.MaxPool2d(2), conv_bn(4, 6), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 4, 2, 2), nn.BatchNorm2d(4))
        self.leave = nn.Sequential(conv_bn(8, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enter(x)
        return self.leave(torch.cat([self.up(self.below(skip)), skip], 1))


@module((3, 8, 8))
def u_net() -> nn.Module:
    return UNet()


class ChannelAttention(nn.Module):
    """CBAM: a shared MLP on the mean and on the maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn(3, 4)
        self.mlp = nn.Sequential(
            nn.Conv2d(4, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mean, most = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(most))


@module((3, 6, 6))
def channel_attention() -> nn.Module:
    """The shared weight and its batch-norm are used twice: one folded weight."""
    return ChannelAttention()


@module((2, 8, 8))
def dcgan_generator() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 4, 2, 1, output_padding=1, groups=1), nn.BatchNorm2d(3), nn.Tanh(),
    )  # fmt: skip


@module((4, 6, 6), exporter="dynamo")
def super_resolution() -> nn.Module:
    """Sub-pixel convolution, then batch-norm on the image."""
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.PixelShuffle(2), nn.BatchNorm2d(2))


@module((4, 6, 6))
def upsample_bilinear() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.BatchNorm2d(4),
        nn.ReLU(), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1),
    )  # fmt: skip


class PointNet(nn.Module):
    """Points (N, 3, L): shared MLPs as 1x1 convolutions, the maximum, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(
            nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6)
        )
        self.head = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.amax(self.points(x), 2))


@module((3, 9))
def pointnet() -> nn.Module:
    return PointNet()


class LinearNorm(nn.Module):
    """LeViT: a Linear on tokens, its batch-norm on the flattened ones."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.bn(x.flatten(0, 1)).reshape_as(x)


class LeViTAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = LinearNorm(4, 12), LinearNorm(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 2)
        weights = torch.softmax(q @ k.transpose(1, 2) * 0.5, 2)
        return x + self.out(F.hardswish(weights @ v))


@module((6, 4), plain=1)
def levit_attention() -> nn.Module:
    """The scalar between the two products of an attention is left to it."""
    return LeViTAttention()


class ConvMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.GELU(), nn.BatchNorm2d(4)
        )
        self.mix = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU(), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x + self.spatial(x))
        return self.head(x.mean((2, 3)))


@module((4, 6, 6), left=1, reason=("not-linear", "graph-input"), exporter="dynamo")
def convmixer_block() -> nn.Module:
    """On one side of a sum the scale must stay; behind the 1x1 it goes into the head."""
    return ConvMixer()


class Aspp(nn.Module):
    """DeepLab: dilated branches and a pooled one, joined and projected."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn(3, 2, 1), conv_bn(3, 2, 3, padding=2, dilation=2)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn(3, 2, 1), nn.ReLU())
        self.project = nn.Sequential(conv_bn(6, 4, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        parts = [F.relu(branch(x)) for branch in self.branches]
        pooled = F.interpolate(self.pooled(x), size=(6, 6), mode="nearest")
        return self.project(torch.cat([*parts, pooled], 1))


@module((3, 6, 6))
def deeplab_pooling() -> nn.Module:
    return Aspp()


@module((4, 6, 6))
def xception_separable_conv() -> nn.Module:
    """Depthwise, pointwise, batch-norm; a relu in front of each."""
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6),
    )  # fmt: skip


class Inception(nn.Module):
    """Branches, each with its own norm, joined; a batch-norm behind the join."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 2, 1)
        self.b = nn.Sequential(conv_bn(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1)))


@module((3, 6, 6))
def inception_norm_behind_concat() -> nn.Module:
    return Inception()


class LstmTagger(nn.Module):
    """Convolution, batch-norm, LSTM: acoustic models."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)
        self.rnn = kind(4, 5, batch_first=True, bidirectional=True)  # type: ignore[call-arg]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(torch.tanh(self.conv(x)))
        return self.rnn(y.transpose(1, 2))[0]


@module((3, 7))
def conv_tanh_bn_lstm() -> nn.Module:
    return LstmTagger(nn.LSTM)


@module((3, 7))
def conv_tanh_bn_gru() -> nn.Module:
    return LstmTagger(nn.GRU)
