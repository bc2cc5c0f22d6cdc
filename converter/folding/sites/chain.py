"""A chain of constant Mul, Add, Sub, Div and Neg nodes: together one map y = a*x + b.

Exporters write it for a FrozenBatchNorm (Mul, Add), for the batch-norms of Keras and TensorFlow
(Sub, Mul, Add), for Batch Renormalization in evaluation mode (Ioffe 2017, arXiv 1702.03275), for
a LayerScale (Touvron et al. 2021, arXiv 2103.17239, eq. 4: one Mul) and for an input that is
normalised (Sub, Div).

    x + c: (1, c)    x - c: (1, -c)    c - x: (-1, c)    x * c: (c, 0)    x / c: (1/c, 0)

A node belongs to the chain when its constant has one number, or one number per channel on the
axis of the chain, and does not enlarge the data; when it alone reads the node before it; and
when both come from the same module, so that two batch-norms in a row stay two.

These are not sites, because folding them gains nothing:

1. a chain that only shifts, or changes the sign: that is a bias;
2. the scale and shift that end a normalisation by computed statistics (LayerNorm, RMSNorm, weight
   norm): runtimes look for that pattern and replace it by one op.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.sites.site import Kind, Site
from converter.folding.view import View
from converter.graph.naming import class_name, module_name, scope
from converter.graph.rounding import Float64
from converter.graph.values import Dim, numbers

Pair = tuple[Float64, Float64]  # scale, shift

_BATCH_NORM = re.compile(r"batch_?(re_?)?norm|frozen|tracked.*norm", re.IGNORECASE)
_LAYER_NORM = re.compile(r"(layer|rms|group|response)_?norm", re.IGNORECASE)
_ROOTS = frozenset({"Sqrt", "Reciprocal", "Pow", "ReduceL2"})


def _mul(c: Float64, left: bool) -> Pair:
    """x*c = c*x + 0."""
    del left
    return c, np.zeros_like(c)


def _div(c: Float64, left: bool) -> Pair | None:
    """x/c = (1/c)*x + 0; c/x is not such a map."""
    return None if left else (1.0 / c, np.zeros_like(c))


def _add(c: Float64, left: bool) -> Pair:
    """x + c = 1*x + c."""
    del left
    return np.ones_like(c), c


def _sub(c: Float64, left: bool) -> Pair:
    """x - c = 1*x - c;  c - x = -1*x + c."""
    return (-np.ones_like(c), c) if left else (np.ones_like(c), -c)


_OPS: dict[str, Callable[[Float64, bool], Pair | None]] = {
    "Mul": _mul,
    "Div": _div,
    "Add": _add,
    "Sub": _sub,
}


@dataclass(frozen=True, eq=False)
class _Link:
    """One node of a chain; `axis` is None when its constant is one number."""

    node: ir.Node
    data: ir.Value
    scale: Float64
    shift: Float64
    axis: int | None


def chain_from(node: ir.Node, view: View) -> Site | None:
    """The site of the longest chain that starts with `node`, None if there is none."""
    first = _link(node, view)
    if first is None:
        return None
    links, axis = [first], first.axis
    while (following := _next(links[-1], view)) is not None:
        if following.axis is not None and axis is not None and following.axis != axis:
            break
        axis = following.axis if axis is None else axis
        links.append(following)
    return _site(links, axis, view)


def _site(links: list[_Link], axis: int | None, view: View) -> Site | None:
    source = links[0].data
    channels = _channels(view.shape(source), axis)
    if channels is None or _normalises(links, view):
        return None
    size, place = channels
    affine = Affine(np.ones(size), np.zeros(size), place)
    for link in links:
        scale, shift = (np.resize(values, size) for values in (link.scale, link.shift))
        affine = affine.then(Affine(scale, shift, place))
    if np.all(np.abs(affine.scale) == 1.0) or not np.isfinite([affine.scale, affine.shift]).all():
        return None
    return Site(
        name=next(module_name(link.node) for link in links if np.any(link.scale != 1.0)),
        nodes=tuple(link.node for link in links),
        source=source,
        channels=size,
        affine=affine,
        kind=_kind(links, affine),
        uniform=axis is None,
    )


def _channels(shape: Sequence[Dim] | None, axis: int | None) -> tuple[int, int] | None:
    """(size, axis) of the channels; for a uniform map any axis of a fixed size will do."""
    fixed = {place: size for place, size in enumerate(shape or ()) if isinstance(size, int)}
    if axis is None:
        axis = 1 if 1 in fixed else max(fixed, default=None)
    size = 0 if axis is None else fixed.get(axis, 0)
    return (size, axis) if size and axis is not None else None


def _link(node: ir.Node, view: View) -> _Link | None:
    """The node as a link of a chain; None if it is not one."""
    if node.domain != "" or len(node.outputs) != 1:
        return None
    if node.op_type == "Neg" and node.inputs[0] is not None:
        return _Link(node, node.inputs[0], -np.ones(1), np.zeros(1), None)
    rule = _OPS.get(node.op_type)
    if rule is None or len(node.inputs) != 2:
        return None
    constant = [view.why_not_constant(value, node, "operand") is None for value in node.inputs]
    if constant.count(True) != 1:
        return None
    index = constant.index(True)
    held, data = node.inputs[index], node.inputs[1 - index]
    assert held is not None
    if data is None or held.dtype is None or not held.dtype.is_floating_point():
        return None
    axes = _axes(view, data, held)
    if axes is None or len(axes) > 1:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        pair = rule(numbers(held).ravel(), index == 0)
    return None if pair is None else _Link(node, data, *pair, axes[0] if axes else None)


def _axes(view: View, data: ir.Value, held: ir.Value) -> list[int] | None:
    """The axes of `data` along which a constant has more than one number; None if the constant
    would enlarge it, or may."""
    shape, sizes = view.shape(data), view.shape(held)
    if shape is None or sizes is None or len(sizes) > len(shape):
        return None
    more = len(shape) - len(sizes)
    wide = [place for place, size in enumerate(sizes) if size != 1]
    return [more + p for p in wide] if all(shape[more + p] == sizes[p] for p in wide) else None


def _next(link: _Link, view: View) -> _Link | None:
    result = link.node.outputs[0]
    readers = view.readers(result)
    if len(readers) != 1 or view.is_graph_output(result):
        return None
    node = readers[0]
    following = _link(node, view)
    if following is None or following.data is not result or node.graph is not link.node.graph:
        return None
    ours, theirs = scope(link.node), scope(node)
    return following if ours is None or theirs is None or ours == theirs else None


def _normalises(links: list[_Link], view: View) -> bool:
    """Whether it ends a normalisation by computed statistics: by its class, or behind
    x / sqrt(..) or x * (1 / sqrt(..)) with a computed root."""
    if any(_LAYER_NORM.search(class_name(link.node)) for link in links):
        return True
    node = view.producer(links[0].data)
    if node is None or node.op_type not in {"Div", "Mul"} or node.domain != "":
        return False
    makers = (view.producer(value) for value in node.inputs if value is not None)
    return any(maker is not None and maker.op_type in _ROOTS for maker in makers)


def _kind(links: list[_Link], affine: Affine) -> Kind:
    """The kind by the class of the module where the exporter notes it; otherwise a scale and a
    shift per channel, behind something computed, count as a batch-norm."""
    classes = " ".join(class_name(link.node) for link in links).strip()
    if classes:
        return "batch-norm" if _BATCH_NORM.search(classes) else "scale-shift"
    per_channel = any(link.axis is not None and np.any(link.scale != 1.0) for link in links)
    computed = links[0].data.producer() is not None
    return "batch-norm" if per_channel and affine.shifts and computed else "scale-shift"
