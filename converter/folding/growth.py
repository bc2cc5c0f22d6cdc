"""What a plan costs in bytes: shared constants are copied where their readers change them apart.

A constant of n numbers that several ops read becomes as many versions as its readers need (one
where all need the same change, none where all are removed), so a plan adds (versions - 1) * n
numbers for it. That is accepted

1. where it is little: everything that a plan adds is at most a sixteenth of the model's constants,
   or 1,024 numbers (a page of memory); or
2. where each map that is folded needs at most one copy, as for a convolution with two batch-norms
   of different statistics, and the copies have no more numbers than the maps cost multiply-adds
   for one sample; axes of unknown size, except the batch, count as large.

The same holds for new constants beyond those that are removed with the maps: a bias where there was
none, or a number per channel where there was a single number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import onnx_ir as ir

from converter.folding.branches import Merge
from converter.folding.plan import Decision, Plan
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site
from converter.folding.step import Absorb
from converter.graph.naming import label

LITTLE = 1024
_SHARE = 16

# The name of a constant, or of the result of an op; and of a batch-norm, or None for all of them.
Barred = dict[tuple[str | None, str | None], Refusal]


def changed_by(edit: Absorb) -> list[tuple[int, ir.Value]]:
    """The constants of its node that an edit changes, each with the index of the input."""
    update = edit.update
    wanted = (*(update.scaled if edit.affine.scales else ()), *update.shifted)
    found = ((index, _constant(edit.node, index)) for index in wanted)
    return [(index, value) for index, value in found if value is not None]


def why_barred(route: Route, site: Site, barred: Barred) -> Refusal | None:
    """The reason why an edit of a way must not be made for `site`, if there is one."""
    if not barred:
        return None
    for edit in route.edits:
        names = [value.name for _, value in changed_by(edit)] + [edit.node.outputs[0].name]
        for name in names:
            why = barred.get((name, site.name)) or barred.get((name, None))
            if why is not None:
                return why.at(edit.node).past(*route.steps)
    return None


@dataclass(eq=False)
class _Share:
    """A constant that changes: by which edits, and for which batch-norms."""

    value: ir.Value
    # For each reader a key of its version; readers with the same key share a copy.
    keys: dict[tuple[ir.Node, int], tuple[object, ...]] = field(default_factory=dict)
    edits: dict[Decision, int] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)

    def versions(self, removed: frozenset[ir.Node]) -> int:
        readers = [
            self.keys.get((use.node, use.idx), ())
            for use in self.value.uses()
            if use.node not in removed
        ]
        kept = self.value.is_graph_output() and () not in readers
        return len(set(readers)) + kept


def too_dear(model: ir.Model, plan: Plan) -> tuple[Barred, list[Merge]]:
    """What in a plan is not worth its bytes: the constants that must not be changed for which
    batch-norms, with the reason, and the merges that must not be made."""
    removed = _removed(plan)
    shares = [share for share in _shares(plan, removed) if share.versions(removed) > 1]
    left = max(LITTLE, _numbers(model) // _SHARE)
    barred: Barred = {}
    merges: list[Merge] = []
    for share in sorted(shares, key=lambda share: _copies(share, removed) * _size(share.value)):
        copies = _copies(share, removed)
        numbers = copies * _size(share.value)
        if numbers <= left:
            left -= numbers
            continue
        saved = _saved(share)
        if copies <= len(share.edits) + len(share.merges) and (saved is None or numbers <= saved):
            continue
        why = Refusal("dearer", _sentence(share, copies, saved))
        most = max(share.edits.values(), default=0)
        for decision, edits in share.edits.items():
            if edits == most:
                barred[share.value.name, decision.site.name] = why
        merges += share.merges
    for decision in plan.applied:
        new = _new_numbers(decision, removed)
        more = sum(new.values()) - _own_numbers(decision.site, removed)
        if more <= left:
            left -= max(more, 0)
            continue
        node = max(new, key=lambda node: new[node])
        why = Refusal("dearer", f"{label(node)} would get {more:,} numbers more than go with it.")
        barred[node.outputs[0].name, decision.site.name] = why
    return barred, merges


def _shares(plan: Plan, removed: frozenset[ir.Node]) -> list[_Share]:
    """The constants with several readers that a plan changes."""
    found: dict[ir.Value, _Share] = {}
    of = {decision.outcome: decision for decision in plan.applied}

    def note(node: ir.Node, index: int, value: ir.Value, key: tuple[object, ...]) -> _Share:
        share = found.setdefault(value, _Share(value))
        share.keys[node, index] = share.keys.get((node, index), ()) + key
        return share

    for route in plan.routes:
        for edit in route.edits:
            if edit.node in removed:
                continue
            for index, value in changed_by(edit):
                if len(value.uses()) < 2 and not value.is_graph_output():
                    continue
                share = note(edit.node, index, value, _key(edit, index))
                share.edits[of[route]] = share.edits.get(of[route], 0) + 1
    for merge in plan.merges:
        weight = _constant(merge.target, 1) or _constant(merge.target, 0)
        if weight is not None and len(weight.uses()) > 1:
            note(merge.target, 1, weight, (merge.target,)).merges.append(merge)
    return list(found.values())


def _key(edit: Absorb, index: int) -> tuple[object, ...]:
    """A key that is equal for two edits that change the same constant in the same way."""
    affine, node, update = edit.affine, edit.node, edit.update
    shifts = index in update.shifted
    layout = tuple(
        (name, str(node.attributes[name].value)) for name in update.reads if name in node.attributes
    )
    others = tuple(_constant(node, other) for other in range(1, len(node.inputs)) if shifts)
    shift = affine.shift.tobytes() if shifts else b""
    head = (node.op_type, layout, others, update.side, affine.axis)
    return (*head, affine.scale.tobytes(), shift)


def _removed(plan: Plan) -> frozenset[ir.Node]:
    gone = {node for merge in plan.merges for node in merge.gone}
    for decision in plan.applied:
        gone.update(decision.site.nodes)
    return frozenset(gone)


def _copies(share: _Share, removed: frozenset[ir.Node]) -> int:
    return share.versions(removed) - 1


def _saved(share: _Share) -> int | None:
    """The multiply-adds, for one sample, of what is removed; None where a size is not known."""
    parts = [(d.site.result, len(d.site.nodes) - (d.remainder is not None)) for d in share.edits]
    parts += [(m.target.outputs[0], len(m.gone) + len(m.branches)) for m in share.merges]
    costs = [_cost(value, nodes) for value, nodes in parts]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _cost(value: ir.Value, nodes: int) -> int | None:
    if value.shape is None or not len(value.shape):
        return None
    sizes = [1, *value.shape[1:]] if not isinstance(value.shape[0], int) else [*value.shape]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return nodes * prod(size for size in sizes if isinstance(size, int))


def _sentence(share: _Share, copies: int, saved: int | None) -> str:
    value, held = share.value, share.value.const_value
    assert held is not None
    first = next(iter(share.keys))[0]
    others = len({use.node for use in value.uses()}) - 1
    gain = "" if saved is None else f", to save {saved:,} multiply-adds of a sample"
    times = "one more copy" if copies == 1 else f"{copies} more copies"
    return (
        f"{label(first)} shares the constant {value.name!r} with {others} other "
        f"op{'' if others == 1 else 's'}: to change it takes {times} of it, "
        f"{copies * held.nbytes:,} bytes{gain}."
    )


def _new_numbers(decision: Decision, removed: frozenset[ir.Node]) -> dict[ir.Node, int]:
    """How many additional numbers each op gets."""
    found: dict[ir.Node, int] = {}
    edits = decision.outcome.edits if isinstance(decision.outcome, Route) else ()
    for edit in edits:
        if edit.node not in removed:
            new = edit.update.grows(edit.node, edit.affine)
            found[edit.node] = max(found.get(edit.node, 0), new)
    return found


def _own_numbers(site: Site, removed: frozenset[ir.Node]) -> int:
    """How many numbers the constants have that are removed with a batch-norm."""
    own = {
        value
        for node in site.nodes
        for value in node.inputs
        if value is not None
        and value.const_value is not None
        and all(use.node in removed for use in value.uses())
    }
    return sum(_size(value) for value in own)


def _constant(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return None if value.is_graph_input() else value


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.size)


def _numbers(model: ir.Model) -> int:
    graphs = (model.graph, *model.graph.subgraphs())
    return sum(_size(value) for graph in graphs for value in graph.initializers.values())
