"""Bring a graph into the form that the folding rules expect, without changing its numbers."""

from __future__ import annotations

from math import prod

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from converter.evaluation.constants import EvaluateConstantsPass, Growth
from converter.graph.identities import DropIdentitiesPass, DropNeutralPass
from converter.graph.in_order import InOrder
from converter.graph.opsets import FitOpsetPass, SizeSequencesPass
from converter.graph.reshapes import TellReshapesPass
from converter.graph.shapes import InferShapesPass
from converter.graph.unused import DropEmptyOutputsPass, DropUnusedPass
from converter.graph.values import QUANTIZED, size_of
from converter.graph.zero_biases import DropZeroBiasesPass
from converter.system.quiet import no_errors_of

# The default domain "" has two names (onnx/docs/IR.md, "Operator sets").
_LONG_NAME = "ai.onnx"
# Ops that only move numbers, which is exact in their own type; ops that compute are evaluated by
# `EvaluateConstantsPass`.
_MOVES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
    | {"Slice", "Gather", "Concat"}
)
# How many whole numbers a ConstantOfShape may make to be evaluated: these are sizes, not data.
_FEW = 64
# How often the passes repeat: known sizes make constants, and those make more sizes known.
_MOST_ROUNDS = 5
_RESHAPES_IN_A_ROW = 4


def normalize(model: ir.Model) -> ir.Model:
    """A normalized copy of `model`; tensors that do not change are shared with it."""
    return NormalizePass()(model).model


class NormalizePass(ir.passes.FunctionalPass):
    """Bring a graph into the form that the folding rules expect, without changing its numbers.

    1. Local functions are inlined: a rule sees ops, not calls.
    2. Constant nodes become initializers, and Identity nodes are removed: a weight is one value,
       and nodes that share it read the same value.
    3. Sub-expressions of constants are evaluated (the zero bias that torch's exporter builds by
       Shape and Expand; the Transpose before a MatMul; scalars of shape arithmetic; weights that
       are normalised, factored, masked: `EvaluateConstantsPass`).
    4. Nodes that nothing reads are removed, and shapes are inferred, also those of a Reshape to
       computed sizes.

    onnxscript's rewriter is not used: it folds batch-norms by itself, sometimes wrongly.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        with no_errors_of("onnxscript", "onnx_ir"):
            model = _plain()(model.clone()).model
            growth = Growth.of(model)
            for _ in range(_MOST_ROUNDS):
                _folded()(model)
                if not EvaluateConstantsPass(growth)(model).modified:
                    break
                InferShapesPass()(model)
            model = _lean()(model).model
            # Annotating one Reshape may make the input of the next one known.
            for _ in range(_RESHAPES_IN_A_ROW):
                if not TellReshapesPass()(model).modified:
                    break
                InferShapesPass()(model)
            common.NameFixPass()(model)
        return ir.passes.PassResult(model, modified=True)


class _ShortDomainPass(ir.passes.InPlacePass):
    """Give the default domain its short name, where the model has no version for that name."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        opsets = model.graph.opset_imports
        long = _LONG_NAME in opsets
        if long:
            opsets.setdefault("", opsets.pop(_LONG_NAME))
        return ir.passes.PassResult(model, long)


class _FoldConstantsPass(ir.passes.InPlacePass):
    """Let onnxscript evaluate ops that move constants, and small arithmetic of whole numbers, each
    op in its own type (`_should_fold`)."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = optimizer.fold_constants(model, should_fold=_should_fold)
        return ir.passes.PassResult(model, found.modified)


def _plain() -> InOrder:
    """The passes that bring ops and constants into the one form that the evaluation knows."""
    return InOrder(
        _ShortDomainPass(),
        common.InlinePass(),
        DropEmptyOutputsPass(),
        _lift(),
        DropIdentitiesPass(),
        InferShapesPass(),
        SizeSequencesPass(),
    )


def _folded() -> InOrder:
    """The passes that evaluate constants that are moved, and small ones that are computed."""
    return InOrder(_FoldConstantsPass(), _lift(), InferShapesPass())


def _lean() -> InOrder:
    """The passes that remove what has no effect."""
    return InOrder(
        FitOpsetPass(),
        DropIdentitiesPass(),
        DropNeutralPass(),
        DropZeroBiasesPass(),
        DropUnusedPass(),
        InferShapesPass(),
    )


def _lift() -> ir.passes.InPlacePass:
    return common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)


def _should_fold(node: ir.Node) -> bool | None:
    """True: evaluate it if everything it reads is constant; None: only if it is small."""
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
