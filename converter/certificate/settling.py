"""A value of the second graph that is one of the first graph's becomes it.

From there on, what its constants may be off by is used up: a bound that went along a chain of
linear ops would grow with their magnitudes until nothing was checked any more. A value is also
recognised as a multiple of one of the first graph's, channel by channel, as where a scale was
left to a later op.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.atoms import Atom, Space
from converter.certificate.closeness import excused
from converter.certificate.forms import OWN, Form
from converter.certificate.kernels import Kernel
from converter.certificate.verdict import Differs, near

_MOST = 16  # forms over the same atoms that are tried


def settled(space: Space, x: Form) -> Form:
    held = space.anchors.setdefault(x.ids, [])
    if not space.second:
        # The checker's own errors would grow along a chain, too; they are small at each value.
        added = x.m  # what was added up in it
        if x.m.any():
            space.magnitude = max(space.magnitude, float(added.max() / OWN))
            x = replace(x, m=np.minimum(x.m, OWN * np.abs(x.t)))
        if len(held) < _MOST:
            held.append((x, added))
        if len(x.terms) == 1:
            _hint(x)
        return x
    if not x.m.any():
        return x
    for form, added in held:
        if form.shape == x.shape:
            found = _as(space, form, added, x)
            if found is not None:
                return found
    return x


def _hint(x: Form) -> None:
    """The factors of a kernel's rows that the first graph has."""
    atom, s = x.single
    axis = atom.more.get("channels")
    if not isinstance(atom.held, Kernel) or axis is None or len(atom.held.hints) >= _MOST:
        return
    vector = s.reshape(-1)
    if s.shape[axis] in {vector.size, 1} and vector.size in {1, atom.held.outputs}:
        hint = np.broadcast_to(vector, (atom.held.outputs,))
        if not any(np.array_equal(hint, other) for other in atom.held.hints):
            atom.held.hints.append(hint)


def _as(space: Space, form: Form, added: Array, x: Form) -> Form | None:
    """x, if it is `form` or a multiple of it, with the shift that it then has."""
    before = space.largest
    try:
        c = _multiple(form, x)
        shapes = np.broadcast_shapes(c.shape, form.t.shape, x.t.shape, x.m.shape)
        off = excused(space, x.m, c * form.t, np.abs(c) * added, x.t)
        allowed = np.broadcast_to(off + np.abs(c) * form.m + OWN * np.abs(x.t), shapes)
        share = near(c * form.t, x.t, allowed, "the shift")
    except Differs:
        space.largest = before
        return None
    space.moved(share)
    t = c * form.t
    # c is as exact as x's scale is; that it is off, too, is told with the scale.
    m = np.where(c == 1, np.abs(c) * form.m, (x.u + OWN) * np.abs(t))
    return replace(x, t=t, m=np.broadcast_to(m, np.broadcast_shapes(m.shape, t.shape)))


def _multiple(form: Form, x: Form) -> Array:
    """c with x's scales = c times the form's.

    Raises:
        Differs: there is none.
    """
    pairs: list[tuple[Atom, Array, Array]] = [
        (atom, s, x.terms[atom]) for atom, s in form.terms.items()
    ]
    shape = (1,) * x.rank
    same = all(bool(np.all(np.abs(a - b) <= (x.u + OWN) * np.abs(b))) for _, a, b in pairs)
    if same:
        return np.ones(shape)
    if len(pairs) != 1:
        raise Differs("the scales")
    _, a, b = pairs[0]
    a, b = np.broadcast_arrays(a, b)
    if np.any((a == 0) & (b != 0)):
        raise Differs("the scales")
    return np.divide(b, a, out=np.ones(a.shape), where=a != 0)
