"""The zero bias that torch's exporter gives a convolution without a bias.

It writes `Expand(CastLike(0, x), Shape(weight)[:1])`, which says nothing and hides the layer's
name from a bias that a fold adds later. For a 3-d convolution it writes a shape of two axes,
`Concat(Shape(weight)[:1], [2])`, where ONNX asks for (C_out,) (operators, Conv, input B): no
runtime takes that, so it can only mean the same convolution without a bias.
"""

from __future__ import annotations

import onnx_ir as ir


def drop_zero_biases(model: ir.Model) -> int:
    """Take the biases of all zeros that are expanded, or no vector, from the convolutions.

    Returns:
        How many had a shape that no runtime takes.
    """
    misshapen = 0
    for node in model.graph.all_nodes():
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or len(node.inputs) < 3:
            continue
        bias = node.inputs[2]
        if bias is None or not (_expanded(bias) or _misshapen(bias)) or not _zero(bias):
            continue
        misshapen += _misshapen(bias)
        node.resize_inputs(2)
    return misshapen


def _expanded(bias: ir.Value) -> bool:
    node = bias.producer()
    return node is not None and node.op_type == "Expand"


def _misshapen(bias: ir.Value) -> bool:
    """A constant that is no vector, or one expanded to two axes."""
    if bias.const_value is not None:
        return len(bias.const_value.shape) != 1
    expand = bias.producer()
    if expand is None or expand.op_type != "Expand" or expand.inputs[1] is None:
        return False
    sizes = expand.inputs[1].producer()
    return sizes is not None and sizes.op_type == "Concat" and len(sizes.inputs) == 2


def _zero(bias: ir.Value) -> bool:
    value: ir.Value | None = bias
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in ("Expand", "CastLike"):
            break
        value = node.inputs[0]
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return constant is not None and not constant.numpy().any()
