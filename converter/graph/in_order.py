"""Passes one after the other."""

from __future__ import annotations

import onnx_ir as ir


class InOrder(ir.passes.Sequential):
    """Like `ir.passes.Sequential`, but exceptions of a pass are not wrapped.

    `Sequential` turns every exception into a PassError, and a `UserError` (memory ran out, a file
    of weights is gone) would no longer be a message for the user.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for step in self.passes:
            result = step(model)
            model, modified = result.model, modified or result.modified
        return ir.passes.PassResult(model, modified)
