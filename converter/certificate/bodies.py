"""If, Loop and Scan: the bodies are walked as the graph is.

An If is an atom of its condition and of both branches' values; what is done behind it may as well
be done in both branches, so a factor and a shift that both have pass. A Loop and a Scan are walked
once, for any round: what a round is given is an atom of its own, keyed by what the first one is
given; if a round computes the same from the same, so do all, by induction.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate.arrays import Shape, bits
from converter.certificate.atoms import Atom, Space
from converter.certificate.closeness import same_forms
from converter.certificate.context import Context, attributes, frozen, value_of
from converter.certificate.forms import OWN, Form, Known, Value, of_atom
from converter.certificate.verdict import Differs, Doubt, near


def branches(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    condition = values[0]
    one, other = (node.attributes[n].as_graph() for n in ("then_branch", "else_branch"))
    if isinstance(condition, Known):
        if condition.sized:
            raise Doubt("which branch an If takes depends on the sizes")
        return ctx.walk_body(one if bool(condition.array.all()) else other, [])
    assert isinstance(condition, Form)
    results: list[Value] = []
    pairs = zip(ctx.walk_body(one, []), ctx.walk_body(other, []), strict=True)
    for first, second in pairs:
        results.append(_chosen(ctx, condition, first, second))
    return results


def _chosen(ctx: Context, condition: Form, first: Value, second: Value) -> Value:
    forms = [_as_form(ctx, value) for value in (first, second)]
    if forms[0].real != forms[1].real:
        raise Doubt("the branches of an If give values of different types")
    shape = forms[0].shape
    if shape != forms[1].shape:
        ids = tuple((form.ids, form.shape) for form in forms)
        return value_of(ctx.atom(("if", condition.ids, ids), None, forms), None, _dtype(forms[0]))
    if not forms[0].real:
        ids = tuple((form.ids, form.shape) for form in forms)
        atom = ctx.atom(("if", condition.ids, ids, shape), shape, forms)
        atom.more.setdefault("dtype", forms[0].single[0].more.get("dtype", 7))
        return of_atom(atom, shape, real=False)
    key = ("if", condition.ids, forms[0].ids, forms[1].ids, shape)
    atom, found = ctx.space.intern(
        key, shape, forms, lambda held, new, exactly: _affine(ctx.space, held, new, exactly)
    )
    form = of_atom(atom, shape)
    if found is None:
        return form
    factor, shift, off = found
    u = max(f.u for f in forms)
    return replace(form.scaled(factor, u).shifted(shift, off), u=u)


def _as_form(ctx: Context, value: Value) -> Form:
    if isinstance(value, Known) and not value.real:
        raise Doubt("a branch of an If gives a constant that is no float")
    return ctx.form(value)


def _affine(space: Space, held: Sequence[Form], new: Sequence[Form], exactly: bool) -> Any:
    """(factor, shift, what it may be off by): both new values are that of the held ones."""
    try:
        same_forms(space, held, new, exactly)
    except Differs:
        if exactly:
            raise
    else:
        return None
    shape = held[0].shape
    scales: list[tuple[Any, Any, float]] = []
    for old, now in zip(held, new, strict=True):
        for atom in sorted(old.terms, key=lambda a: a.id):
            a, b = np.broadcast_arrays(old.terms[atom], now.terms[atom])
            scales.append((a, b, now.u))
    factor = np.zeros((1,) * len(shape))
    for a, b, _ in scales:
        ratio = np.divide(b, a, out=np.zeros(a.shape), where=a != 0)
        factor = np.where(factor == 0, ratio, factor)
    for a, b, u in scales:
        share = near(factor * a, b, (u + 4 * OWN) * np.abs(b), "the scale of a branch")
        space.moved(share)
    shift = new[0].t - factor * held[0].t
    off = new[0].m + OWN * (np.abs(new[0].t) + np.abs(factor * held[0].t))
    expected = factor * held[1].t + shift
    allowed = new[1].m + off + 4 * OWN * (np.abs(new[1].t) + np.abs(factor * held[1].t))
    shape_of_all = np.broadcast_shapes(expected.shape, new[1].t.shape, allowed.shape)
    share = near(
        expected, new[1].t, np.broadcast_to(allowed, shape_of_all), "the shift of a branch"
    )
    space.moved(share)
    return factor, shift, off


def loop(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    body = node.attributes["body"].as_graph()
    trips, condition, *carried = values
    start = [_as_start(ctx, value) for value in carried]
    key = ("loop", ctx.space.depth, _part(trips), _part(condition), tuple(f.ids for f in start),
           tuple(f.shape for f in start))  # fmt: skip
    begun = ctx.atom(("start", key), None, start)
    rounds = _formal(ctx, begun, "round", 0, (), onnx.TensorProto.INT64)
    going = _formal(ctx, begun, "condition", 0, (), onnx.TensorProto.BOOL)
    state = [_state(ctx, begun, place, form) for place, form in enumerate(start)]
    found = [_as_start(ctx, v) for v in _round(ctx, body, [rounds, going, *state])]
    _stays(start, found[1 : 1 + len(start)])
    return _outcome(ctx, begun, found, len(start), 1, None)


def scan(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    body = node.attributes["body"].as_graph()
    attrs = attributes(node, ctx.opset)
    inputs = int(attrs["num_scan_inputs"])
    if ctx.opset < 9:
        raise Doubt("a Scan of before opset 9")
    start = [_as_start(ctx, value) for value in values]
    states = len(start) - inputs
    axes = attrs.get("scan_input_axes", (0,) * inputs)
    key = (
        "scan",
        ctx.space.depth,
        frozen(attrs),
        tuple(f.ids for f in start),
        tuple(f.shape for f in start),
    )
    begun = ctx.atom(("start", key), None, start)
    given: list[Value] = [
        _state(ctx, begun, place, form) for place, form in enumerate(start[:states])
    ]
    for place, (form, axis) in enumerate(zip(start[states:], axes, strict=True)):
        at = axis % form.rank
        shape = form.shape[:at] + form.shape[at + 1 :]
        given.append(_formal(ctx, begun, "slice", place, shape, _dtype(form)))
    found = [_as_start(ctx, value) for value in ctx.walk_body(body, given)]
    _stays(start[:states], found[:states])
    length = start[states].shape[axes[0] % start[states].rank] if inputs else 0
    outputs = attrs.get("scan_output_axes", (0,) * (len(found) - states))
    return _outcome(ctx, begun, found, states, 0, (length, tuple(outputs)))


def _round(ctx: Context, body: ir.Graph, given: list[Value]) -> list[Value]:
    """What a round computes. What it is given is named by how deep it lies: a Loop in a Loop may
    start with the same, and counts other rounds."""
    ctx.space.depth += 1
    found = ctx.walk_body(body, given)
    ctx.space.depth -= 1
    return found


def _as_start(ctx: Context, value: Value) -> Form:
    if isinstance(value, Known) and not value.real:
        # Whole numbers and truths that are constants: an atom of their bytes.
        array = value.array
        key = ("numbers", bits(array))
        atom, _ = ctx.space.intern(key, array.shape, None)
        atom.more.setdefault("dtype", onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
        return of_atom(atom, array.shape, real=False)
    if value is None:
        raise Doubt("a body is given nothing for an input")
    return ctx.form(value)


def _part(value: Value) -> Hashable:
    if value is None:
        return None
    if isinstance(value, Known):
        return bits(value.array)
    return value.ids


def _dtype(form: Form) -> int:
    if form.real:
        return int(onnx.TensorProto.FLOAT)
    return int(form.single[0].more.get("dtype", 7))


def _formal(
    ctx: Context, begun: Atom, what: str, place: int, shape: Shape, dtype: int
) -> Form:  # fmt: skip
    """What any round is given; `begun` is of all that the first one is given."""
    atom, _ = ctx.space.intern((what, begun.id, place, shape), shape, None)
    return value_of(atom, shape, dtype)


def _state(ctx: Context, begun: Atom, place: int, form: Form) -> Form:
    return _formal(ctx, begun, "state", place, form.shape, _dtype(form))


def _stays(start: Sequence[Form], end: Sequence[Form]) -> None:
    for one, other in zip(start, end, strict=True):
        if one.shape != other.shape or one.real != other.real:
            raise Doubt("a value changes its shape or type from round to round")


def _outcome(
    ctx: Context, begun: Atom, found: Sequence[Form], states: int, first: int,
    stacked: tuple[int, tuple[int, ...]] | None,
) -> list[Value]:  # fmt: skip
    """States at the end, and what was collected: atoms of all that a round computes."""
    bodies = tuple((form.ids, form.shape, form.real) for form in found)
    body = ctx.atom(("a round", begun.id, bodies), None, found)
    results: list[Value] = []
    for place, form in enumerate(found[first:]):
        shape: Shape | None = form.shape
        if place >= states:
            shape = None
            if stacked is not None:
                length, axes = stacked
                axis = axes[place - states] % (form.rank + 1)
                shape = (*form.shape[:axis], length, *form.shape[axis:])
        atom, _ = ctx.space.intern(("result", body.id, place, shape), shape, None)
        results.append(value_of(atom, shape, _dtype(form)))
    return results
