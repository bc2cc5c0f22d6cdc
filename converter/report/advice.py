"""What a graph shows about how its network was built: batch-norms and biases that are redundant.

None of this is an error, and all of it folds or stays as the plan says. It is reported so that the
next training can leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from converter.folding import Hazard
from converter.graph.naming import module_name, unique

# Elementwise functions, as they are exported: none of them mixes channels or positions.
ACTIVATIONS = frozenset(
    {
        "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu",
        "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
        "Dropout", "Identity",
    }
)  # fmt: skip
# The input that is a bias on the channel axis; an Add is a bias after a MatMul of rank 2.
BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Add": 1}

_BIAS = (
    "the op in front of it has a bias, which it takes away again with the mean: in training such "
    "a bias gets no gradient and is dead weight. Leave it out (bias=False; in "
    "Keras use_bias=False). It folds all the same."
)


def advise(model: ir.Model) -> tuple[Hazard, ...]:
    """Sentences about batch-norms of a normalized, un-folded graph; `where` names each of them."""
    return tuple(_found(model))


def _found(model: ir.Model) -> Iterator[Hazard]:
    taken: set[str] = set()
    names = {
        node: unique(module_name(node), taken)
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.op_type == "BatchNormalization" and node.domain == ""
    }
    for norm, name in names.items():
        channels = _channels(norm)
        source = norm.inputs[0]
        if source is None or len(source.uses()) != 1:
            continue  # another node reads it, which may need the bias or the other norm
        if _biased(source):
            yield Hazard("needless-bias", _BIAS, channels, channels, where=name)
        other, between = _norm_before(source)
        if other in names:
            how = f"only {' and '.join(between)} between" if between else "nothing between"
            yield Hazard(
                "norm-after-norm",
                f"it follows the batch-norm {names[other]} with {how}: what reaches it is "
                "normalised already, and no weights stand between that could have shifted it. "
                "One of the two is enough: leave the other out in the next training.",
                channels,
                channels,
                where=name,
            )


def _biased(source: ir.Value) -> bool:
    """Whether a constant that is not 0 is added to each channel, directly before."""
    node = source.producer()
    index = BIASES.get(node.op_type) if node is not None else None
    if node is None or index is None or node.domain != "":
        return False
    operands: list[ir.Value | None] = list(node.inputs)
    if node.op_type == "Add":
        made = [v.producer() if v is not None else None for v in operands]
        if source.shape is None or len(source.shape) != 2:
            return False  # the bias lies on the last axis, the channels of the norm on axis 1
        if not any(n is not None and n.op_type == "MatMul" for n in made):
            return False
        operands = [v for v, n in zip(operands, made, strict=True) if n is None or _constant(v)]
        index = 0
    value = operands[index] if len(operands) > index else None
    tensor = _constant(value)
    return tensor is not None and bool(np.any(tensor.numpy()))


def _norm_before(value: ir.Value) -> tuple[ir.Node | None, list[str]]:
    """The batch-norm that only activations separate from here, and these activations."""
    between: list[str] = []
    node = value.producer()
    while node is not None and node.domain == "" and node.op_type in ACTIVATIONS:
        if node.op_type not in {"Identity", "Dropout"}:
            between.insert(0, node.op_type)
        source = node.inputs[0]
        if source is None or len(source.uses()) != 1:
            return None, []
        node = source.producer()
    found = node is not None and node.op_type == "BatchNormalization"
    return (node if found else None), between


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    return None if value is None else ir.convenience.get_const_tensor(value)


def _channels(norm: ir.Node) -> int:
    for value in norm.inputs[1:5]:
        if value is not None and value.shape is not None and len(value.shape) == 1:
            size = value.shape[0]
            return size if isinstance(size, int) else 0
    return 0
