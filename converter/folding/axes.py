"""Which axis becomes which in a Reshape, a Flatten, a Squeeze.

Two shapes of the same tensor fall into blocks of axes with equal products, for example
(N, C, H, W) and (N, C*H*W) into [N | N] and [C, H, W | C*H*W]. Inside a block the elements
keep their order, so a map that varies along one axis of the block on one side can be laid
out on the other side by a plain reshape of its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm, prod

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.view import View
from converter.graph.rounding import Float64
from converter.graph.values import Dim

Block = tuple[range, range]  # axes of the one shape, axes of the other


def blocks(left: Sequence[Dim], right: Sequence[Dim]) -> list[Block] | None:
    """Pair the axes of two shapes with the same elements; None if that is not determined.

    Fixed sizes are matched by their products, symbols by their names. At most one block may
    hold sizes that are unknown or differ in name: what remains between the blocks matched
    from the front and those matched from the back must be equal, as the totals are.
    """
    front, i, j = _match(left, right)
    back, k, m = _match(left[i:][::-1], right[j:][::-1])
    found = list(front)
    i_end, j_end = len(left) - k, len(right) - m
    if i < i_end or j < j_end:
        found.append((range(i, i_end), range(j, j_end)))
    found += [
        (range(len(left) - a.stop, len(left) - a.start),
         range(len(right) - b.stop, len(right) - b.start))
        for a, b in reversed(back)
    ]  # fmt: skip
    return found


def _match(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[list[Block], int, int]:
    """The blocks that match from the front, and how many axes of each shape they use."""
    found: list[Block] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if isinstance(left[i], str) or isinstance(right[j], str):
            if left[i] != right[j]:
                break
            found.append((range(i, i + 1), range(j, j + 1)))
            i, j = i + 1, j + 1
            continue
        a, b = _grow(left, i, right, j)
        if a is None or b is None:
            break
        found.append((range(i, a), range(j, b)))
        i, j = a, b
    return found, i, j


def _grow(
    left: Sequence[Dim], i: int, right: Sequence[Dim], j: int
) -> tuple[int, int] | tuple[None, None]:
    """The smallest fixed-size block that starts at left[i] and right[j]."""
    a, b = i + 1, j + 1
    while True:
        sizes = [*left[i:a], *right[j:b]]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            return None, None
        x = prod(size for size in left[i:a] if isinstance(size, int))
        y = prod(size for size in right[j:b] if isinstance(size, int))
        if x == y:
            return a, b
        if x < y:
            a += 1
        else:
            b += 1
        if a > len(left) or b > len(right):
            return None, None


def carry(affine: Affine, old: Sequence[Dim], new: Sequence[Dim]) -> Affine | str:
    """`affine` on a tensor of shape `old`, laid out on the same elements in shape `new`.

    Returns a sentence instead when that is not determined, or when the map would vary along more
    than one axis of `new`.
    """
    pairs = blocks(old, new)
    if pairs is None:
        return "the shapes do not correspond."
    mine, other = next(pair for pair in pairs if affine.axis in pair[0])
    if len(mine) == 1 and len(other) == 1:
        return affine.along(other.start)
    sizes_in = [old[axis] for axis in mine]
    sizes_out = [new[axis] for axis in other]
    known_in = [size for size in sizes_in if isinstance(size, int)]
    known_out = [size for size in sizes_out if isinstance(size, int)]
    if len(known_in) < len(sizes_in) or len(known_out) < len(sizes_out):
        return f"the sizes {_text(sizes_in)} and {_text(sizes_out)} are not fixed."
    if not known_out:
        return "the axis of its one channel does not exist before it."
    if prod(known_in) != prod(known_out):
        return f"the sizes {_text(sizes_in)} and {_text(sizes_out)} do not correspond."
    scale = _lay_out(affine.scale, affine.axis - mine.start, known_in, known_out)
    shift = _lay_out(affine.shift, affine.axis - mine.start, known_in, known_out)
    varying = [
        axis for axis in range(len(known_out)) if _varies(scale, axis) or _varies(shift, axis)
    ]
    if len(varying) > 1:
        return f"the map differs along {len(varying)} of the axes {_text(sizes_out)}."
    axis = varying[0] if varying else _usual(known_out, other, affine.channels)
    return Affine(_pick(scale, axis), _pick(shift, axis), other.start + axis)


def relay(values: Float64, old: Sequence[Dim], new: Sequence[Dim]) -> Float64 | str:
    """`values` of a tensor of shape `old`, laid out on the same elements in shape `new`.

    The values have as many axes as `old`, of size 1 where they do not vary, and the result has as
    many as `new`. Along an axis whose size is not fixed they repeat, with their own size as the
    period: element i is values[i % period]. Returns a sentence instead when it is not determined.
    """
    if values.ndim != len(old):
        return "the ranks do not correspond."
    laid: list[tuple[list[int], int, list[int]]] = []
    for mine, other in blocks(old, new) or ():
        found = _relaid(
            values.shape[mine.start : mine.stop],
            old[mine.start : mine.stop],
            new[other.start : other.stop],
        )
        if found is None:
            return f"the sizes {_text(old)} and {_text(new)} are not fixed."
        laid.append(found)
    spread = np.broadcast_to(values, [size for sizes, _, _ in laid for size in sizes])
    flat = spread.reshape([prod(sizes) for sizes, _, _ in laid])
    repeated = np.tile(flat, [times for _, times, _ in laid])
    return _compressed(repeated.reshape([size for _, _, sizes in laid for size in sizes]))


_MOST_NUMBERS = 2**22


def _relaid(
    held: Sequence[int], old: Sequence[Dim], new: Sequence[Dim]
) -> tuple[list[int], int, list[int]] | None:
    """For values of the sizes `held` on one block: the sizes that they are broadcast to, how often
    all of them are repeated, and the sizes that they have on the other side.

    Only the first axis may be of unknown size: an element's place among the fixed axes behind
    it is its place in the block, modulo their product.
    """
    behind_in = [size for size in old[1:] if isinstance(size, int)]
    behind_out = [size for size in new[1:] if isinstance(size, int)]
    if all(size == 1 for size in held):
        return list(held), 1, [1] * len(new)
    if len(behind_in) < len(old) - 1 or len(behind_out) < len(new) - 1 or not new:
        return None
    spread = [held[0], *behind_in]
    if isinstance(old[0], int) and len(old) > 1:
        spread[0] = old[0]
    whole = lcm(prod(spread), prod(behind_out))
    if isinstance(new[0], int):
        total = new[0] * prod(behind_out)
        whole = total if whole and total % whole == 0 else 0
    if not 0 < whole <= _MOST_NUMBERS:
        return None
    return spread, whole // prod(spread), [whole // prod(behind_out), *behind_out]


def _compressed(values: Float64) -> Float64:
    """The values with size 1 on every axis along which they do not vary."""
    for axis in range(values.ndim):
        if not _varies(values, axis):
            values = np.take(values, [0], axis=axis)
    return values


def _lay_out(values: Float64, axis: int, old: list[int], new: list[int]) -> Float64:
    viewed = values.reshape([-1 if i == axis else 1 for i in range(len(old))])
    return np.broadcast_to(viewed, old).reshape(new)


def _varies(values: Float64, axis: int) -> bool:
    first = np.take(values, [0], axis=axis)
    return bool(np.any(values != first))


def _usual(sizes: list[int], axes: range, channels: int) -> int:
    """The axis to report when the map is the same everywhere: one of `channels` if there is
    one, else axis 1, where most ops have their channels."""
    if channels in sizes:
        return sizes.index(channels)
    return axes.index(1) if 1 in axes else int(np.argmax(sizes))


def _pick(values: Float64, axis: int) -> Float64:
    index: list[int | slice] = [0] * values.ndim
    index[axis] = slice(None)
    return values[tuple(index)].copy()


def _text(sizes: Sequence[Dim]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in sizes) + ")"


def flattened(shape: Sequence[Dim], axis: int) -> tuple[Dim, Dim]:
    """The two sizes that Flatten(axis) gives for `shape` (None where not known)."""
    axis = axis + len(shape) if axis < 0 else axis
    return _product(shape[:axis]), _product(shape[axis:])


def _product(sizes: Sequence[Dim]) -> Dim:
    rest = [size for size in sizes if size != 1]
    if len(rest) == 1:
        return rest[0]
    numbers = [size for size in rest if isinstance(size, int)]
    return prod(numbers) if len(numbers) == len(rest) else None


def reshaped(node: ir.Node, view: View) -> tuple[Dim, ...] | None:
    """The result shape of a Reshape: as annotated, refined by its constant target if any.

    0 copies a size of the input (unless `allowzero`), -1 is what remains (ONNX Reshape-14).
    """
    source, target = node.inputs[0], node.inputs[1]
    annotated = view.shape(node.outputs[0])
    if source is None or target is None or target.const_value is None:
        return annotated
    old = view.shape(source)
    if annotated is not None and None not in annotated:
        return annotated
    copies = not node.attributes.get_int("allowzero", 0)
    new: list[Dim] = []
    for position, size in enumerate(target.const_value.numpy().ravel().tolist()):
        if size == 0 and copies:
            new.append(old[position] if old is not None and position < len(old) else None)
        else:
            new.append(None if size == -1 else int(size))
    if annotated is not None and len(annotated) == len(new):
        new = [
            known if known is not None else size for known, size in zip(annotated, new, strict=True)
        ]
    return tuple(new)
