"""Batch-norms behind other norms, several in a row, and weights and norms used twice."""

from __future__ import annotations

import numpy as np

from patterns.registry import Net, pattern


@pattern()
def layer_norm_bn(g: Net) -> str:
    """A LayerNorm over the last axis has a scale and a bias for each of its positions."""
    x = g.input("x", "N", 4)
    y = g.op("LayerNormalization", x, g.weight(4), g.weight(4))
    return g.bn(y, 4)


@pattern()
def instance_norm_bn(g: Net) -> str:
    """An InstanceNorm ends in a scale and a bias for each channel."""
    return g.bn(g.op("InstanceNormalization", g.image(), g.weight(4), g.weight(4)), 4)


@pattern()
def instance_norm_with_tracked_statistics(g: Net) -> str:
    """torch writes it as a batch-norm of (1, N*C, H, W), its statistics N times the same."""
    y = g.op("Reshape", g.conv(g.input("x", 2, 4, 6, 6)), g.const([1, 8, 4, 4]))
    drawn = g.statistics(4)
    twice = [g.op("Concat", name, name, axis=0) for name in drawn]
    y = g.op("BatchNormalization", y, *twice)
    return g.relu(g.op("Reshape", y, g.const([2, 4, 4, 4])))


@pattern(becomes="Conv")
def bn_after_bn(g: Net) -> str:
    return g.bn(g.bn(g.conv(g.image()), 4), 4)


@pattern(left=0)
def three_bns_behind_a_relu_and_a_conv(g: Net) -> str:
    x = g.relu(g.image())
    return g.conv(g.bn(g.bn(g.bn(x, 4), 4), 4))


@pattern(left=1, reason=("not-linear", "graph-output"))
def bn_after_bn_with_nothing_linear(g: Net) -> str:
    """Two become one."""
    return g.op("Sigmoid", g.bn(g.bn(g.op("Tanh", g.image()), 4), 4))


@pattern(left=1, reason=("training-mode", "not-linear"))
def bn_behind_one_in_training_mode(g: Net) -> str:
    """The one that normalises with the batch takes the frozen one up."""
    x = g.op("Tanh", g.image())
    y = g.op("BatchNormalization", x, *g.statistics(4), outputs=3, training_mode=1)[0]
    return g.relu(g.bn(y, 4))


@pattern()
def dead_channels(g: Net) -> str:
    """gamma = 0: the channel is the constant beta."""
    scale = g.scales(4) * np.array([0.0, 1.0, 0.0, 1.0])
    x = g.conv(g.image(), pads=[1] * 4)
    return g.relu(g.op("BatchNormalization", x, *g.statistics(4, gamma=scale)))


@pattern()
def large_epsilon(g: Net) -> str:
    return g.bn(g.conv(g.image()), 4, epsilon=0.3)


@pattern(grows=True)
def weight_shared_with_another_conv(g: Net) -> str:
    """The other one must keep its numbers."""
    x, w = g.image(), g.weight(4, 4, 3, 3)
    return g.op("Concat", g.bn(g.op("Conv", x, w), 4), g.op("Conv", g.relu(x), w), axis=1)


@pattern(grows=True)
def one_weight_two_norms(g: Net) -> str:
    x, w = g.image(), g.weight(4, 4, 3, 3)
    return g.op("Concat", g.bn(g.op("Conv", x, w), 4), g.bn(g.op("Conv", g.relu(x), w), 4), axis=1)


@pattern()
def one_conv_and_one_norm_used_twice(g: Net) -> str:
    """Siamese: the same modules on two inputs; the weight stays one."""
    w, parts = g.weight(4, 4, 3, 3), g.statistics(4)
    left, right = (
        g.op("BatchNormalization", g.op("Conv", g.image(name=name), w), *parts)
        for name in ("left", "right")
    )
    return g.op("Sub", left, right)
