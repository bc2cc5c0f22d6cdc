"""Which summands of which sums become one op.

Branches are merged when

1. each is a linear op with constant weights, x itself, or one of these with a fixed scale and
   shift behind it that is still to be folded; a constant of one number per channel may join them;
2. all read the same value x, and only the sum reads each of them;
3. one of them, the target, takes up the others without growing: all of their taps lie on its own
   taps, and their groups inside its groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.branches.matrices import gemm, matmul
from converter.folding.branches.merge import Branch, Form, Merge
from converter.folding.branches.sums import Sum, Term, find_sums, private
from converter.folding.branches.windows import average, convolution
from converter.folding.sites import Site
from converter.folding.view import View
from converter.graph.naming import label

# The ops that may be a branch; all except AveragePool have weights that can take up others.
LINEAR: dict[str, Callable[[ir.Node, View], Form | None]] = {
    "Conv": convolution,
    "ConvTranspose": convolution,
    "AveragePool": average,
    "MatMul": matmul,
    "Gemm": gemm,
}
_WITHOUT_WEIGHTS = frozenset({"AveragePool"})


@dataclass(frozen=True, eq=False)
class _Summand:
    """A term of a sum: site(form(source)). No form means x itself; no source means a constant."""

    term: Term
    source: ir.Value | None
    form: Form | None = None
    site: Site | None = None

    @property
    def may_be_target(self) -> bool:
        node = None if self.form is None else self.form.node
        return self.site is None and node is not None and node.op_type not in _WITHOUT_WEIGHTS

    @property
    def node(self) -> ir.Node:
        assert self.form is not None
        assert self.form.node is not None
        return self.form.node


def find_merges(graph: ir.Graph, sites: Mapping[ir.Node, Site], view: View) -> list[Merge]:
    """All merges of one graph.

    Args:
        sites: the scales and shifts that may still be folded, by their last node.
        view: looks through scales and shifts that are folded already.
    """
    found: list[Merge] = []
    maps = {node for site in sites.values() for node in site.nodes}
    for total in find_sums(graph, maps, view):
        found += _merges_of(total, sites, view)
    return found


def _merges_of(total: Sum, sites: Mapping[ir.Node, Site], view: View) -> Iterator[Merge]:
    """The term that can take up most becomes a target, then the same among those that are left."""
    left = [_summand(term, sites, view) for term in total.terms]
    targets = [summand for summand in left if summand.may_be_target]
    for target in sorted(targets, key=lambda one: _worth(one, left, view), reverse=True):
        branches = tuple(_branches(target, left, view)) if target in left else ()
        if not branches:
            continue
        assert target.form is not None
        assert target.source is not None
        gone = {target.term, *(branch.term for branch in branches)}
        left = [summand for summand in left if summand.term not in gone]
        node = target.node
        yield Merge(label(node), node, target.form, target.term, branches, target.source, total)


def _worth(target: _Summand, summands: Sequence[_Summand], view: View) -> tuple[int, ...]:
    assert target.form is not None
    return (len(list(_branches(target, summands, view))), *target.form.extent)


def _summand(term: Term, sites: Mapping[ir.Node, Site], view: View) -> _Summand:
    """A term read from its end: a site still to be folded, a linear op, then the value it reads."""
    value = view.origin(term.value)
    if value.is_initializer():
        constant = view.why_not_constant(value, term.node, "operand") is None
        return _Summand(term, None if constant else value)
    node = value.producer()
    site = sites.get(node) if node is not None and private(term.value, view) else None
    if site is not None and isinstance(site.affine, Affine) and site.source is not None:
        value = view.origin(site.source)
        node = value.producer()
    else:
        site = None
    form = _form(node, term.value if site is None else value, view)
    if form is None or node is None or (site is not None and node.op_type not in _WITHOUT_WEIGHTS):
        return _Summand(term, value, None, site)
    source = node.inputs[0]
    assert source is not None
    return _Summand(term, view.origin(source), form, site)


def _form(node: ir.Node | None, value: ir.Value, view: View) -> Form | None:
    """The linear op that computes `value`; None if there is none or other nodes read it too."""
    if node is None or node.domain != "" or node.op_type not in LINEAR or not private(value, view):
        return None
    return LINEAR[node.op_type](node, view)


def _branches(target: _Summand, summands: Sequence[_Summand], view: View) -> list[Branch]:
    """The summands that the target can take up."""
    large = target.form
    assert large is not None
    found = []
    for summand in summands:
        if summand is target or summand.source is not target.source:
            continue
        small = large.identity() if summand.form is None else summand.form
        place = None if small is None else large.place(small)
        affine = None if summand.site is None else _map(summand.site, large)
        if place is not None and (summand.site is None or affine is not None):
            found.append(Branch(_name(summand), summand.term, small, place, summand.site, affine))
    if found or large.biased:
        found += [
            Branch(f"the constant {summand.term.value.name}", summand.term)
            for summand in summands
            if summand.source is None and _per_channel(summand.term.value, large, view)
        ]
    return found


def _map(site: Site, form: Form) -> Affine | None:
    """The map of a site on the channels of `form`; None if it acts on another axis."""
    affine = site.affine
    if not isinstance(affine, Affine):
        return None
    if site.uniform:
        scale, shift = affine.scale[:1], affine.shift[:1]
        return Affine(np.repeat(scale, form.outputs), np.repeat(shift, form.outputs), form.axis)
    return affine if (affine.axis, affine.channels) == (form.axis, form.outputs) else None


def _per_channel(value: ir.Value, form: Form, view: View) -> bool:
    """Whether a constant is one number for each channel of the result, or one for all."""
    shape = view.shape(value)
    if shape is None or len(shape) > form.rank:
        return False
    wide = (1,) * (form.rank - len(shape)) + shape
    others = {size for axis, size in enumerate(wide) if axis != form.axis}
    return others <= {1} and wide[form.axis] in {1, form.outputs}


def _name(summand: _Summand) -> str:
    node = None if summand.form is None else summand.form.node
    if summand.site is not None:
        kind = "batch-norm" if summand.site.kind == "batch-norm" else "scale"
        behind = "" if node is None else f" behind {label(node)}"
        return f"{kind} {summand.site.name}{behind}"
    return "the identity" if node is None else label(node)
