"""Gather of rows of a constant table: a linear op on what is asked for.

The first row goes to the shift, and the others are counted from it: so a table that took up a
batch-norm is the same table, with a factor a column and another shift.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, Known
from converter.certificate.kernels import Along, Block, Kernel, Room
from converter.certificate.linear import linear
from converter.certificate.stored import Stored, parts_of
from converter.certificate.verdict import Doubt


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
    return linear(ctx, ("table", atom.id, shape, size), kernel, bias, shape, len(shape) - 1)
