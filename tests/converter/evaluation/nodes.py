"""One node as a graph: run by our kernel, by onnxruntime and by onnx's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from converter.evaluation.kernels import KERNELS
from converter.proof import Oracle
from patterns.graphs import Array, Graph, distance, ort_run


def one_node(
    op: str, *inputs: Array, dtype: str, opset: int = 20, outputs: int = 1, **attributes: Any
) -> Graph:
    """A graph of the one node; every input is a graph input `i0`, `i1`, .. of fixed shape."""
    g = Graph(dtype, opset=opset)
    names = [g.input(f"i{i}", *array.shape) for i, array in enumerate(inputs)]
    made = g.op(op, *names, outputs=outputs, **attributes)
    for name in [made] if outputs == 1 else made:
        g.output(name)
    return g


def feeds(inputs: tuple[Array, ...], dtype: str) -> dict[str, Array]:
    return {f"i{i}": array.astype(dtype) for i, array in enumerate(inputs)}


def by_kernel(op: str, *inputs: Array, **more: Any) -> Array:
    """The kernel itself, in float64; it must not leave the case to the reference evaluator."""
    model = one_node(op, *inputs, dtype="float64", **more).model()
    (node,) = model.graph
    results = KERNELS[op](node, [array.astype(np.float64) for array in inputs])
    assert results is not None
    assert results[0].dtype == np.float64
    (found, *_) = Oracle(model).run(feeds(inputs, "float64")).values()
    np.testing.assert_array_equal(found, results[0])
    return found


def by_reference(op: str, *inputs: Array, **more: Any) -> Array:
    proto = one_node(op, *inputs, dtype="float64", **more).proto()
    results = ReferenceEvaluator(proto).run(None, feeds(inputs, "float64"))
    return np.asarray(results[0])  # type: ignore[index]


def by_onnxruntime(op: str, *inputs: Array, **more: Any) -> Array:
    model = one_node(op, *inputs, dtype="float32", **more).model()
    return ort_run(model, feeds(inputs, "float32"))[0]


def agree(op: str, *inputs: Array, reference: bool = True, **more: Any) -> None:
    """The kernel is what onnxruntime computes, to float32, and the reference, to float64."""
    found = by_kernel(op, *inputs, **more)
    assert distance(found, by_onnxruntime(op, *inputs, **more)) < 2e-6
    if reference:
        assert distance(found, by_reference(op, *inputs, **more)) < 1e-12


def check_valid(model: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
