"""Gather of rows of a constant table: a linear op on what is asked for.

The first row goes to the shift, and the others are counted from it: so a table that took up a
batch-norm is the same table, with a factor a column and another shift.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, Known, checked
from converter.certificate.kernels import BLOCK, Along, Block, Kernel, Room
from converter.certificate.linear import linear
from converter.certificate.stored import Stored, parts_of
from converter.certificate.verdict import Differs, Doubt


@dataclass(eq=False, kw_only=True)
class Table(Kernel):
    """The rows of a table, counted from the first one: an output is a column, an input a row."""

    weight: Known
    first: Array

    @property
    def along(self) -> Along:
        return "inputs"

    @property
    def key(self) -> Hashable:
        numbers = self.weight.numbers
        return ("table", numbers.key) if isinstance(numbers, Stored) else None

    def numbers(self, along: Along) -> Callable[[Block], Array]:  # noqa: ARG002
        read, room = self._rows(), Room()

        def counted(block: Block) -> Array:
            raw = read(block)
            return np.subtract(raw, self._first(block), out=room.like(raw))

        return counted

    def bounded(self, along: Along) -> Callable[[Block], tuple[Array, Array]]:  # noqa: ARG002
        read, rooms = self._rows(), (Room(), Room())

        def both(block: Block) -> tuple[Array, Array]:
            raw, first = read(block), self._first(block)
            off = np.abs(raw, out=rooms[1].like(raw))
            off += np.abs(first)
            off *= self.rounding + OWN
            off += 2 * self.floor
            return np.subtract(raw, first, out=rooms[0].like(raw)), off

        return both

    def _rows(self) -> Callable[[Block], Array]:
        part = parts_of(self.weight.numbers)
        return lambda b: part(b[2], b[3]).T[b[0] : b[1], :, None].astype(np.float64)

    def _first(self, block: Block) -> Array:
        return self.first[block[0] : block[1], None, None]


def gather(ctx: Context, table: Known, places: Form) -> Form | None:
    """table[places], for a table of two axes."""
    if len(table.shape) != 2 or not table.size or len(places.terms) != 1:
        return None
    first = parts_of(table.numbers)(0, 1)[0].astype(np.float64)
    if not np.isfinite(first).all():
        raise Doubt("a table has a number that is not finite")
    off = ctx.off(table, first)
    size, columns = table.shape
    zero = np.zeros(size)
    kernel = Table(
        shape=(columns, size, 1), group=1, rounding=ctx.rounding(table), floor=ctx.floor(table),
        s=np.ones(size), t=zero, t_off=zero, ratio_off=zero, memory=ctx.memory, weight=table,
        first=first,
    )  # fmt: skip
    atom, _ = places.single
    shape = (*places.shape, columns)
    ctx.weights += table.size
    bias = first, off + OWN * np.abs(first)
    form = linear(ctx, ("table", atom.id, shape, size), kernel, bias, shape, len(shape) - 1)
    for found, s in form.terms.items():
        if found.held is not kernel:
            t, m = _shift(ctx, found.held, kernel, np.broadcast_to(s.reshape(-1), (columns,)))
            wide = (1,) * (len(shape) - 1)
            return checked(replace(form, t=t.reshape(*wide, -1), m=m.reshape(*wide, -1)))
    return form


def _shift(ctx: Context, held: Table, new: Table, factor: Array) -> tuple[Array, Array]:
    """What a table is more than a multiple of another one, a number a column, and its bound.

    Counted from the first row, a number is as exact as the first row is; but it was not added to
    anything, so each is within its own roundings of factor * held + T.

    Raises:
        Differs: no T is.
    """
    low, high = np.full(factor.shape, -np.inf), np.full(factor.shape, np.inf)
    one, other = parts_of(held.weight.numbers), parts_of(new.weight.numbers)
    step = max(1, BLOCK // max(1, factor.size))
    for begin in range(0, new.shape[1], step):
        b = other(begin, begin + step).astype(np.float64)
        a = factor * one(begin, begin + step).astype(np.float64)
        off = (new.rounding + OWN) * np.abs(b) + new.floor + OWN * np.abs(a)
        low = np.maximum(low, (b - off - a).max(axis=0))
        high = np.minimum(high, (b + off - a).min(axis=0))
    if np.any(low > high):
        place = int(np.argmax(low - high))
        raise Differs("a number of the table", (place,), None, None, (factor.size,))
    shift = np.where((low <= 0) & (high >= 0), 0.0, (low + high) / 2)
    t = factor * held.first + shift
    off = np.maximum(shift - low, high - shift)
    return t, np.minimum(off, ctx.off(new.weight, t)) + OWN * (np.abs(t) + np.abs(shift))
