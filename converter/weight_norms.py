"""Batch-norms of weights: what weight-standardised networks normalise is a constant.

Weight standardisation (Qiao et al. 2019, arXiv 1903.10520, eq. 2) is commonly written as a
batch-norm in training mode of the weight itself, seen as a batch of one with the output
channels as channels. No input of the model reaches it, so it is evaluated, in float64 and
rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, Float64, along_axis
from converter.folding.rounding import round_once
from converter.folding.view import View, numbers


def evaluate_batchnorms(model: ir.Model) -> bool:
    """Replace every BatchNormalization of constants by its result; whether there was one."""
    view, found = View(), False
    for node in tuple(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type == "BatchNormalization" and node.domain == "" and _is_constant(node, view):
            found |= _evaluate(node, model.graph.opset_imports.get("", 0))
    return found


def _is_constant(node: ir.Node, view: View) -> bool:
    used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    return (
        used == [node.outputs[0]]
        and not node.outputs[0].is_graph_output()
        and len(node.inputs) == 5
        and all(view.why_not_constant(value, node, "operand") is None for value in node.inputs)
    )


def _evaluate(node: ir.Node, opset: int) -> bool:
    data, *parameters = (numbers(value) for value in node.inputs if value is not None)
    if data.ndim < 2 or any(array.shape != (data.shape[1],) for array in parameters):
        return False
    gamma, beta, mean, var = parameters
    training = node.attributes.get("training_mode")
    if (training is not None and training.as_int()) or (opset < 14 and len(node.outputs) > 1):
        mean, var = _statistics(data)
    epsilon = node.attributes.get("epsilon")
    affine = Affine.of_batchnorm(
        gamma, beta, mean, var, 1e-5 if epsilon is None else epsilon.as_float()
    )
    result = data * along_axis(affine.scale, 1, data.ndim) + along_axis(affine.shift, 1, data.ndim)
    source, graph, old = node.inputs[0], node.graph, node.outputs[0]
    assert source is not None
    assert source.const_value is not None
    assert graph is not None
    tensor = ir.tensor(round_once(result, source.const_value.dtype.numpy()), name=old.name)
    name, old.name = old.name, None
    value = ir.Value(
        name=name,
        shape=ir.Shape(data.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    old.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    return True


def _statistics(data: Float64) -> tuple[Float64, Float64]:
    """The mean and the population variance of each channel, axis 1 (ONNX BatchNormalization-15)."""
    others = tuple(axis for axis in range(data.ndim) if axis != 1)
    return np.asarray(data.mean(axis=others)), np.asarray(data.var(axis=others))
