"""Kernels of linear ops as rows: (outputs, inputs of the group times taps)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.forms import OWN, Known

# Takes a weight as it stands in the graph; returns (outputs, inputs of the group, *taps).
Layout = Callable[[Array], Array]


@dataclass(eq=False)
class Kernel:
    """A linear op over an atom z whose input is s*z + t.

    Attributes:
        weight: as it stands in the graph; None if the kernel was put together from others.
        layout: to (outputs, inputs of the group, *taps).
        group: of a convolution; 1.
        rounding, floor: what a weight may be off by, relative and absolute.
        s, t: of the input, a number a channel (all inputs, of all groups).
        t_off: what t may be off by.
        ratio_off: what t may be off by, as a multiple of s.
        kind: names the layout.
        direct: the rows and what they may be off by, if there is no weight.
        hints: factors of the rows in the first graph.
    """

    weight: Known | None
    layout: Layout
    group: int
    rounding: float
    floor: float
    s: Array
    t: Array
    t_off: Array
    ratio_off: Array
    kind: str
    direct: tuple[Array, Array] | None = None
    hints: list[Array] = field(default_factory=list)
    pulled: tuple[Array, Array] | None = None
    shape: tuple[int, ...] = field(default=())

    def raw(self) -> Array:
        """(outputs, inputs of the group, taps), without the input's scale."""
        assert self.weight is not None
        array = self.layout(self.weight.array)
        self.shape = array.shape
        return array.reshape(*array.shape[:2], -1)

    def of_inputs(self, numbers: Array, outputs: int) -> Array:
        """A number a channel as (outputs, inputs of the group)."""
        return np.repeat(numbers.reshape(self.group, -1), outputs // self.group, axis=0)

    def rows(self) -> tuple[Array, Array]:
        """The kernel over z, and what each number may be off by: (outputs, inputs * taps)."""
        if self.direct is not None:
            return self.direct
        raw = self.raw()
        s = self.of_inputs(self.s, raw.shape[0])[:, :, None]
        rows = raw * s
        off = np.abs(rows)
        off *= self.rounding + OWN
        off += self.floor * np.abs(s)
        flat = raw.shape[0], -1
        return rows.reshape(flat), off.reshape(flat)

    def pull(self) -> tuple[Array, Array]:
        """What the input's shift adds to each output, and what that may be off by."""
        if self.pulled is None:
            self.pulled = self._pull()
        return self.pulled

    def _pull(self) -> tuple[Array, Array]:
        if not self.t.any() and not self.t_off.any():
            zero = np.zeros(self.outputs)
            return zero, zero
        raw = self.raw()
        outputs = raw.shape[0]
        t, t_off = self.of_inputs(self.t, outputs), self.of_inputs(self.t_off, outputs)
        size = np.abs(raw).sum(axis=2)
        off = (size * t_off).sum(axis=1)
        off += ((self.rounding + OWN) * size * np.abs(t)).sum(axis=1)
        return (raw.sum(axis=2) * t).sum(axis=1), off

    @property
    def outputs(self) -> int:
        if self.direct is not None:
            return int(self.direct[0].shape[0])
        if not self.shape:
            assert self.weight is not None
            self.shape = self.layout(self.weight.array).shape
        return int(self.shape[0])
