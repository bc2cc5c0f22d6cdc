"""The checker stands alone: no code of the folds, no runtime, no framework."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = ("converter.folding", "torch", "onnxruntime", "onnxscript", "keras")


def test_nothing_of_the_folds_is_imported_not_even_while_it_checks() -> None:
    script = f"""
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import onnx_ir as ir
from converter.certificate import certify
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8, 8])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
w = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w")
c = numpy_helper.from_array(np.ones((1, 4, 1, 1), np.float32), "c")
nodes = [helper.make_node("Sqrt", ["c"], ["d"]), helper.make_node("Conv", ["x", "w"], ["z"]),
         helper.make_node("Mul", ["z", "d"], ["y"])]
model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [w, c]),
                          opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
found = certify(ir.from_proto(model), ir.from_proto(model))
assert found, found
print(sorted(m for m in sys.modules if m.startswith({FORBIDDEN!r})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
