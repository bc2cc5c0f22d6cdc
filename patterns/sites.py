"""What is a batch-norm without being called so: constant scales and shifts in a row."""

from __future__ import annotations

import numpy as np

from patterns.registry import Net, pattern


def parts(g: Net, *shape: int) -> tuple[str, str, str, str]:
    """gamma, beta, mean, variance, in the shape in which they broadcast."""
    size = int(np.prod(shape))
    drawn = g.statistics(size)
    for name in drawn:
        proto = next(t for t in g.initializers if t.name == name)
        del proto.dims[:]
        proto.dims.extend(shape)
    gamma, beta, mean, var = drawn
    return gamma, beta, mean, var


def inverse(g: Net, var: str) -> str:
    """1 / sqrt(var + eps), as a constant expression."""
    return g.op("Reciprocal", g.op("Sqrt", g.op("Add", var, g.const(1e-3))))


@pattern()
def keras_sub_mul_add(g: Net) -> str:
    """(x - mean) * (gamma * rsqrt(var + eps)) + beta."""
    gamma, beta, mean, var = parts(g, 4, 1, 1)
    x = g.op("Sub", g.conv(g.image()), mean)
    x = g.op("Mul", x, g.op("Mul", inverse(g, var), gamma))
    return g.op("Add", x, beta)


@pattern()
def tensorflow_mul_add(g: Net) -> str:
    """x * inv + (beta - mean * inv): tf.nn.batch_normalization."""
    gamma, beta, mean, var = parts(g, 4, 1, 1)
    inv = g.op("Mul", inverse(g, var), gamma)
    shift = g.op("Sub", beta, g.op("Mul", mean, inv))
    return g.op("Add", g.op("Mul", g.conv(g.image()), inv), shift)


@pattern()
def tensorflow_mul_sub_add(g: Net) -> str:
    """x * inv - mean * inv + beta, the constants on the left."""
    gamma, beta, mean, var = parts(g, 4, 1, 1)
    inv = g.op("Mul", inverse(g, var), gamma)
    x = g.op("Sub", g.op("Mul", inv, g.conv(g.image())), g.op("Mul", mean, inv))
    return g.relu(g.op("Add", beta, x))


@pattern()
def division_by_the_deviation(g: Net) -> str:
    """gamma * (x - mean) / sqrt(var + eps) + beta, as papers write it."""
    gamma, beta, mean, var = parts(g, 4, 1, 1)
    deviation = g.op("Sqrt", g.op("Add", var, g.const(1e-5)))
    x = g.op("Div", g.op("Sub", g.conv(g.image()), mean), deviation)
    return g.op("Add", g.op("Mul", gamma, x), beta)


@pattern()
def channels_last_conv_bias_norm(g: Net) -> str:
    """A converted TensorFlow graph: Conv between Transposes, bias and norm on the last axis."""
    gamma, beta, mean, var = parts(g, 4)
    x = g.op("Transpose", g.input("x", "N", 6, 6, 4), perm=[0, 3, 1, 2])
    y = g.op("Transpose", g.conv(x), perm=[0, 2, 3, 1])
    y = g.op("Add", y, g.weight(4))
    inv = g.op("Mul", inverse(g, var), gamma)
    y = g.op("Mul", g.op("Sub", y, mean), inv)
    return g.relu(g.op("Add", y, beta))


@pattern()
def channels_last_dense_norm(g: Net) -> str:
    gamma, beta, mean, var = parts(g, 3)
    y = g.dense(g.input("x", "N", 5), 5)
    y = g.op("Mul", g.op("Sub", y, mean), g.op("Mul", inverse(g, var), gamma))
    return g.relu(g.op("Add", y, beta))


@pattern()
def channels_last_norm_behind_relu(g: Net) -> str:
    """relu, norm, then an unpadded convolution: forward through the Transpose."""
    gamma, beta, mean, var = parts(g, 4)
    y = g.relu(g.input("x", "N", 6, 6, 4))
    y = g.op("Mul", g.op("Sub", y, mean), g.op("Mul", inverse(g, var), gamma))
    y = g.op("Transpose", g.op("Add", y, beta), perm=[0, 3, 1, 2])
    return g.op("Sigmoid", g.conv(y))


@pattern()
def frozen_bn(g: Net) -> str:
    """detectron2, torchvision: x * scale + shift from buffers."""
    x = g.op("Mul", g.conv(g.image()), g.const(g.scales(1, 4, 1, 1)))
    return g.relu(g.op("Add", x, g.weight(1, 4, 1, 1)))


@pattern()
def frozen_bn_conv(g: Net) -> str:
    """Behind a relu it goes forward."""
    x = g.op("Mul", g.relu(g.image()), g.const(g.scales(1, 4, 1, 1)))
    return g.conv(g.op("Add", x, g.weight(1, 4, 1, 1)))


@pattern(left=1, reason=("padding", "not-linear"))
def frozen_bn_padded_conv(g: Net) -> str:
    x = g.op("Mul", g.relu(g.image()), g.const(g.scales(1, 4, 1, 1)))
    return g.conv(g.op("Add", x, g.weight(1, 4, 1, 1)), pads=[1] * 4)


@pattern()
def layer_scale(g: Net) -> str:
    """ConvNeXt, CaiT: the branch's last linear op takes gamma up."""
    x = g.image(axes=1)
    y = g.dense(g.op("Transpose", x, perm=[0, 2, 1]), 4, 4)
    y = g.op("Mul", y, g.const(g.scales(4)))
    return g.op("Add", g.op("Transpose", y, perm=[0, 2, 1]), x)


@pattern()
def layer_scale_of_a_conv(g: Net) -> str:
    """(C, 1, 1), as timm's ConvNeXt with conv_mlp has it."""
    x = g.image()
    y = g.op("Mul", g.const(g.scales(4, 1, 1)), g.conv(x, kernel=1, bias=True))
    return g.op("Add", x, y)


@pattern()
def layer_scale_of_one_number(g: Net) -> str:
    """ReZero, SkipInit: a learned scalar."""
    x = g.image()
    y = g.op("Mul", g.conv(x, pads=[1] * 4), g.const(g.scales(1)))
    return g.op("Add", x, y)


@pattern()
def layer_scale_behind_attention(g: Net) -> str:
    """softmax(q k) v, projected, scaled."""
    x = g.input("x", "N", 6, 4)
    q, k, v = (g.dense(x, 4, 4) for _ in range(3))
    weights = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])))
    y = g.dense(g.op("MatMul", weights, v), 4, 4)
    return g.op("Add", x, g.op("Mul", y, g.const(g.scales(4))))


@pattern()
def input_normalisation_conv(g: Net) -> str:
    """(x - mean) / std in front of an unpadded convolution."""
    x = g.op("Sub", g.image(3), g.weight(1, 3, 1, 1))
    x = g.op("Div", x, g.const(np.abs(g.scales(1, 3, 1, 1))))
    return g.conv(x, 3)


@pattern()
def input_normalisation_linear(g: Net) -> str:
    """Standardised features."""
    x = g.op("Sub", g.input("x", "N", 5), g.weight(5))
    return g.gemm(g.op("Div", x, g.const(np.abs(g.scales(5)))), 5)


@pattern(left=1, reason="padding")
def input_normalisation_padded_conv(g: Net) -> str:
    """The zeros around the image stand for the mean colour."""
    x = g.op("Sub", g.image(3), g.weight(1, 3, 1, 1))
    x = g.op("Div", x, g.const(np.abs(g.scales(1, 3, 1, 1))))
    return g.conv(x, 3, pads=[1] * 4)


@pattern()
def input_in_unit_range_padded_conv(g: Net) -> str:
    """x / 255: a scale alone passes the padding."""
    return g.conv(g.op("Div", g.image(3), g.const(255.0)), 3, pads=[1] * 4)


@pattern(grows=True)
def input_between_minus_one_and_one_conv(g: Net) -> str:
    """x / 127.5 - 1, with scalars."""
    x = g.op("Sub", g.op("Div", g.image(3), g.const(127.5)), g.const(1.0))
    return g.conv(x, 3)


@pattern()
def scale_shift_chain(g: Net) -> str:
    x = g.op("Mul", g.conv(g.image()), g.const(g.scales(4, 1, 1)))
    x = g.op("Add", x, g.weight(4, 1, 1))
    x = g.op("Div", x, g.const(np.array(2.0)))
    return g.relu(g.op("Sub", g.weight(4, 1, 1), x))


@pattern()
def scale_alone(g: Net) -> str:
    return g.relu(g.op("Mul", g.conv(g.image()), g.const(g.scales(4, 1, 1))))


@pattern(becomes="Conv Relu")
def bias_as_an_add(g: Net) -> str:
    """TensorFlow's BiasAdd becomes the convolution's own."""
    return g.relu(g.op("Add", g.conv(g.image()), g.weight(1, 4, 1, 1)))


@pattern(plain=1)
def bias_of_every_position_stays(g: Net) -> str:
    """A position embedding is no shift per channel."""
    return g.relu(g.op("Add", g.conv(g.image(size=4)), g.weight(1, 4, 2, 2)))


@pattern(becomes="Conv Add Relu", plain=1)
def bn_behind_a_bias_of_every_position(g: Net) -> str:
    """a*(x + c) + b: the Add's constant is scaled and shifted where it stands."""
    y = g.op("Add", g.conv(g.image(size=4)), g.weight(1, 4, 2, 2))
    return g.relu(g.bn(y, 4))


@pattern(becomes="Conv Relu")
def bn_behind_a_bias(g: Net) -> str:
    return g.relu(g.bn(g.op("Add", g.conv(g.image()), g.weight(4, 1, 1)), 4))


@pattern()
def caffe_bn_then_scale(g: Net) -> str:
    """A batch-norm without gamma and beta, then a layer that scales: Caffe."""
    x = g.bn(g.conv(g.image()), 4)
    x = g.op("Mul", x, g.const(g.scales(1, 4, 1, 1)))
    return g.relu(g.op("Add", x, g.weight(1, 4, 1, 1)))


@pattern(plain=1)
def layer_norm_in_single_ops_then_linear(g: Net) -> str:
    """Its gamma and beta are left to it: runtimes replace all of this by one op."""
    x = g.input("x", "N", 6, 4)
    centred = g.op("Sub", x, g.op("ReduceMean", x, g.const([2])))
    var = g.op("ReduceMean", g.op("Mul", centred, centred), g.const([2]))
    y = g.op("Div", centred, g.op("Sqrt", var))
    y = g.op("Add", g.op("Mul", y, g.const(g.scales(4))), g.weight(4))
    return g.op("Gelu", g.dense(y, 4))


@pattern(plain=1)
def rms_norm_then_three_products(g: Net) -> list[str]:
    """A language model's norm: its scale is left to it, for the same reason."""
    x = g.input("x", "N", 6, 4)
    mean = g.op("ReduceMean", g.op("Mul", x, x), g.const([2]))
    y = g.op("Mul", g.op("Div", x, g.op("Sqrt", mean)), g.const(g.scales(4)))
    return [g.op("Tanh", g.op("MatMul", y, g.weight(4, 3))) for _ in range(3)]


@pattern()
def scaled_product(g: Net) -> str:
    """q / sqrt(d): the scalar goes into the product that makes q."""
    q = g.op("Div", g.dense(g.input("x", "N", 6, 4), 4, 4), g.const(2.0))
    return g.op("Softmax", q)


@pattern(left=1, reason="not-linear")
def scale_between_two_sigmoids_stays(g: Net) -> str:
    x = g.op("Mul", g.op("Sigmoid", g.image()), g.const(g.scales(4, 1, 1)))
    return g.op("Sigmoid", g.op("Add", x, g.weight(4, 1, 1)))


@pattern()
def batch_norm_with_constant_nodes(g: Net) -> str:
    """The statistics come from Constant nodes."""
    x = g.conv(g.image())
    rest = []
    for name in g.statistics(4):
        tensor = next(t for t in g.initializers if t.name == name)
        g.initializers.remove(tensor)
        rest.append(g.op("Constant", value=tensor))
    return g.op("BatchNormalization", x, *rest)


@pattern()
def bn_of_a_weight(g: Net) -> str:
    """Weight standardisation in evaluation: the weight is a constant, and so is what it makes."""
    w = g.op("Reshape", g.weight(4, 4, 3, 3), g.const([1, 4, -1]))
    w = g.op("Reshape", g.bn(w, 4), g.const([4, 4, 3, 3]))
    return g.op("Conv", g.image(), w)
