"""Batch-norm beside a Relu, which a shift does not pass and a negative scale neither.

    relu(a*x + b) = a*max(x, -b/a) + b    for a > 0,    a*min(x, -b/a) + b    for a < 0
    a*relu(c) + b = max(a*c + b, b)       for a > 0,    min(a*c + b, b)       for a < 0

So a Relu and a batch-norm are one Max (or Min) with a constant per channel, and a linear op
beside them takes the map up; with scales of both signs they are a Max and a Min: two for two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.converter.patterns.registry import Net, pattern


@pattern(left=1, reason=("not-linear", "padding"))
def bn_relu_padded_conv(g: Net) -> str:
    """The shift would have to reach the padding."""
    return g.conv(g.relu(g.bn(g.op("Tanh", g.image()), 4)), pads=[1] * 4)


@pattern(left=1, reason=("not-linear", "sign"))
def conv_leaky_relu_bn(g: Net) -> str:
    """Two slopes: no constant replaces them, and the shift passes none."""
    return g.op("Sigmoid", g.bn(g.op("LeakyRelu", g.conv(g.image()), alpha=0.2), 4))


class DenseLayer(nn.Module):
    """Two layers of a dense block: each normalises all that came before it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(4 + 2 * i), nn.ReLU(), nn.Conv2d(4 + 2 * i, 6, 1),
                nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1),
            )
            for i in range(layers)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return torch.sigmoid(x)
