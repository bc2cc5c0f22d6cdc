"""Sums of linear ops on one value: one op of the size of the largest."""

from __future__ import annotations

from patterns.registry import Net, pattern


def tail(g: Net, x: str) -> str:
    return g.op("Sigmoid", x)


@pattern(becomes="Relu Conv Sigmoid")
def two_convs_of_one_value_summed(g: Net) -> str:
    x = g.relu(g.image())
    return tail(g, g.op("Add", g.conv(x, bias=True), g.conv(x)))


@pattern(becomes="Relu Conv Sigmoid")
def two_convs_of_one_value_subtracted(g: Net) -> str:
    x = g.relu(g.image())
    return tail(g, g.op("Sub", g.conv(x, bias=True), g.conv(x, bias=True)))


@pattern(becomes="Relu Conv Sigmoid")
def repvgg_block(g: Net) -> str:
    x = g.relu(g.image())
    three = g.bn(g.conv(x, pads=[1] * 4), 4)
    one = g.bn(g.conv(x, kernel=1), 4)
    return tail(g, g.op("Add", g.op("Add", three, one), g.bn(x, 4)))


@pattern(becomes="Relu Conv Sigmoid")
def repvgg_block_grouped_and_strided(g: Net) -> str:
    x = g.relu(g.image())
    three = g.bn(g.conv(x, 4, 6, pads=[1] * 4, strides=[2, 2], group=2), 6)
    one = g.bn(g.conv(x, 4, 6, 1, strides=[2, 2], group=2), 6)
    return tail(g, g.op("Add", three, one))


@pattern(becomes="Relu Conv Sigmoid")
def mobileone_depthwise_block(g: Net) -> str:
    """Four 3x3, a 1x1 and an identity, all depthwise."""
    x = g.relu(g.image())
    y = g.bn(x, 4)
    for _ in range(4):
        y = g.op("Add", y, g.bn(g.conv(x, group=4, pads=[1] * 4), 4))
    return tail(g, g.op("Add", y, g.bn(g.conv(x, kernel=1, group=4), 4)))


@pattern(becomes="Relu Conv Sigmoid")
def mobileone_pointwise_block(g: Net) -> str:
    x = g.relu(g.image())
    a, b = (g.bn(g.conv(x, kernel=1), 4) for _ in range(2))
    return tail(g, g.op("Add", g.op("Add", a, b), g.bn(x, 4)))


@pattern(becomes="Relu Conv Sigmoid")
def acnet_block(g: Net) -> str:
    """3x3 + 1x3 + 3x1 (Ding et al., ICCV 2019)."""
    x = g.relu(g.image())
    y = g.bn(g.conv(x, pads=[1] * 4), 4)
    row = g.op("Conv", x, g.weight(4, 4, 1, 3), pads=[0, 1, 0, 1])
    column = g.op("Conv", x, g.weight(4, 4, 3, 1), pads=[1, 0, 1, 0])
    return tail(g, g.op("Add", g.op("Add", y, g.bn(row, 4)), g.bn(column, 4)))


@pattern(becomes="Relu Conv Sigmoid")
def large_kernel_and_small_kernel(g: Net) -> str:
    """RepLKNet: 7x7 and 3x3, depthwise."""
    x = g.relu(g.image())
    large = g.bn(g.conv(x, kernel=7, group=4, pads=[3] * 4), 4)
    return tail(g, g.op("Add", large, g.bn(g.conv(x, group=4, pads=[1] * 4), 4)))


@pattern(becomes="Relu Conv Sigmoid")
def dilated_branch(g: Net) -> str:
    """UniRepLKNet: a dilated 3x3 lies in a 5x5."""
    x = g.relu(g.image())
    large = g.bn(g.conv(x, kernel=5, pads=[2] * 4), 4)
    small = g.bn(g.conv(x, pads=[2] * 4, dilations=[2, 2]), 4)
    return tail(g, g.op("Add", large, small))


@pattern(becomes="Relu Conv Sigmoid")
def residual_around_a_conv(g: Net) -> str:
    x = g.relu(g.image())
    return tail(g, g.op("Add", x, g.bn(g.conv(x, pads=[1] * 4), 4)))


@pattern(becomes="Relu Conv Sigmoid")
def residual_around_a_depthwise_conv(g: Net) -> str:
    """RepViT, FastViT: x + bn(dw(x)), and a batch-norm behind."""
    x = g.relu(g.image())
    y = g.op("Add", x, g.bn(g.conv(x, group=4, pads=[1] * 4), 4))
    return tail(g, g.bn(y, 4))


@pattern(becomes="Relu Conv Sigmoid")
def repmixer_block(g: Net) -> str:
    """FastViT: x + layer_scale * (mixer(x) - norm(x))."""
    x = g.relu(g.image())
    mixer = g.op("Add", g.bn(g.conv(x, group=4, pads=[1] * 4), 4), g.bn(x, 4))
    inner = g.op("Sub", mixer, g.bn(x, 4))
    scaled = g.op("Mul", g.const(g.scales(4, 1, 1)), inner)
    return tail(g, g.op("Add", x, scaled))


@pattern(becomes="Relu Conv Sigmoid")
def conv1d_branches(g: Net) -> str:
    x = g.relu(g.image(axes=1))
    three = g.bn(g.conv(x, axes=1, pads=[1, 1]), 4)
    return tail(g, g.op("Add", three, g.bn(g.conv(x, kernel=1, axes=1), 4)))


@pattern(becomes="Relu Conv Sigmoid")
def conv3d_branches(g: Net) -> str:
    x = g.relu(g.image(size=4, axes=3))
    three = g.bn(g.conv(x, axes=3, pads=[1] * 6), 4)
    return tail(g, g.op("Add", three, g.bn(g.conv(x, kernel=1, axes=3), 4)))


@pattern(becomes="Relu Gemm Sigmoid")
def two_linears_of_one_value_summed(g: Net) -> str:
    x = g.relu(g.input("x", "N", 5))
    return tail(g, g.op("Add", g.gemm(x, 5), g.gemm(x, 5)))


@pattern(becomes="Relu MatMul Add Sigmoid")
def two_products_of_one_value_summed(g: Net) -> str:
    """A LoRA whose second factor was multiplied out."""
    x = g.relu(g.input("x", "N", 6, 5))
    return tail(g, g.op("Add", g.dense(x, 5), g.op("MatMul", x, g.weight(5, 3))))


@pattern(becomes="Relu Conv Sigmoid")
def average_pool_branch(g: Net) -> str:
    """DBB: an average pooling that counts its padding is a depthwise convolution."""
    x = g.relu(g.image())
    y = g.conv(x, group=4, pads=[1] * 4)
    pooled = g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    return tail(g, g.op("Add", g.bn(y, 4), g.bn(pooled, 4)))


@pattern(becomes="Relu Conv Sigmoid")
def two_identities_with_norms_and_a_conv(g: Net) -> str:
    x = g.relu(g.image())
    y = g.op("Add", g.bn(x, 4), g.conv(x, kernel=1))
    return tail(g, g.op("Add", y, g.bn(x, 4)))


@pattern(left=0, becomes="Relu Conv Conv Sub Sigmoid", keeps=("Conv",))
def branches_of_different_strides_stay_apart(g: Net) -> str:
    x = g.relu(g.image(size=5))
    a = g.bn(g.conv(x, strides=[2, 2]), 4)
    b = g.bn(g.conv(x, kernel=4), 4)
    return tail(g, g.op("Sub", a, b))


@pattern(keeps=("Conv", "Add"))
def branches_of_different_values_stay_apart(g: Net) -> str:
    a, b = g.image(name="a"), g.image(name="b")
    return tail(g, g.op("Add", g.bn(g.conv(a), 4), g.bn(g.conv(b), 4)))


@pattern(keeps=("Conv", "Add"))
def a_branch_that_others_read_stays(g: Net) -> list[str]:
    x = g.relu(g.image())
    a, b = g.bn(g.conv(x), 4), g.bn(g.conv(x), 4)
    return [g.op("Add", a, b), g.op("Sigmoid", a), g.op("Tanh", b)]


@pattern(keeps=("Relu",))
def branches_behind_activations_stay(g: Net) -> str:
    """relu(a) + relu(b) is no sum of linear ops."""
    x = g.image()
    a, b = (g.relu(g.bn(g.conv(x), 4)) for _ in range(2))
    return g.op("Add", a, b)
