"""A batch-norm behind something that is not linear: it goes into what reads it."""

from __future__ import annotations

from typing import Any

from patterns.registry import Net, pattern

PAD = {2: [0, 0, 1, 1, 0, 0, 1, 1]}


def norm(g: Net, channels: int = 4, size: int = 6, axes: int = 2) -> str:
    """Convolution, relu, batch-norm."""
    y = g.conv(g.image(channels, size, axes), channels, channels, 1, axes=axes, bias=True)
    return g.bn(g.relu(y), channels)


def bent(g: Net, channels: int = 4, size: int = 6, axes: int = 2) -> str:
    """Tanh, batch-norm: there is no way back."""
    return g.bn(g.op("Tanh", g.image(channels, size, axes)), channels)


def unshifted(g: Net, channels: int = 4) -> str:
    y = g.conv(g.image(channels), channels, channels, 1)
    return g.unshifted(g.op("Tanh", y), channels)


@pattern()
def conv_relu_bn_conv(g: Net) -> str:
    return g.conv(norm(g))


@pattern()
def conv_relu_bn_conv1d(g: Net) -> str:
    return g.conv(norm(g, axes=1), axes=1, bias=True)


@pattern()
def conv_relu_bn_conv3d(g: Net) -> str:
    return g.conv(norm(g, size=4, axes=3), axes=3)


@pattern()
def conv_relu_bn_pointwise_conv(g: Net) -> str:
    return g.conv(norm(g), 4, 6, 1)


@pattern()
def conv_relu_bn_strided_conv(g: Net) -> str:
    return g.conv(norm(g, size=7), strides=[2, 2], dilations=[1, 2], bias=True)


@pattern()
def conv_relu_bn_grouped_conv(g: Net) -> str:
    return g.conv(norm(g, 6), 6, 4, group=2)


@pattern()
def conv_relu_bn_depthwise_conv(g: Net) -> str:
    return g.conv(norm(g), group=4)


@pattern()
def conv_relu_bn_auto_pad_valid_conv(g: Net) -> str:
    return g.conv(norm(g), auto_pad="VALID")


@pattern()
def conv_relu_bn_auto_pad_same_pointwise_conv(g: Net) -> str:
    """A 1x1 convolution of stride 1 is padded by nothing, whatever auto_pad says."""
    return g.conv(norm(g), 4, 4, 1, auto_pad="SAME_UPPER")


@pattern(left=1, reason="padding")
def tanh_bn_padded_conv(g: Net) -> str:
    """Padded zeros are not shifted: at the border the folded bias would be wrong."""
    return g.conv(bent(g), pads=[1] * 4)


@pattern(left=1, reason="padding")
def tanh_bn_conv_padded_on_one_side(g: Net) -> str:
    return g.conv(bent(g), pads=[0, 0, 0, 1])


@pattern(left=1, reason="padding")
def tanh_bn_auto_pad_same_conv(g: Net) -> str:
    return g.conv(bent(g), auto_pad="SAME_UPPER")


@pattern()
def bn_without_shift_padded_conv(g: Net) -> str:
    return g.conv(unshifted(g), pads=[1] * 4)


@pattern()
def bn_reflect_pad_conv(g: Net) -> str:
    return g.conv(g.op("Pad", norm(g), g.const(PAD[2]), mode="reflect"))


@pattern()
def bn_edge_pad_conv(g: Net) -> str:
    return g.conv(g.op("Pad", norm(g), g.const(PAD[2]), mode="edge"))


@pattern()
def bn_wrap_pad_conv(g: Net) -> str:
    return g.conv(g.op("Pad", norm(g), g.const(PAD[2]), mode="wrap"))


@pattern(left=1, reason="padding")
def bn_zero_pad_conv(g: Net) -> str:
    return g.conv(g.op("Pad", bent(g), g.const(PAD[2])))


@pattern()
def bn_without_shift_zero_pad_conv(g: Net) -> str:
    return g.conv(g.op("Pad", unshifted(g), g.const(PAD[2])))


@pattern(left=1, reason="padding")
def bn_conv_transpose(g: Net) -> str:
    """At the edges fewer inputs are summed, so a shift is no bias."""
    return g.op("ConvTranspose", bent(g), g.weight(4, 3, 3, 3))


@pattern()
def bn_without_shift_conv_transpose(g: Net) -> str:
    return g.op("ConvTranspose", unshifted(g), g.weight(4, 3, 3, 3), strides=[2, 2], group=2)


@pattern()
def bn_pointwise_conv_transpose(g: Net) -> str:
    """A 1x1 kernel of stride 1 sums the same inputs everywhere."""
    return g.op("ConvTranspose", norm(g), g.weight(4, 3, 1, 1))


@pattern(left=1, reason="padding")
def bn_upconvolution(g: Net) -> str:
    """U-Net's 2x2 of stride 2: no overlap, but the four positions have different kernels."""
    return g.op("ConvTranspose", bent(g), g.weight(4, 3, 2, 2), strides=[2, 2])


@pattern()
def bn_two_convs(g: Net) -> str:
    y = norm(g)
    return g.op("Mul", g.conv(y), g.op("Sigmoid", g.conv(y)))


@pattern(left=1, reason="padding")
def bn_two_convs_one_padded(g: Net) -> list[str]:
    y = bent(g)
    return [g.conv(y), g.conv(y, pads=[1] * 4)]


@pattern(left=1, reason="graph-output")
def bn_conv_and_graph_output(g: Net) -> list[str]:
    y = bent(g)
    return [g.conv(y), y]


@pattern()
def bn_conv_and_residual(g: Net) -> str:
    """The skip reads it, too: with the convolution it becomes one, which takes the map up."""
    y = norm(g)
    return g.op("Sigmoid", g.op("Add", g.conv(y, kernel=1), y))


@pattern(left=1, reason="not-linear")
def bn_conv_relu_and_residual(g: Net) -> str:
    y = bent(g)
    return g.op("Sigmoid", g.op("Add", g.relu(g.conv(y, kernel=1)), y))


@pattern()
def bn_gemm(g: Net) -> str:
    return g.gemm(g.bn(g.op("Tanh", g.input("x", "N", 5)), 5), 5)


@pattern()
def bn_gemm_trans_b(g: Net) -> str:
    y = g.bn(g.relu(g.input("x", "N", 5)), 5)
    return g.op("Gemm", y, g.weight(3, 5), g.weight(3), transB=1, alpha=0.5, beta=2.0)


@pattern()
def bn_gemm_without_bias(g: Net) -> str:
    return g.op("Gemm", g.bn(g.relu(g.input("x", "N", 5)), 5), g.weight(5, 3))


@pattern(left=1, reason=("wrong-axis", "not-linear"))
def bn_gemm_of_the_transposed(g: Net) -> str:
    """transA: the channels are the rows of the product."""
    return g.gemm(g.bn(g.op("Tanh", g.input("x", 5, 4)), 4), 5, 3, transA=1)


@pattern()
def bn_matmul(g: Net) -> str:
    return g.op("MatMul", g.bn(g.relu(g.input("x", "N", 5)), 5), g.weight(5, 3))


@pattern()
def bn_matmul_add(g: Net) -> str:
    return g.dense(g.bn(g.relu(g.input("x", "N", 5)), 5), 5)


@pattern()
def bn_two_linears(g: Net) -> list[str]:
    """Two heads: classes and boxes."""
    y = g.bn(g.relu(g.input("x", "N", 5)), 5)
    return [g.gemm(y, 5, 3), g.dense(y, 5, 2)]


@pattern()
def bn_query_key_value(g: Net) -> list[str]:
    """A batch-norm in front of attention: (N, C, L) -> (N, L, C) -> three products."""
    y = g.op("Transpose", g.bn(g.op("Tanh", g.image(axes=1)), 4), perm=[0, 2, 1])
    return [g.dense(y, 4, 3) for _ in range(3)]


@pattern()
def bn_flatten_gemm(g: Net) -> str:
    """The map is repeated for each position."""
    return g.gemm(g.op("Flatten", norm(g)), 144)


@pattern()
def bn_reshape_matmul(g: Net) -> str:
    return g.dense(g.op("Reshape", norm(g), g.const([0, -1])), 144)


@pattern()
def bn_permuted_flatten_gemm(g: Net) -> str:
    """Channels last before they are flattened, as Keras does."""
    y = g.op("Transpose", norm(g), perm=[0, 2, 3, 1])
    return g.gemm(g.op("Flatten", y), 144)


@pattern(left=0, left_mixed=1, reason="sign")
def bn_maxpool_conv(g: Net) -> str:
    y = g.op("MaxPool", g.bn(g.op("Tanh", g.image()), 4), kernel_shape=[2, 2])
    return g.conv(y)


@pattern(left=0, left_mixed=1, reason="sign")
def bn_maxpool_flatten_gemm(g: Net) -> str:
    y = g.op("MaxPool", bent(g), kernel_shape=[2, 2], strides=[2, 2])
    return g.gemm(g.op("Flatten", y), 36)


@pattern(left=1, reason=("padding", "sign"))
def bn_maxpool_padded_conv(g: Net) -> str:
    return g.conv(g.op("MaxPool", bent(g), kernel_shape=[2, 2]), pads=[1] * 4)


@pattern()
def bn_average_pool_conv(g: Net) -> str:
    y = g.op("AveragePool", norm(g), kernel_shape=[3, 3], pads=[1] * 4)
    return g.conv(y)


@pattern(left=1, reason="padding")
def bn_average_pool_that_counts_padding_conv(g: Net) -> str:
    y = g.op("AveragePool", bent(g), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    return g.conv(y)


@pattern()
def bn_global_average_pool_gemm(g: Net) -> str:
    return g.gemm(g.op("Flatten", g.op("GlobalAveragePool", norm(g))), 4)


@pattern(left=0, left_mixed=1, reason="sign")
def bn_global_maxpool_gemm(g: Net) -> str:
    return g.gemm(g.op("Flatten", g.op("GlobalMaxPool", bent(g))), 4)


@pattern()
def bn_mean_gemm(g: Net) -> str:
    return g.gemm(g.op("ReduceMean", norm(g), g.const([2, 3]), keepdims=0), 4)


@pattern()
def bn_sum_gemm(g: Net) -> str:
    """A sum of 36 positions: the scale passes, the shift 36 times."""
    return g.gemm(g.op("ReduceSum", norm(g), g.const([2, 3]), keepdims=0), 4)


@pattern(left=0, left_mixed=1, reason="sign")
def bn_max_gemm(g: Net) -> str:
    return g.gemm(g.op("ReduceMax", bent(g), g.const([2, 3]), keepdims=0), 4)


@pattern()
def global_average_pool_bn_gemm(g: Net) -> str:
    """Behind the pooling, in front of the classifier."""
    y = g.op("GlobalAveragePool", g.relu(g.image()))
    return g.gemm(g.bn(g.op("Flatten", y), 4), 4)


@pattern()
def bn_dropout_gemm(g: Net) -> str:
    return g.gemm(g.op("Dropout", g.bn(g.relu(g.input("x", "N", 5)), 5)), 5)


def recurrent(g: Net, op: str, gates: int, **more: Any) -> str:
    """(N, C, L) batch-norm -> (L, N, C) -> the recurrent op."""
    hidden, directions = 3, 2 if more.get("direction") == "bidirectional" else 1
    y = g.op("Transpose", g.bn(g.op("Tanh", g.image(axes=1)), 4), perm=[2, 0, 1])
    parts = [
        g.weight(directions, gates * hidden, 4),
        g.weight(directions, gates * hidden, hidden),
        g.weight(directions, 2 * gates * hidden),
    ]
    return g.op(op, y, *parts, hidden_size=hidden, **more)


@pattern()
def bn_lstm(g: Net) -> str:
    return recurrent(g, "LSTM", 4)


@pattern()
def bn_bidirectional_lstm(g: Net) -> str:
    return recurrent(g, "LSTM", 4, direction="bidirectional")


@pattern()
def bn_gru(g: Net) -> str:
    return recurrent(g, "GRU", 3)


@pattern()
def bn_bidirectional_gru_linear_before_reset(g: Net) -> str:
    return recurrent(g, "GRU", 3, direction="bidirectional", linear_before_reset=1)


@pattern()
def bn_rnn_of_the_reversed(g: Net) -> str:
    return recurrent(g, "RNN", 1, direction="reverse")


@pattern()
def bn_bidirectional_rnn(g: Net) -> str:
    return recurrent(g, "RNN", 1, direction="bidirectional")


@pattern()
def lstm_bn_linear(g: Net) -> str:
    """A recurrent op is no linear one: what it makes goes forward."""
    parts = [g.weight(1, 12, 4), g.weight(1, 12, 3), g.weight(1, 24)]
    y = g.op("LSTM", g.input("x", 5, "N", 4), *parts, hidden_size=3)
    y = g.op("Transpose", g.op("Squeeze", y, g.const([1])), perm=[1, 2, 0])
    return g.dense(g.op("Transpose", g.bn(y, 3), perm=[0, 2, 1]), 3)


@pattern(left=1, reason="not-linear")
def bn_as_a_hidden_state_stays(g: Net) -> str:
    """The recurrence is not linear in its state."""
    state = g.op("Unsqueeze", g.bn(g.relu(g.input("h", "N", 3)), 3), g.const([0]))
    parts = [g.weight(1, 9, 4), g.weight(1, 9, 3), g.weight(1, 18)]
    return g.op("GRU", g.input("x", 5, "N", 4), *parts, "", state, hidden_size=3)


@pattern()
def relu6_bn_pointwise_conv(g: Net) -> str:
    y = g.op("Clip", g.conv(g.image()), g.const(0.0), g.const(6.0))
    return g.conv(g.bn(y, 4), 4, 6, 1)


@pattern()
def gelu_bn_pointwise_conv(g: Net) -> str:
    return g.conv(g.bn(g.op("Gelu", g.conv(g.image())), 4), 4, 6, 1)


@pattern(left=1, reason="padding")
def hard_swish_bn_padded_depthwise_conv(g: Net) -> str:
    return g.conv(g.bn(g.op("HardSwish", g.conv(g.image())), 4), group=4, pads=[1] * 4)


@pattern()
def softmax_bn_linear(g: Net) -> str:
    return g.gemm(g.bn(g.op("Softmax", g.input("x", "N", 5)), 5), 5)


@pattern()
def first_of_all_bn_conv(g: Net) -> str:
    """Input normalisation by a batch-norm."""
    return g.conv(g.bn(g.image(), 4))


@pattern()
def first_of_all_bn_linear(g: Net) -> str:
    """Tabular data."""
    return g.dense(g.bn(g.input("x", "N", 5), 5), 5)


@pattern(left=1, reason="padding")
def first_of_all_bn_padded_conv(g: Net) -> str:
    return g.conv(g.bn(g.image(), 4), pads=[1] * 4)


@pattern()
def two_bns_in_a_row_forward(g: Net) -> str:
    return g.gemm(g.bn(g.bn(g.op("Tanh", g.input("x", "N", 5)), 5), 5), 5)


@pattern()
def bn_with_a_residual_before_it(g: Net) -> str:
    """Add, then batch-norm, then a convolution that alone reads it."""
    x = g.op("Tanh", g.image())
    return g.conv(g.bn(g.op("Add", g.op("Sigmoid", x), x), 4))
