"""Other element types, sizes that are not known, old opsets."""

from __future__ import annotations

import numpy as np

from patterns.registry import Net, pattern

HALF = {"types": ("float16",), "rtol": 5e-3}
BRAIN = {"types": ("bfloat16",), "rtol": 5e-2}
SINGLE = {"types": ("float32",), "rtol": 1e-5}


@pattern(**SINGLE)
def float32_conv_bn(g: Net) -> str:
    return g.relu(g.bn(g.conv(g.image(), bias=True), 4))


@pattern(**SINGLE)
def float32_bn_conv(g: Net) -> str:
    return g.conv(g.bn(g.relu(g.image()), 4))


@pattern(**HALF)
def float16_conv_bn(g: Net) -> str:
    return g.relu(g.bn(g.conv(g.image(), bias=True), 4))


@pattern(**HALF)
def float16_bn_linear(g: Net) -> str:
    return g.gemm(g.bn(g.relu(g.input("x", "N", 5)), 5), 5)


@pattern(**BRAIN)
def bfloat16_conv_bn(g: Net) -> str:
    return g.relu(g.bn(g.conv(g.image(), bias=True), 4))


@pattern(**HALF)
def float16_conv_with_float32_statistics(g: Net) -> str:
    """Mixed precision keeps the statistics in float32 (BatchNormalization-14)."""
    x = g.conv(g.image())
    rest = g.statistics(4)
    for name in rest[2:]:
        tensor = next(t for t in g.initializers if t.name == name)
        values = np.frombuffer(tensor.raw_data, np.float16).astype(np.float32)
        g.initializers.remove(tensor)
        g.const(values, name, dtype="float32")
    return g.relu(g.op("BatchNormalization", x, *rest))


@pattern()
def every_spatial_size_unknown(g: Net) -> str:
    x = g.input("x", "N", 4, "H", "W")
    return g.bn(g.conv(g.relu(g.bn(g.conv(x, auto_pad="SAME_UPPER"), 4)), pads=[1] * 4), 4)


@pattern()
def unknown_sizes_upsampled_forward(g: Net) -> str:
    x = g.bn(g.relu(g.input("x", "N", 4, "H", "W")), 4)
    scales = g.const([1.0, 1.0, 2.0, 2.0], dtype="float32")
    return g.conv(g.op("Resize", x, "", scales, mode="nearest"), kernel=1)


@pattern(left=1, reason=("unknown-shape", "not-per-channel"))
def flatten_of_unknown_sizes_stays(g: Net) -> str:
    """How often each value is repeated is not known; a Gemm's weight tells it only in sum."""
    x = g.bn(g.op("Tanh", g.input("x", "N", 4, "H", "W")), 4)
    return g.gemm(g.op("Flatten", x), 36)


@pattern()
def global_pool_of_unknown_sizes(g: Net) -> str:
    x = g.bn(g.relu(g.input("x", "N", 4, "H", "W")), 4)
    return g.gemm(g.op("Flatten", g.op("GlobalAveragePool", x)), 4)


@pattern()
def opset_11(g: Net) -> str:
    """Squeeze with an attribute, batch-norm without training_mode."""
    g.opset = 11
    y = g.op("Squeeze", g.conv(g.input("x", "N", 4, 3, 6)), axes=[2])
    return g.bn(y, 4, momentum=0.9)


@pattern()
def opset_9(g: Net) -> str:
    g.opset = 9
    return g.relu(g.bn(g.conv(g.image()), 4))


@pattern()
def opset_21(g: Net) -> str:
    g.opset = 21
    return g.relu(g.bn(g.conv(g.image()), 4))
