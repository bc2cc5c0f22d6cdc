"""Rearrangements: each number of the result is one of the input's.

A view is held as the place in its base that each number comes from, so chains of Reshape,
Transpose, Slice, .. are one view, and those that undo each other are none. Scale and shift are
rearranged as the value is. An op that works number by number is done before a view that only
reorders: where a Transpose stands does not matter to it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from converter.certificate.arrays import MOST, Array, Index, Shape, compressed, count, must_fit
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import Form, checked, constant
from converter.certificate.verdict import Doubt

Apply = Callable[[Any], Any]


def rearranged(ctx: Context, x: Form, apply: Apply, part: Hashable = None) -> Form:
    """`apply` takes an array of x's shape and returns one of the result's.

    `part`: names a part of an axis that two sizes do not determine (every third, the half of it):
    such a view is only equal to one that was made by the same.
    """
    if count(x.shape) > MOST:
        raise Doubt(f"a rearranged value has {count(x.shape):,} numbers, which is too many")
    places = ctx.space.counted(count(x.shape)).reshape(x.shape)
    index = np.asarray(apply(places), order="C")
    rank = index.ndim

    def over(array: Array) -> Array:
        if array.size == 1:
            return array.reshape((1,) * rank)
        return compressed(apply(np.broadcast_to(array, x.shape)))

    terms: dict[Atom, Array] = {}
    for atom, s in x.terms.items():
        made, scale = view(ctx, atom, index, part), over(s)
        terms[made] = terms[made] + scale if made in terms else scale
    return checked(replace(x, shape=index.shape, terms=terms, t=over(x.t), m=over(x.m)))


def view(ctx: Context, atom: Atom, index: Index, part: Hashable = None) -> Atom:
    """The numbers of `atom` at the places `index`, in its shape."""
    shape = index.shape
    parts = () if part is None else (part,)
    while True:
        if atom.kind == "view":
            parts = (*atom.more["parts taken"], *parts)
            held = atom.more["index"].reshape(-1)
            atom = atom.more["base"]
            # What is only reshaped shares the memory of what it was.
            index = held.reshape(shape) if _in_order(ctx, index, held.size) else held[index]
        elif atom.kind == "concat" and index.size:
            owners, places = atom.more["places"]()
            owner = owners[index]
            if owner.min() != owner.max():
                break
            atom, index = atom.more["parts"][int(owner.flat[0])], places[index]
        else:
            break
    assert atom.shape is not None
    if not parts and shape == atom.shape and _in_order(ctx, index, count(shape)):
        return atom
    digest = blake2b(np.ascontiguousarray(index, np.int32).data).digest()
    made, _ = ctx.space.intern(("view", atom.id, shape, digest, parts), shape, None)
    made.more.setdefault("parts taken", parts)
    made.more.setdefault("base", atom)
    made.more.setdefault("index", index.reshape(shape))
    if "dtype" in atom.more:
        made.more.setdefault("dtype", atom.more["dtype"])
    return made


def _in_order(ctx: Context, index: Index, size: int) -> bool:
    """Whether these are all places of so many numbers, one after the other."""
    return index.size == size and np.array_equal(index.reshape(-1), ctx.space.counted(size))


def spread(ctx: Context, x: Form, shape: Shape) -> Form:
    """Broadcast to a shape."""
    if x.shape == shape:
        return x
    must_fit(shape)
    if not x.terms:
        return constant(shape, x.t, x.m)
    return rearranged(ctx, x, lambda array: np.broadcast_to(array, shape))


def number_by_number(ctx: Context, x: Form, work: Callable[[Form], Form]) -> Form:
    """Apply `work`, which does each number by itself, before a view that only reorders."""
    return all_by_number(ctx, [x], lambda forms: work(forms[0]))


def transposed(x: Form) -> tuple[int, ...] | None:
    """perm, if x is a Transpose of one atom: axis i of x is axis perm[i] of that."""
    if len(x.terms) != 1:
        return None
    atom, _ = x.single
    if atom.kind != "view":
        return None
    base, index = atom.more["base"], atom.more["index"]
    if len(base.shape) != index.ndim or sorted(base.shape) != sorted(index.shape):
        return None
    steps = [int(n) for n in np.cumprod((1, *base.shape[:0:-1]))[::-1]]
    # How far the next number along an axis lies in the base: so which axis that is.
    first = (0,) * index.ndim
    found: list[int] = []
    for axis, size in enumerate(index.shape):
        free = [i for i in range(index.ndim) if i not in found and base.shape[i] == size]
        if size > 1:
            step = index[(*first[:axis], 1, *first[axis + 1 :])] - index[first]
            free = [i for i in free if steps[i] == step]
        if not free:
            return None
        found.append(free[0])
    places = np.arange(count(base.shape)).reshape(base.shape)
    return tuple(found) if np.array_equal(places.transpose(found), index) else None


def all_by_number(
    ctx: Context, forms: Sequence[Form], work: Callable[[Sequence[Form]], Form]
) -> Form:
    """The same for values of one shape whose numbers meet, if all are reordered alike."""
    atoms = [atom for form in forms for atom in form.terms]
    if not atoms or not all(_alike(atom, atoms[0]) for atom in atoms):
        orders = {_order(atom) for atom in atoms}
        order = orders.pop() if len(orders) == 1 else None
        if order is None or order == tuple(range(len(order))):
            return work(forms)
        turned = [rearranged(ctx, form, lambda a: a.transpose(order)) for form in forms]
        return rearranged(ctx, work(turned), lambda a: a.transpose(np.argsort(order)))
    shape, inner_shape = forms[0].shape, atoms[0].more["base"].shape
    index = atoms[0].more["index"].reshape(-1)

    def back(array: Array) -> Array:
        return before(array, shape, index, inner_shape)

    inner = [
        replace(
            form,
            shape=inner_shape,
            terms={atom.more["base"]: back(s) for atom, s in form.terms.items()},
            t=back(form.t),
            m=back(form.m),
        )
        for form in forms
    ]
    return rearranged(ctx, work(inner), lambda a: a.reshape(-1)[index].reshape(shape))


def _order(atom: Atom) -> tuple[int, ...] | None:
    """The axes of a part of a value, those first along which it goes furthest in that."""
    if atom.kind != "view" or not atom.more["index"].size:
        return None
    index = atom.more["index"]
    first = (0,) * index.ndim
    steps = [
        abs(int(index[(*first[:axis], 1, *first[axis + 1 :])] - index[first])) if size > 1 else 0
        for axis, size in enumerate(index.shape)
    ]
    # Axes of one number, which lie anywhere, come first.
    return tuple(sorted(range(index.ndim), key=lambda i: (index.shape[i] > 1, -steps[i])))


def before(array: Array, shape: Shape, index: Index, inner_shape: Shape) -> Array:
    """What a reordering makes `array`, which broadcasts to `shape`, of."""
    if array.size == 1:
        return array.reshape((1,) * len(inner_shape))
    flat = np.empty(count(inner_shape))
    flat[index] = np.broadcast_to(array, shape).reshape(-1)
    return compressed(flat.reshape(inner_shape))


def _alike(atom: Atom, other: Atom) -> bool:
    """Whether two atoms are views that only reorder, and in the same way."""
    if atom.kind != "view" or other.kind != "view":
        return False
    one, two = atom.more["index"], other.more["index"]
    same = one is two or (one.shape == two.shape and np.array_equal(one, two))
    return same and atom.more["base"].shape == other.more["base"].shape and reorders(atom)


def reorders(atom: Atom) -> bool:
    """Whether a view has each number of its base once."""
    if "reorders" not in atom.more:
        base, index = atom.more["base"], atom.more["index"].reshape(-1)
        size = count(base.shape)
        atom.more["reorders"] = (
            not atom.more["parts taken"]
            and index.size == size
            and bool(np.array_equal(np.bincount(index, minlength=size), np.ones(size)))
        )
    return bool(atom.more["reorders"])


def concat(ctx: Context, parts: Sequence[Form], axis: int) -> Form:
    """Side by side; scale and shift stay outside, part by part."""
    rank = parts[0].rank
    axis %= rank
    atoms: list[Atom] = []
    scales: list[Array] = []
    shifts: list[Array] = []
    offs: list[Array] = []
    for part in parts:
        if part.terms:
            atom, s = part.single
        else:
            atom, _ = ctx.space.intern(("zero", part.shape), part.shape, None)
            s = np.zeros((1,) * rank)
        atoms.append(atom)
        for held, array in ((scales, s), (shifts, part.t), (offs, part.m)):
            held.append(_along(array, part.shape, axis))
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    key = ("concat", axis, tuple(atom.id for atom in atoms))
    made, _ = ctx.space.intern(key, tuple(shape), None)
    if "parts" not in made.more:
        made.more["parts"] = atoms
        made.more["places"] = _places([part.shape for part in parts], axis)
    joined = [_joined(arrays, axis) for arrays in (scales, shifts, offs)]
    return checked(
        Form(tuple(shape), {made: joined[0]}, joined[1], joined[2], max(p.u for p in parts))
    )


def _along(array: Array, shape: Shape, axis: int) -> Array:
    wanted = list(array.shape)
    wanted[axis] = shape[axis]
    return np.broadcast_to(array, wanted)


def _joined(arrays: Sequence[Array], axis: int) -> Array:
    """Parts that vary along other axes make the others as wide."""
    sizes = [max(a.shape[i] for a in arrays) for i in range(arrays[0].ndim)]
    wide = [
        np.broadcast_to(a, [a.shape[axis] if i == axis else n for i, n in enumerate(sizes)])
        for a in arrays
    ]
    return compressed(np.concatenate(wide, axis))


def _places(shapes: Sequence[Shape], axis: int) -> Callable[[], tuple[Index, Index]]:
    """Of each number of a Concat: which part it is of, and its place there."""
    held: list[tuple[Index, Index]] = []

    def places() -> tuple[Index, Index]:
        if not held:
            owners = np.concatenate([np.full(s, i, np.int32) for i, s in enumerate(shapes)], axis)
            inside = [np.arange(count(s), dtype=np.int32).reshape(s) for s in shapes]
            held.append((owners.reshape(-1), np.concatenate(inside, axis).reshape(-1)))
        return held[0]

    return places
