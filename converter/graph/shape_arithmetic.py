"""Sizes that a graph computes but that are known: a Reshape to (Shape(x)[0], 3 * 64).

Exporters write x.reshape(x.shape[0], -1) as Shape, Slice, Concat and more, even where all sizes but
the batch are known. Here such arithmetic is done on sizes that are numbers or names of axes, and
the Reshape gets a constant: (-1, 192), where at most one size has no number (`fix_reshapes`), or
only the shape that it makes is told (`tell_reshapes`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

Size = int | str | None  # a number, the name of an axis, or not known
Sizes = list[Size]

_SAME = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # of one axis or none
_DEEPEST = 32


def fix_reshapes(model: ir.Model) -> None:
    """Give each Reshape a constant shape where its sizes are known, in place."""
    graph = model.graph
    for node in tuple(graph):
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
        target = np.array([s if isinstance(s, int) else -1 for s in sizes], np.int64)
        node.replace_input_with(1, _initializer(graph, f"{node.outputs[0].name}_shape", target))
        out = node.outputs[0]
        out.shape = ir.Shape(sizes)


def tell_reshapes(model: ir.Model) -> bool:
    """Annotate the results of Reshapes whose sizes are computed but known, in place; True if there
    was something to tell. -1 is what remains of the input: (N, 8, 5, 5) as (N, -1) is (N, 200)."""
    told = False
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type != "Reshape" or node.domain != "" or len(node.inputs) < 2:
            continue
        source, out = node.inputs[0], node.outputs[0]
        if source is None or source.shape is None or _constant(node.inputs[1]) is not None:
            continue
        made = _made([_size(dim) for dim in source.shape], sizes_of(node.inputs[1]))
        if made is None or (out.shape is not None and len(out.shape) != len(made)):
            continue
        known = [None] * len(made) if out.shape is None else [_size(dim) for dim in out.shape]
        better = [
            old if isinstance(old, int) else new for old, new in zip(known, made, strict=True)
        ]
        if better != known:
            out.shape = ir.Shape(better)
            told = True
    return told


def _made(old: Sizes, target: Sizes | None) -> Sizes | None:
    """The shape that Reshape makes of `old`; None if a size of it cannot be told.

    A size of 0 is not decided on: it copies one, or is one, as `allowzero` says (Reshape-14).
    """
    if target is None or None in target or 0 in target or target.count(-1) > 1:
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


def _size(dim: int | ir.SymbolicDim) -> Size:
    return dim if isinstance(dim, int) else dim.value


def sizes_of(value: ir.Value | None, depth: int = 0) -> Sizes | None:
    """The elements of a tensor of sizes (rank 0 or 1); None when it is something else."""
    if value is None or depth > _DEEPEST:
        return None
    constant = _constant(value)
    if constant is not None:
        return list(constant)
    node = value.producer()
    if node is None or node.domain != "":
        return None
    if node.op_type in _SAME:
        return sizes_of(node.inputs[0], depth + 1)
    rule = _RULES.get(node.op_type)
    return rule(node, depth + 1) if rule else None


def _constant(value: ir.Value | None) -> list[int] | None:
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    if value.const_value.size > 64 or not value.const_value.dtype.is_integer():
        return None
    array = value.const_value.numpy()
    return [int(x) for x in array.reshape(-1)] if array.ndim <= 1 else None


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _shape(node: ir.Node, _depth: int) -> Sizes | None:
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    dims: Sizes = [d if isinstance(d, int) else d.value for d in source.shape]
    start = _int(node, "start", 0)
    end = node.attributes.get("end")
    return dims[start : end.as_int() if end else len(dims)]


def _slice(node: ir.Node, depth: int) -> Sizes | None:
    data = sizes_of(node.inputs[0], depth)
    if len(node.inputs) < 3:  # before opset 10 they were attributes
        given = [node.attributes.get_ints(name, None) for name in ("starts", "ends")]
        bounds = [None if bound is None else list(bound) for bound in given]
    else:
        bounds = [_constant(value) for value in node.inputs[1:3]]
    steps = _constant(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if data is None or steps != [1]:
        return None
    if any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    start, end = (bound[0] for bound in bounds if bound is not None)
    return data[start:end]


def _gather(node: ir.Node, depth: int) -> Sizes | None:
    data, indices = sizes_of(node.inputs[0], depth), _constant(node.inputs[1])
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

    def times(a: Size, b: Size) -> Size:
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


def _initializer(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.initializers.add(value)
    return value
