"""Gather of rows of a constant table: a linear op on what is asked for.

The first row goes to the shift, and the others are counted from it: so a table that took up a
batch-norm is the same table, with a factor a column and another shift.
"""

from __future__ import annotations

import numpy as np

from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, Known
from converter.certificate.kernels import Kernel
from converter.certificate.linear import linear


def gather(ctx: Context, table: Known, places: Form) -> Form | None:
    """table[places], for a table of two axes."""
    if table.array.ndim != 2 or not table.array.size or len(places.terms) != 1:
        return None
    array, off = table.array, ctx.off(table)
    rows = (array - array[0]).T.copy(), (off + off[0]).T.copy()
    size = array.shape[0]
    one, zero = np.ones(size), np.zeros(size)
    kernel = Kernel(
        None, lambda a: a, 1, ctx.rounding(table), 0.0, one, zero, zero, zero, "table", direct=rows
    )
    atom, _ = places.single
    shape = (*places.shape, array.shape[1])
    ctx.weights += array.size
    bias = array[0], off[0] + OWN * np.abs(array[0])
    return linear(ctx, ("table", atom.id, shape, size), kernel, bias, shape, len(shape) - 1)
