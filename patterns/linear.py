"""A linear op, then batch-norm: every form of op that has weights."""

from __future__ import annotations

from patterns.registry import Net, pattern


@pattern()
def conv1d_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(axes=1), axes=1), 4)


@pattern()
def conv2d_bn(g: Net) -> str:
    return g.bn(g.conv(g.image()), 4)


@pattern()
def conv3d_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(size=4, axes=3), axes=3), 4)


@pattern(becomes="Conv Relu")
def conv_with_bias_bn_relu(g: Net) -> str:
    return g.relu(g.bn(g.conv(g.image(), bias=True, pads=[1] * 4), 4))


@pattern()
def grouped_conv_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(6), 6, 9, group=3, bias=True), 9)


@pattern()
def depthwise_conv_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(), group=4, pads=[1] * 4), 4)


@pattern()
def depthwise_conv_with_multiplier_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(3), 3, 6, group=3), 6)


@pattern()
def dilated_conv_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(size=8), dilations=[2, 3], pads=[2, 3, 2, 3]), 4)


@pattern()
def strided_conv_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(size=7), strides=[2, 3], pads=[1] * 4), 4)


@pattern()
def asymmetric_padding_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(), pads=[0, 1, 1, 2], bias=True), 4)


@pattern()
def auto_pad_same_upper_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(size=7), auto_pad="SAME_UPPER", strides=[2, 2]), 4)


@pattern()
def auto_pad_same_lower_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(size=7), kernel=2, auto_pad="SAME_LOWER"), 4)


@pattern()
def auto_pad_valid_bn(g: Net) -> str:
    return g.bn(g.conv(g.image(), auto_pad="VALID"), 4)


@pattern()
def conv_of_rectangular_kernel_bn(g: Net) -> str:
    """Inception: 1x7 and 7x1."""
    x = g.op("Conv", g.image(size=8), g.weight(4, 4, 1, 7), pads=[0, 3, 0, 3])
    return g.bn(g.op("Conv", g.bn(x, 4), g.weight(5, 4, 7, 1), pads=[3, 0, 3, 0]), 5)


def transposed(g: Net, x: str, *weight: int, bias: bool = False, **more: object) -> str:
    outputs = weight[1] * int(str(more.get("group", 1)))
    parts = [g.weight(*weight), *([g.weight(outputs)] if bias else [])]
    return g.bn(g.op("ConvTranspose", x, *parts, **more), outputs)


@pattern()
def conv_transpose_bn(g: Net) -> str:
    return transposed(g, g.image(), 4, 3, 3, 3)


@pattern()
def conv_transpose_1d_bn(g: Net) -> str:
    return transposed(g, g.image(axes=1), 4, 3, 4, strides=[2], pads=[1, 1], bias=True)


@pattern()
def conv_transpose_3d_bn(g: Net) -> str:
    return transposed(g, g.image(size=3, axes=3), 4, 2, 2, 2, 2, strides=[2, 2, 2])


@pattern()
def conv_transpose_output_padding_bn(g: Net) -> str:
    return transposed(
        g, g.image(), 4, 3, 3, 3, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1], bias=True
    )


@pattern()
def grouped_conv_transpose_bn(g: Net) -> str:
    return transposed(g, g.image(), 4, 3, 3, 3, group=2, bias=True)


@pattern()
def depthwise_conv_transpose_bn(g: Net) -> str:
    return transposed(g, g.image(), 4, 1, 2, 2, group=4, strides=[2, 2])


@pattern()
def conv_transpose_dilated_bn(g: Net) -> str:
    return transposed(g, g.image(), 4, 3, 3, 3, dilations=[2, 2])


@pattern()
def conv_transpose_output_shape_bn(g: Net) -> str:
    return transposed(g, g.image(), 4, 3, 3, 3, strides=[2, 2], output_shape=[12, 12])


@pattern(becomes="Gemm")
def gemm_bn(g: Net) -> str:
    return g.bn(g.gemm(g.input("x", "N", 5), 5), 3)


@pattern()
def gemm_without_bias_bn(g: Net) -> str:
    return g.bn(g.op("Gemm", g.input("x", "N", 5), g.weight(5, 3)), 3)


@pattern()
def gemm_trans_b_bn(g: Net) -> str:
    return g.bn(g.op("Gemm", g.input("x", "N", 5), g.weight(3, 5), g.weight(3), transB=1), 3)


@pattern()
def gemm_trans_a_bn(g: Net) -> str:
    return g.bn(g.gemm(g.input("x", 5, 4), 5, transA=1), 3)


@pattern()
def gemm_alpha_beta_bn(g: Net) -> str:
    return g.bn(g.gemm(g.input("x", "N", 5), 5, alpha=0.5, beta=-2.0), 3)


@pattern()
def gemm_alpha_beta_trans_b_bn(g: Net) -> str:
    x = g.input("x", "N", 5)
    y = g.op("Gemm", x, g.weight(3, 5), g.weight(1, 3), alpha=1.5, beta=0.25, transB=1)
    return g.bn(y, 3)


@pattern()
def gemm_scalar_c_bn(g: Net) -> str:
    return g.bn(g.op("Gemm", g.input("x", "N", 5), g.weight(5, 3), g.weight(), beta=3.0), 3)


@pattern()
def gemm_full_c_bn(g: Net) -> str:
    """C has a number for each row and column."""
    return g.bn(g.op("Gemm", g.input("x", 4, 5), g.weight(5, 3), g.weight(4, 3), beta=0.5), 3)


@pattern(left=1, reason=("dearer", "graph-output"))
def gemm_c_of_one_column_bn(g: Net) -> str:
    """C of shape (M, 1) would have to grow to (M, N)."""
    return g.bn(g.op("Gemm", g.input("x", 40, 5), g.weight(5, 3), g.weight(40, 1)), 3)


@pattern(becomes="MatMul Add")
def matmul_bn(g: Net) -> str:
    return g.bn(g.op("MatMul", g.input("x", "N", 5), g.weight(5, 3)), 3)


@pattern(becomes="MatMul Add")
def matmul_add_bn(g: Net) -> str:
    return g.bn(g.dense(g.input("x", "N", 5), 5), 3)


@pattern(becomes="MatMul Add")
def add_on_the_left_bn(g: Net) -> str:
    product = g.op("MatMul", g.input("x", "N", 5), g.weight(5, 3))
    return g.bn(g.op("Add", g.weight(3), product), 3)


@pattern(becomes="MatMul Add")
def add_of_one_row_bn(g: Net) -> str:
    product = g.op("MatMul", g.input("x", "N", 5), g.weight(5, 3))
    return g.bn(g.op("Add", product, g.weight(1, 3)), 3)


@pattern()
def rank_3_matmul_transposed_bn(g: Net) -> str:
    """(N, L, 5) -> (N, L, 4) -> (N, 4, L) -> batch-norm: the features are the channels."""
    return g.bn(g.op("Transpose", g.dense(g.input("x", "N", 6, 5), 5, 4), perm=[0, 2, 1]), 4)


@pattern()
def rank_3_matmul_as_rows_bn(g: Net) -> str:
    """(N, L, 4) -> (N*L, 4): how sequence-wise batch-norm is written."""
    y = g.dense(g.input("x", "N", 6, 5), 5, 4)
    return g.bn(g.op("Reshape", y, g.const([-1, 4])), 4)


@pattern(left=1, reason=("wrong-axis", "graph-input", "dearer"))
def rank_3_linear_then_bn_of_another_axis(g: Net) -> str:
    """The trap: as many channels as features, but the batch-norm acts on axis 1."""
    return g.bn(g.dense(g.input("x", "N", 5, 5), 5, 5), 5)


@pattern(left=1, reason=("wrong-axis", "graph-input", "dearer"))
def rank_3_matmul_then_bn_of_another_axis(g: Net) -> str:
    return g.bn(g.op("MatMul", g.input("x", "N", 5, 5), g.weight(5, 5)), 5)


@pattern()
def weight_on_the_left_bn(g: Net) -> str:
    """W x with W (Cout, Cin) on (N, Cin, L): its rows are axis 1."""
    return g.bn(g.op("MatMul", g.weight(3, 4), g.image(axes=1)), 3)


@pattern()
def weight_on_the_left_with_bias_bn(g: Net) -> str:
    y = g.op("MatMul", g.weight(3, 4), g.image(axes=1))
    return g.bn(g.op("Add", y, g.weight(3, 1)), 3)


@pattern()
def batched_matmul_bn(g: Net) -> str:
    """A matrix for each head, batch-norm on the last axis by a Transpose."""
    y = g.op("MatMul", g.input("x", "N", 2, 5, 4), g.weight(2, 4, 3))
    return g.bn(g.op("Transpose", y, perm=[0, 3, 1, 2]), 3)


@pattern()
def embedding_bn(g: Net) -> str:
    """A row of a table for each index; the columns are the channels."""
    y = g.op("Gather", g.weight(2, 4), g.input("x", "N", 6, dtype="int64"))
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 4)


@pattern()
def embedding_of_one_index_bn(g: Net) -> str:
    return g.bn(g.op("Gather", g.weight(2, 4), g.input("x", "N", dtype="int64")), 4)


@pattern(left=1, reason="shared-value")
def embedding_table_that_others_read_stays_right(g: Net) -> str:
    """One lookup, read before and behind the batch-norm."""
    y = g.op("Gather", g.weight(2, 4), g.input("x", "N", dtype="int64"))
    return g.op("Sigmoid", g.op("Add", g.bn(y, 4), g.op("Tanh", y)))
