"""Constants of as many numbers as sizes say, each of which is always the same in its place.

`origins.py` knows those of ops that work number by number; here are those that need to know how
long axes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from converter.certificate.axes import Symbols
from converter.certificate.forms import Known, Value


def in_their_places(
    symbols: Symbols, node: ir.Node, values: Sequence[Value], results: Sequence[Value]
) -> Sequence[Value]:
    """The results of a node that reads constants alone, with what is known of them."""
    holds = _HOLDS.get(node.op_type)
    made = results[0] if results else None
    if holds is None or not isinstance(made, Known) or made.sized is None or made.sized.plain:
        return results
    if not holds(symbols, node, values):
        return results
    return [replace(made, sized=replace(made.sized, plain=True)), *results[1:]]


def _side_by_side(symbols: Symbols, node: ir.Node, values: Sequence[Value]) -> bool:
    """Joined: if those before them are always as many."""
    for place, (name, value) in enumerate(zip(node.inputs, values, strict=True)):
        if not isinstance(value, Known) or value.sized is None:
            continue
        axis = node.attributes.get_int("axis", 0) % len(value.shape)
        size = symbols.of(name, len(value.shape))[axis]
        last = place == len(values) - 1
        if not value.sized.plain or not (last or isinstance(size, int)):
            return False
    return True


def _rows(symbols: Symbols, node: ir.Node, values: Sequence[Value]) -> bool:
    """Each row times a matrix, if a row is always as long and the matrix is no matter of sizes."""
    x, *others = values
    if not isinstance(x, Known) or x.sized is None or not x.sized.plain or len(x.shape) != 2:
        return False
    length = symbols.of(node.inputs[0], 2)[1]
    if node.attributes.get_int("transA", 0) or not isinstance(length, int):
        return False
    matrices = all(isinstance(v, Known) and v.sized is None and len(v.shape) <= 2 for v in others)
    return matrices and (len(others) < 2 or _one_row(others[1]))


def _one_row(bias: Value) -> bool:
    """Whether every row has the same added to it, so that there may be any number of them."""
    return isinstance(bias, Known) and (len(bias.shape) < 2 or bias.shape[0] == 1)


_HOLDS: dict[str, Callable[[Symbols, ir.Node, Sequence[Value]], bool]] = {
    "Concat": _side_by_side,
    "Gemm": _rows,
    "MatMul": _rows,
}
