"""Graphs of two opsets: which ops mean the same in both.

An op that did not change between two opsets is the same function. Of those that did, the table
names the ones that only took more types, or say the same in other words, which the rules read in
either (axes as an attribute or as an input). Versions count from the 7th opset on.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.certificate.inferring import schema
from converter.certificate.verdict import Doubt

# Only types were added, in every version.
_ALWAYS = frozenset(
    {"Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Ceil"}
    | {"Concat", "Constant", "ConstantOfShape", "Conv", "Cos", "Cosh", "Div", "Dropout", "Elu"}
    | {"Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements"}
    | {"Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid"}
    | {"HardSwish", "Identity", "If", "InstanceNormalization", "LRN", "LSTM", "GRU", "LeakyRelu"}
    | {"Less", "LessOrEqual", "Log", "Loop", "LpNormalization", "MatMul", "Max", "Mean", "Min"}
    | {"Mish", "Mul", "Neg", "NonZero", "Not", "Or", "PRelu", "Pow", "RNN", "Reciprocal"}
    | {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Selu"}
    | {
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Softsign",
        "Split",
    }
    | {"Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile", "Transpose"}
    | {"Unsqueeze", "Where", "Xor"}
)
# (first, last) versions between which nothing but types was added.
_BETWEEN: dict[str, tuple[int, int]] = {
    "ArgMax": (12, 13),
    "ArgMin": (12, 13),
    "BatchNormalization": (9, 15),  # norms in training are refused below
    "Cast": (9, 25),
    "Clip": (11, 13),
    "DepthToSpace": (11, 13),
    "GatherND": (12, 13),
    "Pad": (11, 25),
    "ReduceL1": (11, 13),
    "ReduceL2": (11, 13),
    "ReduceProd": (11, 13),
    "Resize": (11, 13),
    "ScatterElements": (16, 18),
    "ScatterND": (16, 18),
}
# These changed in what an attribute says, so they must be without it.
_WITHOUT: dict[str, tuple[str, ...]] = {
    "AveragePool": ("ceil_mode",),
    "BatchNormalization": ("training_mode",),
    "ConvTranspose": ("auto_pad", "output_shape"),
    "MaxPool": ("ceil_mode",),
}
_ANY = (7, 99)


def compared(first: ir.Model, second: ir.Model, opsets: tuple[int, int]) -> None:
    """
    Raises:
        Doubt: an op of either graph is not known to mean the same in both opsets.
    """
    for model in (first, second):
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.domain in {"", "ai.onnx"} and not _same(node, opsets):
                raise Doubt(
                    f"the graphs are of opsets {opsets[0]} and {opsets[1]}, between which "
                    f"{node.op_type} changed: convert one of them"
                )


def _same(node: ir.Node, opsets: tuple[int, int]) -> bool:
    op = node.op_type
    found: list[int] = []
    for opset in opsets:
        try:
            found.append(schema(op, opset).since_version)
        except Exception:  # noqa: BLE001 - onnx has no class for it
            return True  # only one opset has it, so it is compared with nothing of its name
    low, high = min(found), max(found)
    if low == high or op in _ALWAYS:
        return True
    without = _WITHOUT.get(op, ())
    values = [node.attributes[name].value for name in without if name in node.attributes]
    if any(value not in (0, "NOTSET") for value in values):
        return False
    first, last = _BETWEEN.get(op, _ANY if without else (0, 0))
    return first <= low and high <= last
