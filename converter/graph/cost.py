"""What a graph costs to run: nodes and multiply-adds, from the shapes of its values.

A multiply-add is one y += a*b. For one sample (the batch axis is 1 where it may vary):

    Conv            |y| * Cin/g * k1*..*kn          Gemm, MatMul    |y| * K
    ConvTranspose   |x| * Cout/g * k1*..*kn         BatchNormalization, Add, Sub, Mul, Div  |y|
    Sum, Mean       |y| * (number of terms - 1)
    RNN, LSTM, GRU  steps * directions * gates*H * (I + H)

A bias is the initial value of a sum and costs nothing, also where it is the Add of a constant
right behind a MatMul. Arithmetic of whole numbers (shapes) is not counted, nor are other ops:
no fold changes them. A value whose shape is not known makes the total unknown; it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from converter.graph.naming import label
from converter.graph.shapes import InferShapesPass
from converter.system.quiet import no_errors_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What one run of a graph costs.

    Attributes:
        nodes: how many the graph and the bodies of its If, Loop and Scan nodes have.
        multiply_adds: for one sample; None if they could not all be counted.
        uncounted: labels of the ops that could not be counted.
    """

    nodes: int
    multiply_adds: int | None
    uncounted: tuple[str, ...] = ()


def cost_of(model: ir.Model, inputs: Mapping[str, Shape] | None = None) -> Cost:
    """Count the cost of a graph, which is not changed.

    Args:
        model: the graph.
        inputs: a shape for each input, by name. For those that are missing, a first axis
            that may vary is taken as 1.
    """
    nodes = sum(1 for _ in ir.traversal.RecursiveGraphIterator(model.graph))
    sized = _with_sizes(model, inputs or {})
    uncounted: list[str] = []
    total = _count(sized.graph, uncounted)
    return Cost(nodes, None if uncounted else total, tuple(uncounted))


class _UnknownShapeError(Exception):
    """The shape of a value is not known."""


def _with_sizes(model: ir.Model, inputs: Mapping[str, Shape]) -> ir.Model:
    """A copy with a size for each axis, as far as it follows from those of the inputs."""
    copy = model.clone()
    stated: dict[str | None, ir.Shape] = {}
    for graph in (copy.graph, *copy.graph.subgraphs()):
        for value in (value for node in graph for value in node.outputs):
            if value.shape is not None:
                stated[value.name] = value.shape
                value.shape = None
    for value in copy.graph.inputs:
        known = inputs.get(value.name or "")
        if known is not None:
            value.shape = ir.Shape(known)
        elif value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape((1, *value.shape[1:]))
    _infer(copy)
    if any(_unknown(value) for node in copy.graph for value in node.outputs):
        # Known sizes turn shape arithmetic into constants, and those make more sizes known.
        with no_errors_of("onnxscript", "onnx_ir"):
            optimizer.fold_constants(copy, should_fold=_is_shape_arithmetic)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
        _infer(copy)
    for graph in (copy.graph, *copy.graph.subgraphs()):
        for value in (value for node in graph for value in node.outputs):
            # What the file says about an op whose result cannot be inferred.
            value.shape = value.shape if value.shape is not None else stated.get(value.name)
    return copy


def _infer(model: ir.Model) -> None:
    with no_errors_of("onnx_ir"):
        InferShapesPass()(model)


def _unknown(value: ir.Value) -> bool:
    return value.shape is None or not value.shape.is_static()


def _is_shape_arithmetic(node: ir.Node) -> bool | None:
    whole = all(value.dtype is not None and value.dtype.is_integer() for value in node.outputs)
    return None if whole else False


def _count(graph: ir.Graph, uncounted: list[str]) -> int:
    total = 0
    for node in graph:
        bodies = [
            a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH
        ]
        if bodies:
            costs = [_count(body, uncounted) for body in bodies]
            total += max(costs)
            if node.op_type != "If" and max(costs):
                uncounted.append(f"{label(node)}, which repeats its body")
            continue
        rule = RULES.get(node.op_type) if node.domain == "" else None
        try:
            total += 0 if rule is None else rule(node)
        except _UnknownShapeError:
            uncounted.append(label(node))
    return total


def _shape(value: ir.Value | None) -> Shape:
    if value is None or value.shape is None:
        raise _UnknownShapeError
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    if len(sizes) < len(value.shape):
        raise _UnknownShapeError
    return sizes


def _results(node: ir.Node) -> int:
    return prod(_shape(node.outputs[0]))


def _conv(node: ir.Node) -> int:
    return _results(node) * prod(_shape(node.inputs[1])[1:])


def _conv_transpose(node: ir.Node) -> int:
    return prod(_shape(node.inputs[0])) * prod(_shape(node.inputs[1])[1:])


def _gemm(node: ir.Node) -> int:
    rows = node.attributes.get_int("transA", 0)
    return _results(node) * _shape(node.inputs[0])[0 if rows else -1]


def _matmul(node: ir.Node) -> int:
    return _results(node) * _shape(node.inputs[0])[-1]


def _recurrent(node: ir.Node) -> int:
    steps, batch, inputs = _shape(node.inputs[0])
    directions, rows, hidden = _shape(node.inputs[2])
    return steps * batch * directions * rows * (inputs + hidden)


def _elementwise(node: ir.Node) -> int:
    dtype = node.outputs[0].dtype
    if dtype is not None and not dtype.is_floating_point():
        return 0
    return 0 if _is_bias(node) else _results(node)


def _sum(node: ir.Node) -> int:
    return _elementwise(node) * (len(node.inputs) - 1)


def _is_bias(node: ir.Node) -> bool:
    if node.op_type != "Add" or len(node.inputs) != 2:
        return False
    pairs = (tuple(node.inputs), tuple(reversed(node.inputs)))
    return any(
        product is not None
        and constant is not None
        and constant.is_initializer()
        and (producer := product.producer()) is not None
        and producer.op_type == "MatMul"
        and producer.domain == ""
        for product, constant in pairs
    )


RULES: dict[str, Callable[[ir.Node], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "BatchNormalization": _results,
    "Add": _elementwise,
    "Sub": _elementwise,
    "Mul": _elementwise,
    "Div": _elementwise,
    "Sum": _sum,
    "Mean": _sum,
}
