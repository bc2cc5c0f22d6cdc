"""Which axes an op's results have, where onnx does not infer it from names.

What a rule says holds at every size at which the graph can be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from converter.certificate import polynomials
from converter.certificate.context import attributes
from converter.certificate.forms import Form, Known, Value
from converter.certificate.quantities import Axis, Quantities
from converter.certificate.rearranging import given, slices

# Of each axis of a value.
Axes = tuple[Axis, ...]
# Of a value that a node reads.
Of = Callable[[int], Axes]
# The axes of the first result; None if nothing is known of them.
Rule = Callable[[Quantities, ir.Node, Sequence[Value], Of, int], Axes | None]

_END = 2**31 - 1  # bounds of a Slice from here on mean the end


def reshaped(
    quantities: Quantities, node: ir.Node, values: Sequence[Value], of: Of, _: int
) -> Axes | None:
    """With -1: what is left of the axes of the input when those of the result are taken away."""
    there = of(0)
    if len(values) > 1:
        target = quantities.meaning(values[1])
    else:
        target = list(node.attributes.get_ints("shape", ()))
    if target is None:
        return None
    copied: set[int] = set()
    if not node.attributes.get_int("allowzero", 0):
        copied = {i for i, n in enumerate(target) if n == 0 and i < len(there)}
    made = [there[i] if i in copied else n for i, n in enumerate(target)]
    if -1 in target:
        # An axis that is copied is taken away from both, whatever it is.
        whole = quantities.product([n for i, n in enumerate(there) if i not in copied])
        part = quantities.product([n for i, n in enumerate(target) if n != -1 and i not in copied])
        rest = None
        if whole is not None and part is not None:
            rest = quantities.axis(polynomials.quotient(whole, part))
        made[target.index(-1)] = rest
    return tuple(made)


def cut(_: Quantities, node: ir.Node, values: Sequence[Value], of: Of, opset: int) -> Axes | None:
    """What constant bounds cut out of an axis lies within it, so it is always as long."""
    x = values[0]
    assert isinstance(x, Form)
    found = list(of(0))
    attrs = attributes(node, opset)
    sized = [isinstance(value, Known) and value.sized is not None for value in values]
    if any(sized):
        # Of the axes that it cuts nothing is known.
        axes = None if sized[3:4] == [True] else given(values, 3, attrs, "axes")
        for axis in range(x.rank) if axes is None else axes:
            found[axis] = None
        return tuple(found)
    parts = slices(values, attrs, x.shape)[0]
    starts, ends = given(values, 1, attrs, "starts"), given(values, 2, attrs, "ends")
    if starts is None or ends is None:
        return None
    chosen = given(values, 3, attrs, "axes") or range(len(starts))
    for start, end, axis in zip(starts, ends, chosen, strict=True):
        axis %= x.rank
        size = x.shape[axis]
        outside = any(size < abs(bound) < _END for bound in (start, end))
        from_begin = 0 <= start < _END, 0 <= end < _END or end <= -_END
        if isinstance(found[axis], int) or (from_begin[0] == from_begin[1] and not outside):
            found[axis] = len(range(size)[parts[axis]])
        elif outside or start != 0 or end < _END or parts[axis].step != 1:
            found[axis] = None
    return tuple(found)


def padded(
    quantities: Quantities, node: ir.Node, values: Sequence[Value], of: Of, _: int
) -> Axes | None:
    """Each axis with what is put before and behind it."""
    there = of(0)
    if len(values) > 3 and values[3] is not None:
        return None  # only some axes
    if len(values) > 1:
        pads = quantities.meaning(values[1])
    else:
        pads = list(node.attributes.get_ints("pads", ()))
    if pads is None or len(pads) != 2 * len(there):
        return None
    return tuple(
        quantities.added([axis, begin, end])
        for axis, begin, end in zip(there, pads, pads[len(there) :], strict=False)
    )


def squeezed(
    _: Quantities, node: ir.Node, values: Sequence[Value], of: Of, opset: int
) -> Axes | None:
    """Without axes: those that are not 1 here. Where another one is 1 it has fewer axes."""
    x = values[0]
    assert isinstance(x, Form)
    if len(values) > 1 and not (isinstance(values[1], Known) and values[1].sized is None):
        return None
    axes = given(values, 1, attributes(node, opset), "axes")
    if axes is None:
        return tuple(axis for axis, size in zip(of(0), x.shape, strict=True) if size != 1)
    left_out = {axis % x.rank for axis in axes}
    return tuple(axis for place, axis in enumerate(of(0)) if place not in left_out)


def tiled(
    quantities: Quantities, _: ir.Node, values: Sequence[Value], of: Of, __: int
) -> Axes | None:
    there = of(0)
    meant = quantities.meaning(values[1])
    if meant is None or len(meant) != len(there):
        return None
    pairs = zip(there, meant, strict=True)
    return tuple(quantities.axis(quantities.product(pair)) for pair in pairs)


def expanded(
    quantities: Quantities, _: ir.Node, values: Sequence[Value], of: Of, __: int
) -> Axes | None:
    there = of(0)
    meant = quantities.meaning(values[1])
    if meant is None:
        return None
    rank = max(len(there), len(meant))
    there = (*(1,) * (rank - len(there)), *there)
    meant = [*(1,) * (rank - len(meant)), *meant]
    return tuple(
        one if other == 1 or one == other else other if one == 1 else None
        for one, other in zip(there, meant, strict=True)
    )


def resized(
    quantities: Quantities, node: ir.Node, values: Sequence[Value], of: Of, _: int
) -> Axes | None:
    """By sizes, or by numbers that they are multiplied with; by 1 they stay what they are."""
    if "axes" in node.attributes or len(values) < 3:
        return None
    if len(values) > 3:
        if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
            return None
        meant = quantities.meaning(values[3])
        return None if meant is None else tuple(meant)
    x, scales = values[0], values[2]
    assert isinstance(x, Form)
    if not isinstance(scales, Known) or scales.sized is not None or scales.size != x.rank:
        return None
    return tuple(
        axis if scale == 1 else int(axis * scale) if isinstance(axis, int) else None
        for axis, scale in zip(of(0), scales.array.reshape(-1).tolist(), strict=True)
    )


# What onnx infers where the rule says nothing.
INFERRED = frozenset({"Pad", "Squeeze", "Resize"})
# Those whose first input may be a constant, too.
MAY_BE_CONSTANT = frozenset({"Tile", "Expand"})
RULES: dict[str, Rule] = {
    "Reshape": reshaped,
    "Slice": cut,
    "Pad": padded,
    "Resize": resized,
    "Squeeze": squeezed,
    "Tile": tiled,
    "Expand": expanded,
}
