"""Remove what nothing reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


class DropEmptyOutputsPass(ir.passes.InPlacePass):
    """Remove a node's last outputs if they have no name.

    Such outputs count as absent (onnx/docs/IR.md, "Optional Inputs and Outputs"), so it is legal
    for every model; given a name, they would put a batch-norm of before opset 14 into training.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            wanted = [place for place, value in enumerate(node.outputs, 1) if value.name]
            if wanted and wanted[-1] < len(node.outputs):
                node.resize_outputs(wanted[-1])
                modified = True
        return ir.passes.PassResult(model, modified)


class DropUnusedPass(ir.passes.FunctionalPass):
    """Remove nodes and initializers that nothing reads, or that only removed bodies read.

    In onnx_ir the nodes of a removed body still count as readers of what they captured; a clone has
    only the actual readers. So the pass is repeated on clones until nothing more is removed.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        while True:
            model = model.clone()
            if not common.RemoveUnusedNodesPass()(model).modified:
                return ir.passes.PassResult(model, modified)
            modified = True
