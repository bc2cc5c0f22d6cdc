"""Sizes that a graph computes but that are known: a Reshape to (Shape(x)[0], 3 * 64).

Exporters write x.reshape(x.shape[0], -1) as Shape, Slice, Concat and more, even where all sizes but
the batch are known. Here such arithmetic is done on sizes that are numbers or names of axes; the
Reshapes are changed in `reshapes.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from converter.graph.values import Dim, is_constant

Sizes = list[Dim]

_SAME = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # of up to one axis
_DEEPEST = 32


def sizes_of(value: ir.Value | None, depth: int = 0) -> Sizes | None:
    """The elements of a tensor of sizes (rank 0 or 1); None when it is something else."""
    if value is None or depth > _DEEPEST:
        return None
    constant = constant_sizes(value)
    if constant is not None:
        return list(constant)
    node = value.producer()
    if node is None or node.domain != "":
        return None
    if node.op_type in _SAME:
        return sizes_of(node.inputs[0], depth + 1)
    rule = _RULES.get(node.op_type)
    return rule(node, depth + 1) if rule else None


def constant_sizes(value: ir.Value | None) -> list[int] | None:
    """The numbers of a constant that may be a list of sizes."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    if value.const_value.size > 64 or not value.const_value.dtype.is_integer():
        return None
    array = value.const_value.numpy()
    return [int(x) for x in array.reshape(-1)] if array.ndim <= 1 else None


def _shape(node: ir.Node, _depth: int) -> Sizes | None:
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    dims: Sizes = [d if isinstance(d, int) else d.value for d in source.shape]
    start = node.attributes.get_int("start", 0)
    return dims[start : node.attributes.get_int("end", len(dims))]


def _slice(node: ir.Node, depth: int) -> Sizes | None:
    data = sizes_of(node.inputs[0], depth)
    if len(node.inputs) < 3:  # before opset 10 they were attributes
        given = [node.attributes.get_ints(name, None) for name in ("starts", "ends")]
        bounds = [None if bound is None else list(bound) for bound in given]
    else:
        bounds = [constant_sizes(value) for value in node.inputs[1:3]]
    steps = constant_sizes(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if data is None or steps != [1]:
        return None
    if any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    start, end = (bound[0] for bound in bounds if bound is not None)
    return data[start:end]


def _gather(node: ir.Node, depth: int) -> Sizes | None:
    data, indices = sizes_of(node.inputs[0], depth), constant_sizes(node.inputs[1])
    if data is None or indices is None or any(not -len(data) <= i < len(data) for i in indices):
        return None
    return [data[i] for i in indices]


def _concat(node: ir.Node, depth: int) -> Sizes | None:
    parts = [sizes_of(value, depth) for value in node.inputs]
    return None if None in parts else [size for part in parts if part for size in part]


def _product(node: ir.Node, depth: int) -> Sizes | None:
    left, right = (sizes_of(value, depth) for value in node.inputs)
    if left is None or right is None or len(left) != len(right):
        return None

    def times(a: Dim, b: Dim) -> Dim:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        return b if a == 1 else a if b == 1 else None

    return [times(a, b) for a, b in zip(left, right, strict=True)]


_RULES: dict[str, Callable[[ir.Node, int], Sizes | None]] = {
    "Concat": _concat,
    "Gather": _gather,
    "Mul": _product,
    "Shape": _shape,
    "Slice": _slice,
}
