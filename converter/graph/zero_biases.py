"""Remove biases of zeros, which have no effect and take the name that a fold's bias should get."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass
class ZeroBiasesDropped(ir.passes.PassResult):
    """The result of `DropZeroBiasesPass`; `misshapen`: how many had a shape no runtime accepts."""

    misshapen: int


class DropZeroBiasesPass(ir.passes.InPlacePass):
    """Remove biases that are all zeros from convolutions. A bias is removed if it is

    1. expanded: torch's exporter writes `Expand(CastLike(0, x), Shape(weight)[:1])` for a
       convolution without a bias,
    2. not a vector: for a 3-d convolution the exporter writes a shape of two axes,
       `Concat(Shape(weight)[:1], [2])`, where ONNX asks for (C_out,) (operators, Conv, input B);
       no runtime accepts that, so it can only mean the same convolution without a bias,
    3. any constant, with `constants`: Keras' exporter gives one to every convolution, also to a
       ConvTranspose.

    Args:
        constants: whether a plain constant of zeros is removed too.
    """

    def __init__(self, *, constants: bool = False) -> None:
        self._constants = constants
        self._ops = frozenset({"Conv", "ConvTranspose"} if constants else {"Conv"})

    def call(self, model: ir.Model) -> ZeroBiasesDropped:
        dropped = misshapen = 0
        for node in model.graph.all_nodes():
            if node.op_type not in self._ops or node.domain not in ("", "ai.onnx"):
                continue
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if bias is None or not self._may_go(bias) or not _zero(bias):
                continue
            dropped += 1
            misshapen += _misshapen(bias)
            node.resize_inputs(2)
        return ZeroBiasesDropped(model, bool(dropped), misshapen)

    def _may_go(self, bias: ir.Value) -> bool:
        plain = self._constants and bias.const_value is not None  # (3)
        return plain or _expanded(bias) or _misshapen(bias)


def _expanded(bias: ir.Value) -> bool:
    """(1)"""
    node = bias.producer()
    return node is not None and node.op_type == "Expand"


def _misshapen(bias: ir.Value) -> bool:
    """(2): a constant that is not a vector, or one expanded to two axes."""
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
