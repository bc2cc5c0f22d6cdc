"""A batch-norm, then channels that are joined, split, picked, shuffled or resized."""

from __future__ import annotations

from patterns.forward import bent, norm, unshifted
from patterns.registry import Net, pattern


@pattern()
def bn_concat_conv(g: Net) -> str:
    """Beside another value, which keeps its weights."""
    y = g.op("Concat", norm(g), g.image(3, name="other"), axis=1)
    return g.conv(y, 7)


@pattern()
def two_bns_concat_conv(g: Net) -> str:
    a, b = (g.bn(g.op("Tanh", g.image(name=name)), 4) for name in "ab")
    return g.conv(g.op("Concat", a, b, axis=1), 8)


@pattern()
def bn_split_two_convs(g: Net) -> list[str]:
    a, b = g.op("Split", norm(g, 6), outputs=2, axis=1, num_outputs=2)
    return [g.conv(a, 3), g.conv(b, 3)]


@pattern(left=1, reason=("not-linear", "padding"))
def bn_split_one_conv(g: Net) -> list[str]:
    """The other half is read by a Sigmoid."""
    a, b = g.op("Split", bent(g, 6), outputs=2, axis=1, num_outputs=2)
    return [g.conv(a, 3), g.op("Sigmoid", b)]


@pattern()
def bn_slice_conv(g: Net) -> str:
    y = g.op("Slice", norm(g), g.const([1]), g.const([4]), g.const([1]))
    return g.conv(y, 3)


@pattern()
def bn_crop_conv(g: Net) -> str:
    y = g.op("Slice", norm(g), g.const([1, 0]), g.const([5, 4]), g.const([2, 3]))
    return g.conv(y)


@pattern()
def bn_channels_gathered_conv(g: Net) -> str:
    return g.conv(g.op("Gather", norm(g), g.const([3, 1, 1]), axis=1), 3)


@pattern()
def bn_channel_shuffle_conv(g: Net) -> str:
    y = g.op("Reshape", norm(g, 6), g.const([0, 2, 3, 6, 6]))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return g.conv(g.op("Reshape", y, g.const([0, 6, 6, 6])), 6, 6, group=3)


@pattern(left=1, reason=("not-per-channel", "not-linear"))
def bn_pixel_shuffle_conv(g: Net) -> str:
    """4 channels become the positions of one: the map would differ from pixel to pixel."""
    return g.conv(g.op("DepthToSpace", bent(g), blocksize=2, mode="CRD"), 1)


@pattern()
def bn_space_to_depth_conv(g: Net) -> str:
    """YOLO's focus layer: each channel becomes four with the same map."""
    return g.conv(g.op("SpaceToDepth", norm(g), blocksize=2), 16)


@pattern()
def bn_upsample_nearest_conv(g: Net) -> str:
    scales = g.const([1.0, 1.0, 2.0, 2.0], dtype="float32")
    return g.conv(g.op("Resize", norm(g), "", scales, mode="nearest"))


@pattern()
def bn_upsample_bilinear_conv(g: Net) -> str:
    scales = g.const([1.0, 1.0, 2.0, 2.0], dtype="float32")
    return g.conv(g.op("Resize", norm(g), "", scales, mode="linear"))


@pattern()
def bn_without_shift_gate_conv(g: Net) -> str:
    y = g.op("Mul", unshifted(g), g.op("Sigmoid", g.image(name="gate")))
    return g.conv(y, pads=[1] * 4)


@pattern(left=1, reason=("not-linear", "graph-input"))
def two_bns_added_conv(g: Net) -> str:
    """a2*((a1/a2)*u + v) + b: one of them takes the ratio of the scales, the other goes."""
    a, b = (g.bn(g.op("Tanh", g.image(name=name)), 4) for name in "ab")
    return g.conv(g.op("Add", a, b))


@pattern()
def bn_and_conv_added_conv(g: Net) -> str:
    """The convolution beside it is divided by the scale."""
    return g.conv(g.op("Add", norm(g), g.conv(g.image(name="other"), kernel=1)))


@pattern()
def bn_and_its_residual_block_conv(g: Net) -> str:
    x = norm(g)
    return g.conv(g.op("Add", x, g.conv(g.relu(g.conv(x, kernel=1)), kernel=1)))
