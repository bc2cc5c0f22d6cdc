"""A linear op, something that the map passes backward, then batch-norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from patterns.graphs import TYPES
from patterns.registry import Net, pattern


def after(g: Net, op: str, *more: str, channels: int = 4, **attributes: Any) -> str:
    """Convolution, `op`, batch-norm."""
    return g.bn(g.op(op, g.conv(g.image(), bias=True), *more, **attributes), channels)


@pattern()
def conv_identity_bn(g: Net) -> str:
    return after(g, "Identity")


@pattern()
def conv_dropout_bn(g: Net) -> str:
    return after(g, "Dropout")


@pattern()
def conv_dropout_of_nothing_bn(g: Net) -> str:
    """In training mode, with the ratio 0."""
    return g.op("Tanh", after(g, "Dropout", g.const(0.0), g.const(np.array(True))))


@pattern()
def conv_flatten_bn(g: Net) -> str:
    """The map must be the same inside of each channel: here each is one position."""
    y = g.op("Flatten", g.conv(g.image(size=3)))
    return g.bn(y, 4)


@pattern(left=1, reason=("not-per-channel", "graph-output"))
def conv_flatten_bn_of_many_positions(g: Net) -> str:
    return g.bn(g.op("Flatten", g.conv(g.image())), 64)


@pattern()
def conv_reshape_to_sequence_bn(g: Net) -> str:
    """(N, C, H, W) -> (N, C, H*W): patch embeddings."""
    return after(g, "Reshape", g.const([0, 4, -1]))


@pattern()
def conv_transpose_transpose_bn(g: Net) -> str:
    y = g.op("Transpose", g.conv(g.image()), perm=[0, 2, 3, 1])
    return g.bn(g.op("Transpose", g.op("Identity", y), perm=[0, 3, 1, 2]), 4)


@pattern()
def conv_squeeze_bn(g: Net) -> str:
    y = g.op("Squeeze", g.conv(g.input("x", "N", 4, 3, 6)), g.const([2]))
    return g.bn(y, 4)


@pattern()
def linear_unsqueeze_bn(g: Net) -> str:
    y = g.op("Unsqueeze", g.gemm(g.input("x", "N", 5), 5, 4), g.const([2]))
    return g.bn(y, 4)


@pattern()
def linear_reshape_to_image_bn(g: Net) -> str:
    """The generator of a DCGAN: each channel is many columns of the Gemm."""
    y = g.op("Reshape", g.gemm(g.input("z", "N", 5), 5, 16), g.const([-1, 4, 2, 2]))
    return g.relu(g.bn(y, 4))


@pattern(left=0, left_mixed=1, reason="sign")
def conv_maxpool_bn(g: Net) -> str:
    return after(g, "MaxPool", kernel_shape=[2, 2])


@pattern(left=0, left_mixed=1, reason="sign")
def conv_padded_maxpool_bn(g: Net) -> str:
    """The padding of a MaxPool is minus infinity, which no map moves."""
    return after(g, "MaxPool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])


@pattern()
def conv_maxpool_bn_conv(g: Net) -> str:
    """With scales of both signs it goes forward instead."""
    return g.conv(after(g, "MaxPool", kernel_shape=[2, 2]), kernel=1)


@pattern(left=0, left_mixed=1, reason="sign")
def conv_global_maxpool_bn(g: Net) -> str:
    return after(g, "GlobalMaxPool")


@pattern()
def conv_average_pool_bn(g: Net) -> str:
    return after(g, "AveragePool", kernel_shape=[2, 2])


@pattern()
def conv_padded_average_pool_bn(g: Net) -> str:
    return after(g, "AveragePool", kernel_shape=[3, 3], pads=[1] * 4)


@pattern(left=1, reason="padding")
def conv_average_pool_that_counts_padding_bn(g: Net) -> str:
    """torch's default: zeros are averaged in, and no shift reaches them."""
    return after(g, "AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)


@pattern()
def conv_average_pool_that_counts_padding_unshifted_bn(g: Net) -> str:
    y = g.op(
        "AveragePool", g.conv(g.image()), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    )
    return g.unshifted(y, 4)


@pattern()
def conv_global_average_pool_bn(g: Net) -> str:
    return after(g, "GlobalAveragePool")


@pattern()
def conv_mean_bn(g: Net) -> str:
    return after(g, "ReduceMean", g.const([2, 3]), keepdims=0)


@pattern()
def conv_sum_bn(g: Net) -> str:
    """The sum of n positions: the shift of each is b/n."""
    return after(g, "ReduceSum", g.const([2, 3]), keepdims=0)


@pattern(left=0, left_mixed=1, reason="sign")
def conv_max_bn(g: Net) -> str:
    """PointNet: the maximum over all points."""
    return after(g, "ReduceMax", g.const([2, 3]), keepdims=0)


@pattern()
def conv_upsample_nearest_bn(g: Net) -> str:
    scales = g.const([1.0, 1.0, 2.0, 2.0], dtype="float32")
    return g.bn(g.op("Resize", g.conv(g.image()), "", scales, mode="nearest"), 4)


@pattern()
def conv_upsample_bilinear_bn(g: Net) -> str:
    scales = g.const([1.0, 1.0, 2.0, 2.0], dtype="float32")
    return g.bn(g.op("Resize", g.conv(g.image()), "", scales, mode="linear"), 4)


@pattern()
def conv_pixel_shuffle_bn(g: Net) -> str:
    """Channel c of the image is made of 4 channels of the convolution."""
    y = g.conv(g.image(), 4, 8)
    return g.bn(g.op("DepthToSpace", y, blocksize=2, mode="CRD"), 2)


@pattern()
def conv_depth_to_space_dcr_bn(g: Net) -> str:
    return g.bn(g.op("DepthToSpace", g.conv(g.image(), 4, 8), blocksize=2), 2)


@pattern(left=1, reason=("not-per-channel", "graph-output"))
def conv_space_to_depth_bn(g: Net) -> str:
    """Each channel of the convolution becomes 4, with 4 different maps."""
    return g.bn(g.op("SpaceToDepth", g.conv(g.image()), blocksize=2), 16)


@pattern()
def conv_reflect_pad_bn(g: Net) -> str:
    return after(g, "Pad", g.const([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")


@pattern(left=1, reason="padding")
def conv_zero_pad_bn(g: Net) -> str:
    """The border is b, the inside a*x + b: no number to pad with is right for all channels."""
    return after(g, "Pad", g.const([0, 0, 1, 1, 0, 0, 1, 1]))


@pattern()
def conv_zero_pad_unshifted_bn(g: Net) -> str:
    return g.unshifted(g.op("Pad", g.conv(g.image()), g.const([0, 0, 1, 1, 0, 0, 1, 1])), 4)


@pattern()
def conv_crop_bn(g: Net) -> str:
    parts = [g.const([v]) for v in (1, 3, 2)]
    return after(g, "Slice", *parts)


@pattern()
def two_convs_concat_bn(g: Net) -> str:
    x = g.image()
    y = g.op("Concat", g.conv(x, 4, 3), g.conv(x, 4, 2, bias=True), axis=1)
    return g.bn(y, 5)


@pattern()
def two_convs_concat_on_another_axis_bn(g: Net) -> str:
    x = g.image()
    return g.bn(g.op("Concat", g.conv(x), g.conv(x), axis=2), 4)


@pattern()
def two_convs_add_bn(g: Net) -> str:
    a, b = g.image(name="a"), g.image(name="b")
    return g.bn(g.op("Add", g.conv(a), g.conv(b)), 4)


@pattern()
def two_convs_sub_bn(g: Net) -> str:
    a, b = g.image(name="a"), g.image(name="b")
    return g.bn(g.op("Sub", g.conv(a), g.conv(b)), 4)


@pattern()
def three_convs_sum_bn(g: Net) -> str:
    """The op Sum, of any number of values."""
    parts = [g.conv(g.image(name=name)) for name in "abc"]
    return g.bn(g.op("Sum", *parts), 4)


@pattern()
def conv_channels_gathered_bn(g: Net) -> str:
    """A permutation of the channels."""
    return after(g, "Gather", g.const([2, 0, 3, 1]), axis=1)


@pattern()
def conv_channel_shuffle_bn(g: Net) -> str:
    y = g.op("Reshape", g.conv(g.image(), 4, 6), g.const([0, 2, 3, 4, 4]))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return g.bn(g.op("Reshape", y, g.const([0, 6, 4, 4])), 6)


@pattern()
def conv_split_bn_on_one_half(g: Net) -> list[str]:
    """The convolution is scaled in the channels of that half alone."""
    a, b = g.op("Split", g.conv(g.image(), 4, 6), outputs=2, axis=1, num_outputs=2)
    return [g.relu(g.bn(a, 3)), g.op("Sigmoid", b)]


@pattern()
def conv_split_bn_on_both_halves(g: Net) -> str:
    a, b = g.op("Split", g.conv(g.image(), 4, 6), outputs=2, axis=1, num_outputs=2)
    return g.op("Mul", g.op("Tanh", g.bn(a, 3)), g.op("Sigmoid", g.bn(b, 3)))


@pattern()
def conv_first_channels_bn(g: Net) -> str:
    """FasterNet's partial convolution reads a part of the channels."""
    y = g.op("Slice", g.conv(g.image()), g.const([0]), g.const([2]), g.const([1]))
    return g.bn(y, 2)


@pattern()
def conv_negated_bn(g: Net) -> str:
    """-x is a map itself."""
    return after(g, "Neg")


@pattern()
def conv_cast_bn(g: Net) -> str:
    """To another floating-point type and back."""
    y = g.op("Cast", g.conv(g.image()), to=TYPES["float32" if g.dtype == "float64" else "float64"])
    return g.bn(g.op("Cast", y, to=TYPES[g.dtype]), 4)


@pattern(left=0, left_mixed=1, reason="sign")
def conv_leaky_relu_unshifted_bn(g: Net) -> str:
    return g.op("Sigmoid", g.unshifted(g.op("LeakyRelu", g.conv(g.image()), alpha=0.2), 4))


@pattern(left=0, left_mixed=1, reason="sign")
def conv_prelu_unshifted_bn(g: Net) -> str:
    y = g.op("PRelu", g.conv(g.image()), g.weight(4, 1, 1))
    return g.op("Sigmoid", g.unshifted(y, 4))


@pattern()
def gate_unshifted_bn(g: Net) -> str:
    """a*(u*v) = (a*u)*v: into one of the factors."""
    x = g.image()
    y = g.op("Mul", g.conv(x), g.op("Sigmoid", g.conv(x)))
    return g.relu(g.unshifted(y, 4))


@pattern(left=1, reason="not-linear")
def gate_bn(g: Net) -> str:
    """The shift cannot go into a factor."""
    x = g.image()
    y = g.op("Mul", g.op("Sigmoid", g.conv(x)), g.conv(x))
    return g.relu(g.bn(y, 4))


@pattern()
def graph_convolution_bn(g: Net) -> str:
    """A (X W) + c with the adjacency A computed: the scale is W's, the shift c's."""
    x = g.op("MatMul", g.input("x", 6, 5), g.weight(5, 4))
    y = g.op("Add", g.op("MatMul", g.input("adjacency", 6, 6), x), g.weight(4))
    return g.relu(g.bn(y, 4))


@pattern()
def conv_many_things_bn(g: Net) -> str:
    y = g.op("Identity", g.op("Dropout", g.conv(g.image(), 4, 6)))
    y = g.op("AveragePool", y, kernel_shape=[2, 2])
    y = g.op("Transpose", g.op("Reshape", y, g.const([0, 6, -1])), perm=[2, 0, 1])
    return g.bn(g.op("Transpose", y, perm=[1, 2, 0]), 6)
