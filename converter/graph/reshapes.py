"""Reshapes to sizes that a graph computes but that are known (`shape_arithmetic.py`)."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from converter.graph.building import Builder
from converter.graph.shape_arithmetic import Sizes, constant_sizes, sizes_of
from converter.graph.values import Dim


class FixReshapesPass(ir.passes.InPlacePass):
    """Give each Reshape of the model's graph a constant shape, -1 for a size without a number.

    1. The shape is computed, and all sizes except at most one are numbers.
    2. None of them is 0 or -1: their meaning depends on `allowzero` and on the input.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified, builder = False, Builder(model)
        for node in model.graph:
            if node.op_type != "Reshape" or node.domain != "":
                continue
            operand = node.inputs[1]
            if operand is None or operand.is_initializer():
                continue
            sizes = sizes_of(operand)
            if sizes is None:
                continue
            numbers = [size for size in sizes if isinstance(size, int)]
            if len(sizes) - len(numbers) > 1 or any(n < 1 for n in numbers):
                continue
            out = node.outputs[0]
            target = np.array([s if isinstance(s, int) else -1 for s in sizes], np.int64)
            shape = builder.constant(model.graph, f"{out.name}_shape", target)
            node.replace_input_with(1, shape)
            out.shape = ir.Shape(sizes)
            modified = True
        return ir.passes.PassResult(model, modified)


class TellReshapesPass(ir.passes.InPlacePass):
    """Annotate the results of Reshapes whose sizes are computed but known; nothing else changes.

    1. Each size is a number, the name of an axis, or one -1, which is what remains of the input:
       (N, 8, 5, 5) as (N, -1) is (N, 200).
    2. A size of 0 is left open: `allowzero` says whether it copies a size (Reshape-14).
    3. A number that the annotation has already stays, and so does its rank.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        told = False
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.op_type != "Reshape" or node.domain != "" or len(node.inputs) < 2:
                continue
            source, out = node.inputs[0], node.outputs[0]
            if source is None or source.shape is None or constant_sizes(node.inputs[1]) is not None:
                continue
            made = _made([_size(dim) for dim in source.shape], sizes_of(node.inputs[1]))
            if made is None or (out.shape is not None and len(out.shape) != len(made)):
                continue
            known = [None] * len(made) if out.shape is None else [_size(dim) for dim in out.shape]
            better = [
                old if isinstance(old, int) else new  # (3)
                for old, new in zip(known, made, strict=True)
            ]
            if better != known:
                out.shape = ir.Shape(better)
                told = True
        return ir.passes.PassResult(model, told)


def _made(old: Sizes, target: Sizes | None) -> Sizes | None:
    """The shape that Reshape gives to `old`; None if a size of it is not known."""
    if target is None or None in target or 0 in target or target.count(-1) > 1:  # (1), (2)
        return None
    if -1 not in target:
        return target
    names = [size for size in old if not isinstance(size, int)]
    for size in target:
        if not isinstance(size, int):
            if size not in names:
                return None
            names.remove(size)
    whole = prod(size for size in old if isinstance(size, int))
    part = prod(size for size in target if isinstance(size, int) and size != -1)
    if names or not whole or whole % part:
        return None
    return [whole // part if size == -1 else size for size in target]


def _size(dim: int | ir.SymbolicDim) -> Dim:
    return dim if isinstance(dim, int) else dim.value
