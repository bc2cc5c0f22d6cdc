"""A merge: which summands become one op, its weights, and the rewritten sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.branches.matrices import Matrix
from converter.folding.branches.sums import Sum, Term, write_anew
from converter.folding.branches.windows import Window
from converter.folding.constants import Constants
from converter.folding.geometry import WHOLE, Place
from converter.folding.sites import Site
from converter.graph.values import numbers

Form = Window | Matrix


@dataclass(frozen=True, eq=False)
class Branch:
    """One summand that is taken up by the target of a merge.

    Attributes:
        name: for the report ("Conv block.rbr_1x1", "the identity").
        term: where it stands in the sum.
        form: its linear op, None for a constant.
        place: where its weight lies in the target's.
        site: the batch-norm, or other scale and shift, behind that op.
        affine: its map, on the channels of the target.
    """

    name: str
    term: Term
    form: Form | None = None
    place: Place = WHOLE
    site: Site | None = None
    affine: Affine | None = None

    @property
    def node(self) -> ir.Node | None:
        """Its linear op, None for x itself or a constant."""
        return None if self.form is None else self.form.node

    @property
    def formula(self) -> str:
        """What the target takes up, for the report."""
        if self.form is None:
            return "bias += c"
        if self.form.node is not None:
            return "W += W' at its taps, bias += b'" if self.place.taps else "W += W', bias += b'"
        centre = " at its centre" if self.place.taps else ""
        return f"W[c, c] += a[c]{centre}, bias += b"


@dataclass(frozen=True, eq=False)
class Merge:
    """Summands that become one op.

    Attributes:
        name: the target, for the report.
        target: the op that stays, with the largest kernel.
        form: its linear op.
        term: where it stands in the sum.
        branches: the summands that it takes up, which are removed.
        source: x, the value that all of them read.
        total: the sum.
    """

    name: str
    target: ir.Node
    form: Form
    term: Term
    branches: tuple[Branch, ...]
    source: ir.Value
    total: Sum

    @property
    def gone(self) -> frozenset[ir.Node]:
        """The nodes that are removed with their branches, without the nodes of the sum."""
        found = {branch.node for branch in self.branches if branch.node is not None}
        for branch in self.branches:
            found.update(() if branch.site is None else branch.site.nodes)
        return frozenset(found)


def merged(merge: Merge, folded: Callable[[ir.Node], Constants]) -> Constants:
    """The target's new constants, in float64; `folded` gives those of a node as it stands.

    sum_i s_i*(a_i*(W_i*x + b_i) + c_i), s_i being the signs; the target's sign becomes +.
    """
    target, form = folded(merge.target), merge.form
    if merge.term.sign < 0:
        form.negate(target)
    for branch in merge.branches:
        sign = branch.term.sign
        if branch.form is None:
            held = numbers(branch.term.value).ravel()
            if np.all(held == held[0]):
                held = held[:1]  # a uniform map that it took up may lie on any axis
            form.shift(target, sign * np.broadcast_to(held, (form.outputs,)))
            continue
        constants = None if branch.node is None else folded(branch.node)
        weight = branch.form.weight(constants)
        bias = branch.form.bias(constants)
        if branch.affine is not None:
            weight = branch.form.scaled(weight, branch.affine)
            bias = branch.affine.scale * (0.0 if bias is None else bias) + branch.affine.shift
        form.add(target, sign * weight, branch.place)
        if bias is not None:
            form.shift(target, sign * bias)
    return target


def rewire(merges: Iterable[Merge]) -> None:
    """Rewrite each sum without the branches that its targets have taken up."""
    totals: dict[Sum, list[Merge]] = {}
    for merge in merges:
        totals.setdefault(merge.total, []).append(merge)
    for total, parts in totals.items():
        gone = {branch.term for merge in parts for branch in merge.branches}
        values = [term.value for term in gone]
        write_anew(total, positive={merge.term for merge in parts}, gone=gone)
        for value in values:
            _drop(value)


def _drop(value: ir.Value) -> None:
    """Remove what computes `value`, if nothing reads it any more."""
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        if node is None or node.graph is None:
            continue
        if any(result.uses() or result.is_graph_output() for result in node.outputs):
            continue
        waiting += [source for source in node.inputs if source is not None]
        node.graph.remove(node, safe=True)
