"""Passes one after the other."""

from __future__ import annotations

import onnx_ir as ir


class InOrder(ir.passes.Sequential):
    """As `ir.passes.Sequential`, but what a pass raises is raised as it is.

    That class makes a PassError of everything, and a `UserError` (memory has ended, a file of
    weights is gone) would no longer be a sentence for the user.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for step in self.passes:
            result = step(model)
            model, modified = result.model, modified or result.modified
        return ir.passes.PassResult(model, modified)
