"""Batch-norm beside a Relu, which a shift does not pass and a negative scale neither.

    relu(a*x + b) = a*max(x, -b/a) + b    for a > 0,    a*min(x, -b/a) + b    for a < 0
    a*relu(c) + b = max(a*c + b, b)       for a > 0,    min(a*c + b, b)       for a < 0

So a Relu and a batch-norm are one Max (or Min) with a constant per channel, and a linear op
beside them takes the map up; with scales of both signs they are a Max and a Min: two for two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patterns.registry import Net, module, pattern

ASKED = {"through_relu": True}


@pattern(**ASKED)
def conv_relu_bn_padded_conv(g: Net) -> str:
    """Keras' tutorials: the batch-norm behind the activation, the next convolution padded."""
    y = g.bn(g.relu(g.conv(g.image(), pads=[1] * 4)), 4)
    return g.op("Sigmoid", g.conv(y, pads=[1] * 4))


@pattern(**ASKED)
def conv_relu_bn(g: Net) -> str:
    return g.bn(g.relu(g.conv(g.image())), 4)


@pattern(**ASKED)
def conv_relu_bn_two_readers(g: Net) -> list[str]:
    y = g.bn(g.relu(g.conv(g.image())), 4)
    return [g.op("Sigmoid", y), g.conv(y, pads=[1] * 4)]


@pattern(**ASKED)
def conv_relu_bn_without_shift(g: Net) -> str:
    return g.op("Sigmoid", g.unshifted(g.relu(g.conv(g.image())), 4))


@pattern(**ASKED)
def linear_relu_bn_sigmoid(g: Net) -> str:
    return g.op("Sigmoid", g.bn(g.relu(g.gemm(g.input("x", "N", 5), 5, 4)), 4))


@pattern(**ASKED)
def conv_relu6_bn_sigmoid(g: Net) -> str:
    y = g.op("Clip", g.conv(g.image()), g.const(0.0), g.const(6.0))
    return g.op("Sigmoid", g.bn(y, 4))


@pattern(**ASKED)
def conv_relu_bn_maxpool_padded_conv(g: Net) -> str:
    y = g.op("MaxPool", g.bn(g.relu(g.conv(g.image())), 4), kernel_shape=[2, 2])
    return g.conv(y, pads=[1] * 4)


@pattern(**ASKED)
def shared_bn_relu_pointwise_conv(g: Net) -> str:
    """Pre-activation: x is read by the next sum, too."""
    x = g.op("Tanh", g.image())
    y = g.conv(g.relu(g.bn(x, 4)), kernel=1)
    return g.op("Sigmoid", g.op("Add", x, g.relu(y)))


@pattern(**ASKED)
def bn_relu_global_pool_gemm(g: Net) -> str:
    """The last norm of a pre-activation network: into the classifier."""
    y = g.op("GlobalAveragePool", g.relu(g.bn(g.op("Tanh", g.image()), 4)))
    return g.gemm(g.op("Flatten", y), 4)


@pattern(**ASKED)
def bn_relu6_pointwise_conv(g: Net) -> str:
    y = g.op("Clip", g.bn(g.op("Tanh", g.image()), 4), g.const(0.0), g.const(6.0))
    return g.conv(y, kernel=1)


@pattern(left=1, reason=("not-linear", "padding"))
def bn_relu_padded_conv(g: Net) -> str:
    """The shift would have to reach the padding."""
    return g.conv(g.relu(g.bn(g.op("Tanh", g.image()), 4)), pads=[1] * 4)


@pattern(**ASKED)
def bn_without_shift_relu_padded_conv(g: Net) -> str:
    return g.conv(g.relu(g.unshifted(g.op("Tanh", g.image()), 4)), pads=[1] * 4)


@pattern(left=1, reason=("not-linear", "sign"))
def conv_leaky_relu_bn(g: Net) -> str:
    """Two slopes: no constant replaces them, and the shift passes none."""
    return g.op("Sigmoid", g.bn(g.op("LeakyRelu", g.conv(g.image()), alpha=0.2), 4))


@module((3, 8, 8), **ASKED)
def keras_tutorial_cnn() -> nn.Module:
    """Conv-relu-BN-pool twice, then a classifier: scales of both signs go backward."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2),
        nn.ReLU(), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


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


@module((3, 6, 6), **ASKED)
def dense_block() -> nn.Module:
    """Inside the layers it folds; in front of them everyone reads the same features."""
    return DenseLayer(2)
