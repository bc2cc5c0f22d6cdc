"""Pad with amounts of either sign: a negative amount crops (ONNX Pad-2/11/13/18/19).

onnx's reference evaluator does not support negative amounts; networks that shift an image by one
pixel (NASNet, PNASNet) have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
_Mode = Literal["constant", "reflect", "edge", "wrap"]
_MODES: dict[str, _Mode] = {
    "constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap",
}  # fmt: skip


def pad(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """What is cut off goes first, then the rest is padded."""
    x = inputs[0]
    mode = _MODES.get(node.attributes.get_string("mode", "constant"))
    widths = None if x is None else _widths(node, x.ndim, inputs)
    if x is None or mode is None or widths is None:
        return None
    inner = zip(widths, x.shape, strict=True)
    kept = x[tuple(slice(max(0, -begin), size - max(0, -end)) for (begin, end), size in inner)]
    more = [(max(0, begin), max(0, end)) for begin, end in widths]
    if mode != "constant":
        return (np.pad(kept, more, mode=mode),)
    return (np.pad(kept, more, mode="constant", constant_values=_value(node, inputs)),)


def _widths(
    node: ir.Node, rank: int, inputs: Sequence[Array | None]
) -> list[tuple[int, int]] | None:
    """(begin, end) of every axis: an attribute before opset 11, an input since."""
    held = node.attributes.get_ints("pads", None)
    given = inputs[1] if len(inputs) > 1 else None
    if held is not None:
        amounts = list(held)
    elif given is not None:
        amounts = [int(amount) for amount in given.ravel()]
    else:
        return None
    named = inputs[3] if len(inputs) > 3 else None
    axes = list(range(rank)) if named is None else [int(axis) % rank for axis in named.ravel()]
    if len(amounts) != 2 * len(axes):
        return None
    widths = [(0, 0)] * rank
    for place, axis in enumerate(axes):
        widths[axis] = (amounts[place], amounts[len(axes) + place])
    return widths


def _value(node: ir.Node, inputs: Sequence[Array | None]) -> Any:
    """The number to fill in: an attribute before opset 11, an input since; 0 if not given."""
    held = node.attributes.get_float("value", None)
    if held is not None:
        return held
    given = inputs[2] if len(inputs) > 2 else None
    return 0 if given is None or not given.size else given.ravel()[0]
