"""Small networks for the tests of the sources; `--arch source_nets:ConvNet` finds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Every linear op that a batch-norm follows: Conv, ConvTranspose and Linear."""

    def __init__(self, num_classes: int = 5, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.bn2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)
        self.bn3 = nn.BatchNorm1d(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.bn2(self.up(self.bn1(self.conv(image)).relu())).relu().mean((2, 3))
        return self.bn3(self.fc(x))


class FixedSize(nn.Module):
    """Runs on one size only: the linear layer counts the pixels."""

    def __init__(self, channels: int = 1, side: int = 28, axes: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[axes]
        self.conv = conv(channels, 2, 3, padding=1)
        self.bn = norm(2)
        self.fc = nn.Linear(2 * side**axes, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).flatten(1))


class Tokens(nn.Module):
    """An embedding whose table is also the last layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.bn = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.bn(self.embed(tokens).mean(1)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 4)
        self.bn = nn.BatchNorm1d(4)

    def forward(self, a: Tensor, b: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.bn(self.left(a)) + b
        return x if scale is None else x * scale


class Outputs(nn.Module):
    """Returns what `shape` says."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(4, 3)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> object:
        y = self.bn(self.fc(x))
        return {
            "tuple": lambda: (y, y.relu()),
            "dict": lambda: {"logits": y, "features": (y.relu(), y.sigmoid())},
            "dataclass": lambda: Prediction(logits=y, probability=y.softmax(1)),
            "twice": lambda: (y, y),
            "input": lambda: (x, y),
        }[self.shape]()


@dataclass
class Prediction:
    logits: Tensor
    probability: Tensor


class DecidesByValue(nn.Module):
    """torch.export refuses to follow such a branch; a trace follows it once."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.fc(x))
        return y if float(x.abs().sum()) >= 0 else -y


class KnowsItsBatch(nn.Module):
    """`size` is baked into the code: with `size` 1 nothing else runs."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.fc = nn.Linear(4, 3)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.size == 1:
            x = x.reshape(1, 4)
        elif x.shape[0] == self.size:
            x = x * 2.0
        return self.bn(self.fc(x))


class ConvBase(nn.Module):
    """A convolution and a batch-norm, for networks with one thing behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)

    def body(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class CachedGrid(ConvBase):
    """As detectors do: a grid for the last shape, batch included, in attributes and a dict."""

    shape: tuple[int, ...] | None = None
    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shape != y.shape:
            self.shape = y.shape
            self.grid = torch.arange(y.shape[2] * y.shape[3], dtype=y.dtype).expand(y.shape[0], -1)
            self.cache["strides"] = torch.full((y.shape[0], 1, 1), 8.0)
        return y.flatten(2) * self.grid[:, None] * self.cache["strides"]


class HooksItself(ConvBase):
    """Takes the maps of its layers by hooks, which it hangs there in its first run."""

    hooked = False

    def forward(self, x: Tensor) -> Tensor:
        self.maps: list[Tensor] = []
        if not self.hooked:
            self.hooked = True
            for layer in self.children():
                layer.register_forward_hook(lambda _, __, y: self.maps.append(y))
        self.body(x)
        return torch.cat([each.mean((2, 3)) for each in self.maps], 1)


class LooseSqueeze(ConvBase):
    """squeeze(1) of an axis of 4, which torch leaves alone and ONNX's Squeeze does not."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(1).sum(-1)


class NoKernel(ConvBase):
    """Both exporters write Tan of float64, which onnxruntime has no kernel for."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).double().tan().float()


class Noisy(ConvBase):
    """Draws when it runs, by the operator called `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).mean((2, 3))
        if self.kind == "rand":
            return y * torch.rand(y.shape[0], 1)
        if self.kind == "dropout":
            return nn.functional.dropout(y, 0.5, training=True)
        if self.kind == "harmless":
            return nn.functional.dropout(y, 0.0, training=True) + 0 * torch.rand(4)
        return y + torch.from_numpy(np.random.standard_normal(4)).float()


class Counts(ConvBase):
    """A buffer and an attribute that change whenever it runs, and matter to nobody."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.calls.append(x.shape[1])
        return self.body(x)


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Star(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, *xs: Tensor) -> Tensor:
        return sum((self.fc(x) for x in xs), torch.zeros(3))


def broken() -> nn.Module:
    raise ValueError("depth must be 18 or 34")


def no_module() -> str:
    return "a network"


READY = ConvNet()
