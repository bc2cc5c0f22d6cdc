"""Ops that move numbers between channels and positions, or repeat and pad them: DepthToSpace,
SpaceToDepth, Expand, Tile, Pad."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.values import numbers


def _repeated(affine: Affine, times: int, blocks: bool) -> Affine:
    """The map of each channel `times` times: one after the other, or block after block."""
    repeat = np.tile if blocks else np.repeat
    return Affine(repeat(affine.scale, times), repeat(affine.shift, times), affine.axis)


def _shared(affine: Affine, times: int, blocks: bool) -> Affine | None:
    """The inverse of `_repeated`; None if the copies of one channel have different maps."""
    channels = affine.channels // times
    one = affine.scale[:channels] if blocks else affine.scale[::times]
    two = affine.shift[:channels] if blocks else affine.shift[::times]
    found = Affine(one, two, affine.axis)
    again = _repeated(found, times, blocks)
    if again.channels != affine.channels:
        return None
    same = np.array_equal(again.scale, affine.scale) and np.array_equal(again.shift, affine.shift)
    return found if same else None


def _rearranged(node: ir.Node, affine: Affine, *, back: bool) -> Step | Refusal:
    """DepthToSpace takes its channel c from k*C + c (DCR) or c*n + k (CRD), for each of the n =
    blocksize^2 positions k; SpaceToDepth is the inverse of DCR."""
    if affine.axis != 1:
        return Refusal("wrong-axis", f"{label(node)} moves what lies on axis {affine.axis}.")
    times = node.attributes["blocksize"].as_int() ** 2
    blocks = node.attributes.get_string("mode", "DCR") == "DCR"
    deep = (node.op_type == "DepthToSpace") == back  # whether the other side has more channels
    found = _repeated(affine, times, blocks) if deep else _shared(affine, times, blocks)
    if found is None:
        return Refusal(
            "not-per-channel", f"through {label(node)}, the map would differ inside a channel."
        )
    text = f"passes {node.op_type}, {affine.channels} values as {found.channels}"
    return Step(text, onward=((0, found),))


def _rearrange(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """The map on the channels of x from which those of y come."""
    del view
    return _rearranged(node, affine, back=True)


def _rearrange_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """The map on the channels of y that come from those of x."""
    del index, view
    return _rearranged(node, affine, back=False)


def _expand(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """A repetition along other axes has the same map before and after."""
    source = node.inputs[0]
    shape = None if source is None else view.shape(source)
    found = on_operand(affine, shape, view.rank(node.outputs[0]))
    if found is None:
        return _channels_repeated(node)
    return Step(f"passes {node.op_type}", onward=((0, found),))


def _expand_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """As backward; if one channel becomes several, all of them have its map."""
    source = node.inputs[0]
    shape = None if source is None else view.shape(source)
    found = on_result(affine, shape, view.shape(node.outputs[0]))
    if found is None:
        return data_only(node, index) or _channels_repeated(node)
    return data_only(node, index) or Step(f"passes {node.op_type}", onward=((0, found),))


def _channels_repeated(node: ir.Node) -> Refusal:
    return Refusal(
        "unknown-shape", f"{label(node)} repeats the channels, or the shapes are not known."
    )


# --- Pad ----------------------------------------------------------------------------------


def _pad(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*Pad(x) + b = Pad(a*x + b) where a*v + b = v for the number v that it pads with: for
    v = 0 that is without a shift. With reflected, wrapped or repeated edges it always holds."""
    padding = _padding(node, affine.axis, view)
    if isinstance(padding, Refusal):
        return padding
    begin, end, elsewhere, filled = padding
    inner = slice(begin, affine.channels - end)
    outer = np.ones(affine.channels, dtype=bool)
    outer[inner] = False
    seen = outer if not elsewhere else np.ones_like(outer)
    if filled is not None and not _fixed(affine, filled)[seen].all():
        return _border(node, filled)
    found = Affine(affine.scale[inner], affine.shift[inner], affine.axis)
    return Step("passes Pad", onward=((0, found),))


def _pad_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """As backward; channels that the padding adds are new and keep the identity."""
    refusal = data_only(node, index)
    padding = refusal or _padding(node, affine.axis, view)
    if isinstance(padding, Refusal):
        return padding
    begin, end, elsewhere, filled = padding
    if filled is not None and elsewhere and not _fixed(affine, filled).all():
        return _border(node, filled)
    found = Affine(
        np.concatenate([np.ones(begin), affine.scale, np.ones(end)]),
        np.concatenate([np.zeros(begin), affine.shift, np.zeros(end)]),
        affine.axis,
    )
    return Step("passes Pad", onward=((0, found),))


def _fixed(affine: Affine, value: float) -> npt.NDArray[np.bool_]:
    """In which channels a*v + b = v."""
    with np.errstate(invalid="ignore"):
        return np.equal(affine.scale * value + affine.shift, value)


def _border(node: ir.Node, value: float) -> Refusal:
    return Refusal(
        "padding",
        f"{label(node)} pads with {value:g}, which the map would have to reach, too.",
    )


def _padding(node: ir.Node, axis: int, view: View) -> tuple[int, int, bool, float | None] | Refusal:
    """(begin, end) of `axis`, whether other axes are padded, and the number that is filled in;
    None for a mode that repeats existing numbers."""
    unknown = Refusal("unknown-shape", f"how much {label(node)} pads is not known.")
    source = node.inputs[0]
    rank = None if source is None else view.rank(source)
    pads, axes = _pads(node, rank or 0, view)
    if rank is None or pads is None or axes is None or len(pads) != 2 * len(axes):
        return unknown
    amount = {at % rank: (pads[i], pads[len(axes) + i]) for i, at in enumerate(axes)}
    begin, end = amount.pop(axis, (0, 0))
    mode = node.attributes.get_string("mode", "constant")
    if begin < 0 or end < 0 or (mode != "constant" and (begin or end)):
        return Refusal("wrong-axis", f"{label(node)} pads or crops the channels themselves.")
    elsewhere = any(size > 0 for pair in amount.values() for size in pair)
    if mode != "constant":
        return begin, end, elsewhere, None
    filled = node.attributes.get_float("value", 0.0)
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is not None:
        refusal = view.why_not_constant(given, node, "padding")
        if refusal:
            return refusal
        filled = float(numbers(given).ravel()[0])
    return begin, end, elsewhere, filled


def _pads(node: ir.Node, rank: int, view: View) -> tuple[list[int] | None, list[int] | None]:
    """The amounts and their axes: an attribute before opset 11, then a constant input."""
    held = node.attributes.get_ints("pads", None)
    if held is not None:
        return list(held), list(range(rank))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    if given is None or view.why_not_constant(given, node, "pads"):
        return None, None
    pads = [int(size) for size in numbers(given).ravel()]
    if axes is None:
        return pads, list(range(rank))
    if view.why_not_constant(axes, node, "axes"):
        return pads, None
    return pads, [int(axis) for axis in numbers(axes).ravel()]


BACKWARD: dict[str, Rule] = {
    "DepthToSpace": _rearrange,
    "SpaceToDepth": _rearrange,
    "Expand": _expand,
    "Tile": _expand,
    "Pad": _pad,
}
FORWARD: dict[str, ForwardRule] = {
    "DepthToSpace": _rearrange_forward,
    "SpaceToDepth": _rearrange_forward,
    "Expand": _expand_forward,
    "Tile": _expand_forward,
    "Pad": _pad_forward,
}
