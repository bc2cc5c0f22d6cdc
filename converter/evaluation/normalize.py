"""Bring a graph into the form that the folding rules expect, without changing its numbers.

1. Local functions are inlined: a rule sees ops, not calls.
2. Constant nodes become initializers, and Identity nodes go: a weight is one thing, and two
   nodes that share it share it visibly.
3. Sub-expressions of constants are evaluated (the zero bias that torch's exporter builds by
   Shape and Expand; the Transpose before a MatMul; scalars of shape arithmetic; weights that are
   normalised, factored, masked: `constants.py`).
4. Nodes that nothing reads go, and shapes are inferred, those of a Reshape to computed sizes, too.

onnxscript's rewriter is not used: it folds batch-norms by itself, also wrong ones.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from converter.evaluation.constants import Growth, evaluate_constants
from converter.graph.opsets import prepare, settle
from converter.graph.rewiring import bypass
from converter.graph.shape_arithmetic import tell_reshapes
from converter.graph.shapes import infer_shapes
from converter.graph.values import QUANTIZED, is_constant, numbers, shape_of, size_of
from converter.graph.zero_biases import drop_zero_biases
from converter.system.quiet import no_errors_of

# The default domain "" has two names (onnx/docs/IR.md, "Operator sets").
_LONG_NAME = "ai.onnx"
# Moves numbers of any size, which is exact in their own type; what computes is evaluated by
# `constants.py`.
_MOVES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
    | {"Slice", "Gather", "Concat"}
)
# How many numbers a ConstantOfShape of whole numbers may make: sizes, not data.
_FEW = 64
# Sizes that become known make constants, and those make sizes known.
_MOST_PASSES = 5
_RESHAPES_IN_A_ROW = 4
# The operand that changes nothing.
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}


def normalize(model: ir.Model) -> ir.Model:
    """A normalized copy of `model`; tensors that do not change are shared with it."""
    model = model.clone()
    opsets = model.graph.opset_imports
    if _LONG_NAME in opsets:
        opsets.setdefault("", opsets.pop(_LONG_NAME))
    if model.functions:
        common.InlinePass()(model)
    _drop_empty_outputs(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _drop_identities(model)
    with no_errors_of("onnxscript", "onnx_ir"):
        # Known sizes make constants of shape arithmetic, and those make sizes known.
        infer_shapes(model)
        prepare(model)
        growth = Growth.of(model)
        for _ in range(_MOST_PASSES):
            optimizer.fold_constants(model, should_fold=_should_fold)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
            infer_shapes(model)
            if not evaluate_constants(model, growth):
                break
            infer_shapes(model)
        settle(model)
        _drop_identities(model)
        _drop_neutral(model)
        drop_zero_biases(model)
        model = _drop_unused(model)
        infer_shapes(model)
        # What is told of one Reshape may make the input of the next one known.
        for _ in range(_RESHAPES_IN_A_ROW):
            if not tell_reshapes(model):
                break
            infer_shapes(model)
    common.NameFixPass()(model)
    return model


def _drop_empty_outputs(model: ir.Model) -> None:
    """Outputs without a name at a node's end are as good as none (onnx/docs/IR.md, "Optional
    Inputs and Outputs"): with a name, they would make a batch-norm of before opset 14 train."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        wanted = [place for place, value in enumerate(node.outputs, 1) if value.name]
        if wanted and wanted[-1] < len(node.outputs):
            node.resize_outputs(wanted[-1])


def _drop_unused(model: ir.Model) -> ir.Model:
    """Nodes that nothing reads go. In onnx_ir the nodes of a body that is gone still count as
    readers of what they captured; a clone has only the readers that are there."""
    while True:
        model = model.clone()
        if not common.RemoveUnusedNodesPass()(model).modified:
            return model


def _drop_identities(model: ir.Model) -> None:
    """Identity nodes go, except where two names are needed for one value.

    A result of a graph may take over its source's node only if the source is computed in the
    same graph and is not a result itself: a body must not return a value from outside.
    """
    for node in tuple(ir.traversal.RecursiveGraphIterator(model.graph)):
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "Identity" or node.domain != "" or source is None:
            continue
        result, graph = node.outputs[0], node.graph
        producer = source.producer()
        if result.is_graph_output() and (
            producer is None or producer.graph is not graph or source.is_graph_output()
        ):
            continue
        bypass(node, source)


def _drop_neutral(model: ir.Model) -> None:
    """x + 0, x - 0, x * 1 and x / 1 go, where the constant does not enlarge x: a sum in Python
    starts with 0, and a scale that is left out is written as 1."""
    for node in tuple(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type not in _NEUTRAL or node.domain != "" or len(node.inputs) != 2:
            continue
        places = (0, 1) if node.op_type in {"Add", "Mul"} else (1,)
        for place in places:
            held, data, result = node.inputs[place], node.inputs[1 - place], node.outputs[0]
            if (
                data is not None
                and held is not None
                and is_constant(held)
                and held.dtype is not None
                and held.dtype.is_floating_point()
                and (size_of(held) == 1 or shape_of(data) == shape_of(result) is not None)
                and len(shape_of(held) or ()) <= len(shape_of(data) or ())
                and not result.is_graph_output()
                and np.all(numbers(held) == _NEUTRAL[node.op_type])
            ):
                bypass(node, data)
                break


def _should_fold(node: ir.Node) -> bool | None:
    """True: evaluate it if all that it reads is constant; None: only if it is small."""
    if node.op_type in QUANTIZED or node.domain != "":
        return False
    if node.op_type == "ConstantOfShape":
        return _makes_few(node)
    sizes = [size_of(value) for value in node.outputs]
    read = sum(size_of(value) or 0 for value in node.inputs if value is not None)
    if node.op_type in _MOVES and all(size is not None and size <= read for size in sizes):
        return True
    computes = any(v.dtype is not None and v.dtype.is_floating_point() for v in node.outputs)
    return False if computes else None


def _makes_few(node: ir.Node) -> bool | None:
    """Whether a ConstantOfShape makes sizes rather than data: TorchScript's paddings."""
    given, dtype = node.inputs[0], node.outputs[0].dtype
    if given is None or given.const_value is None:
        return None
    if dtype is None or dtype.is_floating_point():
        return False
    return True if prod(given.const_value.numpy().ravel().tolist()) <= _FEW else None
