"""The ops that take up a map y = a*x + b: one file per op, or per family with the same rule.

Each file states the formula that it relies on, and defines

* `backward(node, affine, view)`: when the op takes up a map that acts on its output;
* `forward(node, index, affine, view)`: when it takes up one that acts on its input `index`;
* `AFTER` and `BEFORE`: how its constants then change, in float64, and by how much it grows.

A rule returns a `Step`, whose edits carry `AFTER` or `BEFORE`, or a `Refusal`. To add an op, add a
file and its name below, and a case for it in `tests/converter/folding/test_ops.py` and
`test_forward.py`, which run every entry; CONTRIBUTING.md shows it with an example.
"""

from __future__ import annotations

from converter.folding.ops import (
    add,
    batchnorm,
    clipping,
    conv,
    conv_transpose,
    einsum,
    gather,
    gemm,
    matmul,
    mul,
    normalization,
    recurrent,
)
from converter.folding.step import ForwardRule, Rule

_FILES = (
    conv,
    conv_transpose,
    gemm,
    matmul,
    einsum,
    gather,
    recurrent,
    batchnorm,
    normalization,
    add,
    mul,
    clipping,
)

BACKWARD: dict[str, Rule] = {op: rule for file in _FILES for op, rule in file.BACKWARD.items()}
FORWARD: dict[str, ForwardRule] = {op: rule for file in _FILES for op, rule in file.FORWARD.items()}

THROUGH_RELU_BACKWARD = clipping.THROUGH_RELU_BACKWARD
THROUGH_RELU_FORWARD = clipping.THROUGH_RELU_FORWARD
WHY_NOT = normalization.WHY_NOT

__all__ = ["BACKWARD", "FORWARD", "THROUGH_RELU_BACKWARD", "THROUGH_RELU_FORWARD", "WHY_NOT"]
