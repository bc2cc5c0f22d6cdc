"""Small networks of well-known kinds, as torch modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patterns.blocks import conv_bn
from patterns.registry import module


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


class BottleneckAttention(nn.Module):
    """Attention over the positions of an image, heads and batch in one axis (Srinivas et al. 2021,
    arXiv 2101.11605), as timm writes it, and the batch-norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(4, 18, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q, k, v = torch.split(self.qkv(x), [6, 6, 6], dim=1)
        q, k, v = (part.reshape(batch * 2, 3, -1) for part in (q, k, v))
        weights = ((q.transpose(-1, -2) @ k) * 0.6).softmax(dim=-1)
        y = (weights @ v.transpose(-1, -2)).transpose(-1, -2)
        return F.silu(self.norm(y.reshape(batch, 6, height, width)))


@module((4, 4, 5), exporter="dynamo", plain=1)
def bottleneck_attention() -> nn.Module:
    return BottleneckAttention()


class SeparateProjections(nn.Module):
    """Attention over positions with heads on an axis of their own, and a batch-norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 6) for _ in range(3))
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            m(x).reshape(batch, length, 2, 3).transpose(1, 2) for m in (self.q, self.k, self.v)
        )
        y = (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v
        return torch.tanh(self.norm(y.transpose(1, 2).reshape(batch, length, 6).transpose(1, 2)))


@module((5, 4))
def attention_with_separate_projections() -> nn.Module:
    return SeparateProjections()


@module((5, 4), exporter="dynamo")
def attention_with_separate_projections_by_export() -> nn.Module:
    return SeparateProjections()
