"""The form that a graph from a file is brought into: weights are constants, axes have names."""

from __future__ import annotations

import onnx_ir as ir

from converter.sources import inputs
from service.axes import is_symbol

# Before IR version 4 every initializer had to be listed as an input; since then, one that is
# listed is a default value that a caller may override. Source: onnx/docs/IR.md, "Graphs".
_OVERRIDABLE = 4
_OLDEST_IR = 8


class RaiseIrVersionPass(ir.passes.InPlacePass):
    """Give a model of an old IR version a newer one, in which its weights remain constants.

    1. Before version 4, weights had to be listed as inputs: they are removed from the inputs.
    2. Versions before 8 become 8.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = model.ir_version
        if before is None or before < _OVERRIDABLE:
            needed = inputs.required_inputs(model)
            model.graph.inputs.clear()
            model.graph.inputs.extend(needed)  # (1)
        if before is None or before < _OLDEST_IR:
            model.ir_version = _OLDEST_IR  # (2)
        return ir.passes.PassResult(model, model.ir_version != before)


class NameAxesPass(ir.passes.InPlacePass):
    """Give every axis of unknown size a name: -1, 0, "?" and nothing all mean "may vary" in files.

    1. Each axis of an input gets its own name; the first one is called batch.
    2. Elsewhere in the graph they become unknown: two sizes called "?" are not one size, and
       onnxruntime, which takes names at their word, would use one's memory for the other.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in model.graph.all_nodes():
            for value in node.outputs:
                if value.shape is not None and not all(map(_means_something, value.shape)):
                    value.shape = ir.Shape(
                        [dim if _means_something(dim) else None for dim in value.shape]  # (2)
                    )
                    modified = True
        for value in inputs.required_inputs(model):
            if value.shape is None:
                continue
            shape = ir.Shape([_named(value, *place) for place in enumerate(value.shape)])  # (1)
            modified |= value.shape != shape
            value.shape = shape
        return ir.passes.PassResult(model, modified)


def _named(value: ir.Value, axis: int, dim: int | ir.SymbolicDim) -> int | str:
    known = dim if isinstance(dim, int) else dim.value
    if known is None or (known <= 0 if isinstance(known, int) else not is_symbol(known)):
        return "batch" if axis == 0 else f"{value.name}_{axis}"
    return known


def _means_something(dim: int | ir.SymbolicDim) -> bool:
    return dim >= 0 if isinstance(dim, int) else dim.value is not None and is_symbol(dim.value)
