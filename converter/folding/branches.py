"""Parallel linear branches that are summed become one op.

    sum_i (W_i * x + b_i)  =  (sum_i W_i) * x + sum_i b_i

A 3x3 convolution, a 1x1 one and a batch-norm on the same input, added, are one 3x3
convolution: the small kernel is laid into the large one where it is aligned, a batch-norm on
x itself is the diagonal kernel a[c] with bias b[c], and x itself that of ones (Ding et al.,
RepVGG, CVPR 2021, arXiv 2101.03697, section 3.3). Nothing here knows a model.

Branches are merged when

1. they are convolutions with constant weights, batch-norms with a fixed map, or x itself;
2. all read the same value x, and the sum alone reads each of them;
3. stride, group and output channels are equal, both leave the same size, and every tap of the
   small kernel falls on one of the large kernel, so that the merged convolution costs no more
   than the large one did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.naming import label
from converter.folding.sites import Site
from converter.folding.view import View


@dataclass(frozen=True)
class Geometry:
    """What a convolution does with positions; one entry for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    group: int

    @property
    def growth(self) -> tuple[int, ...]:
        """How much larger the padded input is than what the kernel reaches, for stride 1."""
        reach = ((k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True))
        return tuple(b + e - r for b, e, r in zip(self.begin, self.end, reach, strict=True))

    def taps_in(self, large: Geometry) -> tuple[tuple[int, int], ...] | None:
        """(offset, step) on each axis of `large`'s kernel at which this kernel's taps lie.

        Tap u reads position stride*i - begin + dilation*u.
        """
        if self.stride != large.stride or self.growth != large.growth:
            return None
        found = []
        for axis, taps in enumerate(self.kernel):
            ahead = large.begin[axis] - self.begin[axis]
            step, rest = divmod(self.dilation[axis], large.dilation[axis])
            offset, odd = divmod(ahead, large.dilation[axis])
            if taps == 1:
                step, rest = 1, 0
            if rest or odd or offset < 0 or offset + (taps - 1) * step >= large.kernel[axis]:
                return None
            found.append((offset, step))
        return tuple(found)

    def identity(self) -> Geometry:
        """The 1x1 convolution that copies its input, with as many axes and groups as this."""
        ones, zeros = (1,) * len(self.kernel), (0,) * len(self.kernel)
        return Geometry(ones, ones, ones, zeros, zeros, self.group)


@dataclass(frozen=True, eq=False)
class Branch:
    """One summand that is taken up by the target of a merge.

    Attributes:
        name: for the report ("Conv block.rbr_1x1", "the identity").
        taps: where its kernel lies in the target's, see `Geometry.taps_in`.
        node: its Conv, or its batch-norm; None for x itself.
        affine: the map of a batch-norm or of x itself; None for a Conv.
    """

    name: str
    taps: tuple[tuple[int, int], ...]
    node: ir.Node | None = None
    affine: Affine | None = None


@dataclass(frozen=True, eq=False)
class Merge:
    """Summands that become one convolution.

    Attributes:
        name: the target, for the report.
        target: the convolution with the largest kernel, which stays.
        branches: the summands that go.
        source: x, the value that all of them read.
        sums: the Add nodes of the sum, some of which go.
    """

    name: str
    target: ir.Node
    branches: tuple[Branch, ...]
    source: ir.Value
    sums: frozenset[ir.Node]


def find_merges(graph: ir.Graph, sites: Mapping[ir.Node, Site], view: View) -> list[Merge]:
    """All merges of one graph. `view` looks through the batch-norms that are folded already."""
    found: list[Merge] = []
    for node in graph:
        if _is_add(node) and not _inside_a_sum(node, view):
            sums, leaves = _sum(node, view)
            found += _merges_of(sums, leaves, sites, view)
    return found


def _is_add(node: ir.Node | None) -> bool:
    return (
        node is not None and node.op_type == "Add" and node.domain == "" and len(node.inputs) == 2
    )


def _inside_a_sum(node: ir.Node, view: View) -> bool:
    readers = view.readers(node.outputs[0])
    return len(readers) == 1 and _is_add(readers[0]) and _private(node.outputs[0], view)


def _private(value: ir.Value, view: View) -> bool:
    """Whether one node of the same graph alone sees the value."""
    readers = view.readers(value)
    producer = view.producer(value)
    return (
        len(readers) == 1
        and not view.is_graph_output(value)
        and producer is not None
        and readers[0].graph is producer.graph
    )


def _sum(root: ir.Node, view: View) -> tuple[frozenset[ir.Node], list[ir.Value]]:
    """The Adds of a sum and its summands, in order."""
    sums, leaves, waiting = {root}, list[ir.Value](), list(root.inputs)
    while waiting:
        value = waiting.pop(0)
        if value is None:
            continue
        producer = view.producer(value)
        if producer is not None and _is_add(producer) and _private(value, view):
            sums.add(producer)
            waiting = [*producer.inputs, *waiting]
        else:
            leaves.append(value)
    return frozenset(sums), leaves


def _merges_of(
    sums: frozenset[ir.Node],
    leaves: list[ir.Value],
    sites: Mapping[ir.Node, Site],
    view: View,
) -> Iterator[Merge]:
    """Group the convolutions among the summands by what they read, then merge each group."""
    groups: dict[ir.Value, list[ir.Node]] = {}
    for value in leaves:
        node = view.producer(value)
        if node is not None and _private(value, view) and geometry(node, view) is not None:
            source = node.inputs[0]
            assert source is not None
            groups.setdefault(view.origin(source), []).append(node)
    for source, convolutions in groups.items():
        target = max(convolutions, key=_taps)
        branches = [
            branch
            for branch in _branches(source, convolutions, target, leaves, sites, view)
            if branch is not None
        ]
        if branches:
            yield Merge(label(target), target, tuple(branches), source, sums)


def _branches(
    source: ir.Value,
    convolutions: list[ir.Node],
    target: ir.Node,
    leaves: list[ir.Value],
    sites: Mapping[ir.Node, Site],
    view: View,
) -> Iterator[Branch | None]:
    large = geometry(target, view)
    assert large is not None
    for node in convolutions:
        small = geometry(node, view)
        if node is target or small is None or small.group != large.group:
            continue
        if channels(node) == channels(target):
            taps = small.taps_in(large)
            yield None if taps is None else Branch(label(node), taps, node)
    inputs, outputs = channels(target)
    taps = large.identity().taps_in(large)
    if taps is None or inputs != outputs:
        return
    for value in leaves:
        norm = view.producer(value)
        if view.origin(value) is source:
            yield Branch("the identity", taps, affine=_one(outputs))
        elif norm is not None and norm in sites and _private(value, view):
            site = sites[norm]
            read = site.source
            if (
                isinstance(site.affine, Affine)
                and not view.is_folded(norm)
                and read is not None
                and view.origin(read) is source
                and site.affine.channels == outputs
            ):
                yield Branch(f"batch-norm {site.name}", taps, norm, site.affine)


def _one(size: int) -> Affine:
    return Affine(np.ones(size), np.zeros(size), 1)


def _taps(node: ir.Node) -> int:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return prod(weight.const_value.shape.numpy()[2:])


def channels(node: ir.Node) -> tuple[int, int]:
    """(Cin, Cout) of a convolution with constant weights."""
    weight, group = node.inputs[1], node.attributes.get("group")
    assert weight is not None
    assert weight.const_value is not None
    outputs, inputs, *_ = weight.const_value.shape.numpy()
    return inputs * (1 if group is None else group.as_int()), outputs


def geometry(node: ir.Node, view: View) -> Geometry | None:
    """A Conv's geometry, None if the node is no Conv with constant weights and fixed pads."""
    if node.op_type != "Conv" or node.domain != "":
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if view.why_not_constant(node.inputs[1], node, "weight") or (
        bias is not None and view.why_not_constant(bias, node, "bias")
    ):
        return None
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    kernel = tuple(weight.const_value.shape.numpy()[2:])
    axes = len(kernel)
    mode = node.attributes.get("auto_pad")
    padding = "NOTSET" if mode is None else mode.as_string()
    if padding not in {"NOTSET", "VALID"}:
        return None
    pads = _ints(node, "pads", (0,) * (2 * axes)) if padding == "NOTSET" else (0,) * (2 * axes)
    group = node.attributes.get("group")
    return Geometry(
        kernel,
        _ints(node, "strides", (1,) * axes),
        _ints(node, "dilations", (1,) * axes),
        pads[:axes],
        pads[axes:],
        1 if group is None else group.as_int(),
    )


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())
