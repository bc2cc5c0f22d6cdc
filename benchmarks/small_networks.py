"""Small members of the families of the zoo, for benchmarks that evaluate them many times.

Their blocks are the libraries' own; they are narrow, shallow, and read small images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from benchmarks.zoo import exporters
from benchmarks.zoo.names import EXPORTERS
from benchmarks.zoo.networks import SEED, randomize, settle_on
from converter.sources import InputShape, LoadOptions
from converter.sources.module import from_module
from patterns.networks import declare_torchvision_operators

Make = Callable[[], nn.Module]
IMAGE = (3, 32, 32)


def mobilenet_v2() -> nn.Module:
    from torchvision.models import MobileNetV2

    rows = [[1, 8, 1, 1], [4, 8, 2, 2], [4, 16, 1, 2]]
    return MobileNetV2(num_classes=5, inverted_residual_setting=rows, width_mult=0.5)


def mobilenet_v3() -> nn.Module:
    from torchvision.models import MobileNetV3
    from torchvision.models.mobilenetv3 import InvertedResidualConfig as Row

    rows = [
        Row(8, 3, 16, 8, True, "RE", 2, 1, 1.0),
        Row(8, 3, 24, 8, False, "HS", 1, 1, 1.0),
        Row(8, 5, 24, 16, True, "HS", 2, 1, 1.0),
    ]
    return MobileNetV3(rows, 32, num_classes=5)


def shufflenet() -> nn.Module:
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([1, 2, 1], [8, 16, 32, 32, 64], num_classes=5)


def densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(4, (2, 2, 1), num_init_features=8, bn_size=2, num_classes=5)


def resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (1, 2, 1, 1), channels=(8, 16, 16, 16), stem_width=8, num_classes=5)


def bottlenecks() -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(
        Bottleneck, (1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=8, stem_type="deep",
        num_classes=5, avg_down=True, block_args={"attn_layer": "se"},
    )  # fmt: skip


def repvgg() -> nn.Module:
    return _by_blocks("rep", (8, 16, 16))


def mobileone() -> nn.Module:
    return _by_blocks("one", (8, 8, 16), num_conv_branches=2, group_size=1)


def _by_blocks(kind: str, widths: tuple[int, ...], group_size: int = 0, **layer: Any) -> nn.Module:
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    blocks = tuple(
        ByoBlockCfg(type=kind, d=2 if i else 1, c=c, s=2, gs=group_size)
        for i, c in enumerate(widths)
    )
    config = ByoModelCfg(blocks=blocks, stem_type=kind, stem_chs=8, block_kwargs=layer or None)
    return ByobNet(config, num_classes=5)


def convmixer() -> nn.Module:
    from timm.models.convmixer import ConvMixer

    return ConvMixer(dim=16, depth=2, kernel_size=5, patch_size=4, num_classes=5)


def levit() -> nn.Module:
    from timm.models.levit import Levit

    return Levit(
        img_size=32, embed_dim=(16, 24, 32), key_dim=4, depth=(1, 1, 1), num_heads=(2, 3, 4),
        num_classes=5,
    )  # fmt: skip


class Unet(nn.Module):
    """Down, up, and a connection across; transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = _step(3, 8), _step(8, 16)
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Sequential(_step(16, 8), nn.Conv2d(8, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high = self.one(x)
        low = self.two(nn.functional.max_pool2d(high, 2))
        found: torch.Tensor = self.last(torch.cat([high, self.up(low)], 1))
        return found


def _step(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)
    )


class Recurrent(nn.Module):
    """Features over time, normalised, through an LSTM and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.between = nn.BatchNorm1d(6), nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(8, 5, batch_first=True)
        self.head = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.lstm(self.first(x).transpose(1, 2))[0]
        y = self.gru(self.between(y.transpose(1, 2)).transpose(1, 2))[0]
        found: torch.Tensor = self.head(y[:, -1])
        return found


@dataclass(frozen=True)
class Small:
    make: Make
    shape: tuple[int, ...] = IMAGE


NETWORKS: dict[str, Small] = {
    "mobilenet_v2": Small(mobilenet_v2),
    "mobilenet_v3": Small(mobilenet_v3),
    "shufflenet": Small(shufflenet),
    "densenet": Small(densenet),
    "resnet": Small(resnet),
    "bottlenecks": Small(bottlenecks),
    "repvgg": Small(repvgg),
    "mobileone": Small(mobileone),
    "convmixer": Small(convmixer),
    "levit": Small(levit),
    "unet": Small(Unet),
    "recurrent": Small(Recurrent, (6, 7)),
}


def exported(name: str) -> ir.Model:
    """In float32, with random scales and the statistics of what reaches each batch-norm."""
    declare_torchvision_operators()
    small = NETWORKS[name]
    torch.manual_seed(SEED)
    module = small.make().eval().requires_grad_(False)
    randomize(module)
    settle_on(module, [torch.randn((16, *small.shape))])
    options = LoadOptions(input_shapes=(InputShape(small.shape),))
    with exporters.first(EXPORTERS[1]):
        return from_module(module, path=Path(name), kind="", options=options).model
