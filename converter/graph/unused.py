"""What nothing reads goes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


class DropEmptyOutputsPass(ir.passes.InPlacePass):
    """Outputs without a name at a node's end go.

    They are as good as none (onnx/docs/IR.md, "Optional Inputs and Outputs"), so it is legal for
    every model; with a name, they would make a batch-norm of before opset 14 train.
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
    """Nodes and initializers go that nothing reads, also those that only bodies which go read.

    In onnx_ir the nodes of a body that is gone still count as readers of what they captured; a
    clone has only the readers that are there. So it is repeated on clones until nothing goes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        while True:
            model = model.clone()
            if not common.RemoveUnusedNodesPass()(model).modified:
                return ir.passes.PassResult(model, modified)
            modified = True
