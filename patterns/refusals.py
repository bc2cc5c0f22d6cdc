"""What must stay, in the forms in which it occurs, and graphs with bodies."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto

from patterns.graphs import TYPES
from patterns.registry import Net, pattern


@pattern(left=1, reason="training-mode")
def training_mode(g: Net) -> str:
    x = g.conv(g.image())
    return g.relu(g.op("BatchNormalization", x, *g.statistics(4), outputs=3, training_mode=1)[0])


def batch_statistics(g: Net, x: str) -> tuple[str, str]:
    axes = g.const([0, 2, 3])
    mean = g.op("ReduceMean", x, axes, keepdims=0)
    square = g.op("ReduceMean", g.op("Mul", x, x), axes, keepdims=0)
    return mean, g.op("Sub", square, g.op("Mul", mean, mean))


@pattern(left=1, reason="batch-statistics")
def statistics_of_the_batch(g: Net) -> str:
    """track_running_stats=False, as exporters write it."""
    x = g.conv(g.image())
    return g.op("BatchNormalization", x, *g.statistics(4)[:2], *batch_statistics(g, x))


@pattern(left=1, reason="computed-parameters")
def conditional_gamma(g: Net) -> str:
    """Conditional batch-norm: gamma depends on the class."""
    gamma = g.op("Tanh", g.input("style", 4))
    return g.op("BatchNormalization", g.conv(g.image()), gamma, *g.statistics(4)[1:])


@pattern(left=1, reason=("overridable-weights", "graph-output"))
def weight_is_a_graph_input(g: Net) -> str:
    w = g.weight(4, 4, 3, 3, overridable=True)
    return g.bn(g.op("Conv", g.image(), w), 4)


@pattern(left=1, reason=("overridable-weights", "graph-output"))
def statistics_are_graph_inputs(g: Net) -> str:
    x = g.conv(g.image())
    gamma, beta, mean, var = g.statistics(4)
    gamma = g.const(np.ones(4), overridable=True)
    return g.op("BatchNormalization", x, gamma, beta, mean, var)


@pattern(left=1, reason=("computed-weights", "graph-output"))
def weight_is_computed(g: Net) -> str:
    """Dynamic convolution."""
    return g.bn(g.op("Conv", g.image(), g.op("Tanh", g.input("w", 4, 4, 3, 3))), 4)


@pattern(left=1, reason=("computed-weights", "not-linear", "graph-output"))
def two_computed_factors(g: Net) -> str:
    """Attention scores: no factor is a constant."""
    q, k = (g.op("Tanh", g.input(name, "N", 3, 3)) for name in "qk")
    return g.bn(g.op("MatMul", q, k), 3)


@pattern(left=1, reason=("computed-weights", "not-linear"), keeps=("DequantizeLinear",))
def quantised_weight(g: Net) -> str:
    """int8 weights stay int8."""
    w = g.op(
        "DequantizeLinear",
        g.const(g.rng.integers(-9, 9, (4, 4, 3, 3)), dtype="int64", name="q"),
        g.const(0.1, dtype=g.dtype),
    )
    tensor = next(t for t in g.initializers if t.name == "q")
    values = np.frombuffer(tensor.raw_data, np.int64).astype(np.int8)
    tensor.data_type, tensor.raw_data = 3, values.tobytes()
    return g.relu(g.bn(g.op("Conv", g.image(), g.op("CastLike", w, g.const(1.0))), 4))


@pattern(left=1, reason=("not-linear", "graph-output", "graph-input"))
def nothing_around_it(g: Net) -> str:
    return g.bn(g.image(), 4)


@pattern(left=1, reason="not-linear")
def sigmoid_bn_sigmoid(g: Net) -> str:
    return g.op("Sigmoid", g.bn(g.op("Sigmoid", g.image()), 4))


@pattern(left=1, reason="not-linear")
def gelu_bn_softmax(g: Net) -> str:
    return g.op("Softmax", g.bn(g.op("Gelu", g.conv(g.image())), 4), axis=1)


@pattern(left=1, reason=("graph-output", "not-linear"))
def conv_is_a_graph_output(g: Net) -> list[str]:
    y = g.conv(g.image())
    return [g.relu(g.bn(y, 4)), y]


@pattern()
def conv_is_a_graph_output_bn_conv(g: Net) -> list[str]:
    """Forward it folds all the same."""
    y = g.conv(g.image())
    return [g.conv(g.bn(y, 4)), y]


@pattern()
def bn_is_a_graph_output(g: Net) -> list[str]:
    y = g.bn(g.conv(g.image()), 4)
    return [g.relu(y), y]


@pattern(left=1, reason=("graph-output", "not-linear"))
def tanh_bn_is_a_graph_output(g: Net) -> str:
    return g.bn(g.op("Tanh", g.conv(g.image())), 4)


@pattern(left=1, reason="shared-value")
def relu_reads_the_conv_too(g: Net) -> str:
    """The number before the batch-norm is needed as well."""
    y = g.conv(g.image())
    return g.op("Mul", g.op("Tanh", g.bn(y, 4)), g.op("Sigmoid", y))


@pattern()
def shape_reads_the_conv_too(g: Net) -> list[str]:
    """A shape is no number of it."""
    y = g.conv(g.image())
    size = g.op("Cast", g.op("Shape", y), to=TYPES[g.dtype])
    return [g.relu(g.bn(y, 4)), size]


def body(g: Net, x: str, norm: bool, shape: list[object]) -> GraphProto:
    inner = g.body()
    y = inner.conv(x, kernel=1)
    inner.output(inner.bn(y, 4) if norm else inner.op("Tanh", x), shape=shape)
    return inner.graph()


@pattern()
def conv_bn_inside_an_if(g: Net) -> str:
    condition, x = g.input("condition", dtype="bool"), g.image()
    shape = ["N", 4, 6, 6]
    bodies = {"then_branch": body(g, x, True, shape), "else_branch": body(g, x, False, shape)}
    return g.op("If", condition, **bodies)


@pattern(left=1, reason=("shared-value", "subgraph", "not-linear"))
def an_if_captures_the_conv(g: Net) -> str:
    condition, y = g.input("condition", dtype="bool"), g.conv(g.image())
    shape = ["N", 4, 4, 4]
    bodies = {"then_branch": body(g, y, False, shape), "else_branch": body(g, y, False, shape)}
    return g.op("Tanh", g.op("Add", g.op("If", condition, **bodies), g.op("Tanh", g.bn(y, 4))))


@pattern()
def the_conv_stands_outside_of_the_if(g: Net) -> str:
    """What the body alone reads may be another value for it."""
    condition, y = g.input("condition", dtype="bool"), g.conv(g.image())
    one, two, shape = g.body(), g.body(), ["N", 4, 4, 4]
    one.output(one.bn(y, 4), shape=shape)
    two.output(two.op("Identity", g.weight(3, 4, 4, 4)), shape=shape)
    return g.op("If", condition, then_branch=one.graph(), else_branch=two.graph())


@pattern()
def bn_outside_convs_inside_of_an_if(g: Net) -> str:
    condition, y = g.input("condition", dtype="bool"), g.bn(g.op("Tanh", g.image()), 4)
    one, two, shape = g.body(), g.body(), ["N", 4, 4, 4]
    one.output(one.conv(y), shape=shape)
    two.output(two.relu(two.conv(y)), shape=shape)
    return g.op("If", condition, then_branch=one.graph(), else_branch=two.graph())


@pattern()
def conv_bn_inside_a_loop(g: Net) -> str:
    x = g.input("x", 2, 4, 5, 5)
    inner = g.body()
    inner.input("i", dtype="int64")
    inner.input("go", dtype="bool")
    state = inner.input("state", 2, 4, 5, 5)
    y = inner.bn(inner.conv(state, kernel=1), 4)
    inner.output(inner.op("Identity", "go"), dtype="bool", shape=[])
    inner.output(y, shape=[2, 4, 5, 5])
    return g.op("Loop", g.const(2), g.const(np.array(True)), x, body=inner.graph())


@pattern(left=1, reason=("not-linear", "subgraph", "graph-input"))
def the_state_of_a_loop_bn(g: Net) -> str:
    """What stands before it is the last round."""
    x = g.input("x", 2, 4, 5, 5)
    inner = g.body()
    inner.input("i", dtype="int64")
    inner.input("go", dtype="bool")
    state = inner.input("state", 2, 4, 5, 5)
    y = inner.op("Tanh", inner.bn(state, 4))
    inner.output(inner.op("Identity", "go"), dtype="bool", shape=[])
    inner.output(y, shape=[2, 4, 5, 5])
    return g.op("Loop", g.const(2), g.const(np.array(True)), x, body=inner.graph())


@pattern(keeps=("InstanceNormalization",))
def instance_norm_relu(g: Net) -> str:
    """Normalises each sample: no fixed map."""
    x = g.conv(g.image())
    return g.relu(g.op("InstanceNormalization", x, g.weight(4), g.weight(4)))


@pattern(keeps=("LayerNormalization",))
def layer_norm_stays(g: Net) -> str:
    x = g.op("Flatten", g.relu(g.conv(g.image(size=3))))
    return g.relu(g.op("LayerNormalization", x, g.weight(4), g.weight(4)))
