"""torch's norms, and those that people write: exported by the loader."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patterns.registry import module


@module((3, 8, 8), exporter="dynamo")
def batch_norm_2d() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())


@module((3, 8))
def batch_norm_1d_of_a_conv() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 4, 3, groups=1), nn.BatchNorm1d(4), nn.Tanh())


@module((3, 4, 4, 4))
def batch_norm_3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 4, 3, bias=False), nn.BatchNorm3d(4), nn.ReLU())


@module((5,), exporter="dynamo")
def mlp_bn_before_the_activation() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4, bias=False),
        nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3),
    )  # fmt: skip


@module((5,))
def mlp_bn_after_the_activation() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 4), nn.ReLU(),
        nn.BatchNorm1d(4), nn.Linear(4, 3),
    )  # fmt: skip


@module((6, 5), left=1, reason=("wrong-axis", "graph-input", "dearer"))
def rank_3_linear_batch_norm_1d_trap() -> nn.Module:
    """6 positions, 6 features: the batch-norm is on the positions."""
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6))


@module((3, 8, 8))
def without_affine() -> nn.Module:
    """The scale is 1/sqrt(var + eps), positive in both variants."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.MaxPool2d(2),
        nn.BatchNorm2d(4, affine=False), nn.Tanh(),
    )  # fmt: skip


@module((3, 8, 8))
def cumulative_average() -> nn.Module:
    """momentum=None."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU())


@module((3, 8, 8), left=1, reason=("batch-statistics", "training-mode"), exporter="dynamo")
def without_running_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))


@module((3, 8, 8))
def sync_batch_norm() -> nn.Module:
    """In evaluation it is a batch-norm; its own forward asks for a GPU in training only."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4), nn.ReLU())


@module((3, 8, 8), keeps=("InstanceNormalization",))
def instance_norm_without_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU())


class FrozenBatchNorm2d(nn.Module):
    """Buffers, and the formula in forward: torchvision.ops, detectron2."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, low in (("weight", 0.3), ("bias", -1), ("running_mean", -1),
                          ("running_var", 0.3)):  # fmt: skip
            self.register_buffer(name, torch.empty(channels).uniform_(low, 1.5))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


@module((3, 8, 8))
def frozen_batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), FrozenBatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1),
        FrozenBatchNorm2d(4), nn.ReLU(),
    )  # fmt: skip


@module((3, 8, 8), exporter="dynamo")
def frozen_batch_norm_by_dynamo() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), FrozenBatchNorm2d(4), nn.ReLU())


class BatchRenorm2d(nn.Module):
    """Ioffe 2017 (arXiv 1702.03275) in evaluation: sigma is tracked, not its square."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(0.3, 1.5))
        self.bias = nn.Parameter(torch.randn(channels))
        self.running_mean = nn.Buffer(torch.randn(channels))
        self.running_std = nn.Buffer(torch.empty(channels).uniform_(0.5, 2.0))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        x = (x - self.running_mean.view(shape)) / self.running_std.view(shape)
        return self.weight.view(shape) * x + self.bias.view(shape)


@module((3, 8, 8))
def batch_renorm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), BatchRenorm2d(4), nn.ReLU())


class Normalize(nn.Module):
    """torchvision.transforms.Normalize, put into the model."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@module((3, 8, 8))
def normalisation_of_images() -> nn.Module:
    return nn.Sequential(Normalize(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


@module((3, 8, 8), left=1, reason="padding")
def normalisation_of_images_padded() -> nn.Module:
    return nn.Sequential(Normalize(), nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))


@module((3, 8, 8))
def reflect_padded_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4),
    )  # fmt: skip


@module((3, 8, 8))
def circularly_padded_conv() -> nn.Module:
    """Each axis by two slices of the value and the value itself, joined."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4), nn.Tanh(),
    )  # fmt: skip


@module((3, 8, 8))
def conv_circular_pad_batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.CircularPad2d((1, 2, 2, 1)), nn.BatchNorm2d(4), nn.SiLU()
    )


@module((3, 8, 8), exporter="dynamo")
def conv_circular_pad_batch_norm_as_one_op() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.CircularPad2d(1), nn.BatchNorm2d(4), nn.SiLU())


@module((3, 6))
def weight_norm_conv() -> nn.Module:
    """The weight is g*v/|v|, computed from constants."""
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3))
    return nn.Sequential(conv, nn.BatchNorm1d(4), nn.ReLU())


@module((3, 6), exporter="dynamo")
def spectral_norm_conv() -> nn.Module:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv1d(3, 4, 3))
    return nn.Sequential(conv, nn.BatchNorm1d(4), nn.ReLU())


class StandardizedConv(nn.Conv2d):
    """timm's ScaledStdConv2d: the weight is standardised by a batch-norm in training mode."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)
        self.gain = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = nn.functional.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None,
            weight=self.gain, training=True, momentum=0.0, eps=1e-6,
        ).reshape_as(self.weight)  # fmt: skip
        return nn.functional.conv2d(x, weight, self.bias)


@module((3, 8, 8))
def weight_standardisation() -> nn.Module:
    """nf_resnet, BiT: the batch-norm of a constant is a constant."""
    return nn.Sequential(StandardizedConv(3, 4, 3), nn.ReLU())


class SequenceWise(nn.Module):
    """Deep Speech 2 (arXiv 1512.02595): statistics over batch and time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.rnn = nn.GRU(5, 3, bidirectional=True, batch_first=True)
        self.norm2 = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        x = self.norm(x.reshape(n * t, -1)).reshape(n, t, -1)
        x = self.rnn(x)[0]
        return self.head(self.norm2(x.reshape(n * t, -1)))


@module((7, 5), exporter="dynamo")
def deep_speech_2() -> nn.Module:
    return SequenceWise()


class OneHot(nn.Module):
    """Indices into a table, a batch-norm on its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        index = (x[:, 0] > 0).long()
        return torch.relu(self.norm(self.table(index)))


@module((3,))
def embedding_batch_norm() -> nn.Module:
    return OneHot()


class Shared(nn.Module):
    """One convolution, called twice, its results normalised in two ways."""

    def __init__(self, norms: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(norms))

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = torch.tanh(norm(self.conv(x)))
        return torch.sigmoid(self.conv(x))


@module((3, 4, 4))
def shared_conv_once_normalised() -> nn.Module:
    return Shared(1)


@module((3, 4, 4), grows=True)
def shared_conv_with_two_norms() -> nn.Module:
    return Shared(2)
