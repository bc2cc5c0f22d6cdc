"""Kernels that are sums of kernels: parallel branches, the value itself, its average.

They are read in blocks as weights are: a block of the sum is the sum of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from converter.certificate.arrays import Array, Mask
from converter.certificate.forms import OWN
from converter.certificate.kernels import Along, Block, Kernel, Room, Weight, digest

CANCELLED = 16.0


@dataclass(frozen=True, eq=False)
class Part:
    """One of what is added up.

    Attributes:
        kernel: what it is.
        factor: a number an output.
        u: what the factor may be off by, relative.
        places: where its taps lie in those of the sum, of each spatial axis.
    """

    kernel: Kernel
    factor: Array
    u: float
    places: tuple[slice, ...] = ()


@dataclass(eq=False, kw_only=True)
class Each(Kernel):
    """Of each channel itself, or the average of some taps: `value` at each tap."""

    value: float = 1.0

    @property
    def along(self) -> Along:
        return "outputs"

    @property
    def key(self) -> Hashable:
        return "each", self.shape, self.group, self.value

    def numbers(self, along: Along) -> Callable[[Block], Array]:  # noqa: ARG002
        def read(block: Block) -> Array:
            k = np.zeros((block[1] - block[0], block[3] - block[2], self.shape[2]))
            rows = np.arange(block[0], block[1])
            columns = rows % self.shape[1] - block[2]
            inside = (columns >= 0) & (columns < k.shape[1])
            k[np.flatnonzero(inside), columns[inside]] = self.value
            return k

        return read

    def bounded(self, along: Along) -> Callable[[Block], tuple[Array, Array]]:
        read = self.numbers(along)

        def both(block: Block) -> tuple[Array, Array]:
            k = read(block)
            return k, np.zeros_like(k)

        return both


@dataclass(eq=False, kw_only=True)
class Summed(Kernel):
    """Kernels over one atom, added up.

    Attributes:
        parts: of the same outputs and inputs.
        wide: the sizes of the spatial axes before `kept` is taken of them.
        kept: the taps that count.
    """

    parts: tuple[Part, ...]
    wide: tuple[int, ...] = ()
    kept: tuple[slice, ...] = ()

    @property
    def along(self) -> Along:
        return self.parts[0].kernel.along

    @property
    def key(self) -> Hashable:
        keys = [
            (p.kernel.key, p.kernel.rounding, digest(p.kernel.s, p.factor), p.u, str(p.places))
            for p in self.parts
        ]
        return None if any(key[0] is None for key in keys) else (*keys, self.wide, str(self.kept))

    def numbers(self, along: Along) -> Callable[[Block], Array]:
        reads = [(p, p.kernel.numbers(along)) for p in self.parts]
        room = Room()

        def read(block: Block) -> Array:
            total = self._zeros(room, block)
            for part, numbers in reads:
                self._add(total, part, block, numbers(block))
            return self._cut(total)

        return read

    def bounded(self, along: Along) -> Callable[[Block], tuple[Array, Array]]:
        reads = [(p, p.kernel.bounded(along)) for p in self.parts]
        rooms = Room(), Room()

        def both(block: Block) -> tuple[Array, Array]:
            total, off = (self._zeros(room, block) for room in rooms)
            for part, bounded in reads:
                k, k_off = bounded(block)
                # Of the factor, of the checker's product, and of its sum.
                k_off += (part.u + 2 * OWN) * np.abs(k)
                self._add(total, part, block, k)
                self._add(off, part, block, k_off, np.abs)
            total, off = self._cut(total), self._cut(off)
            return total, self._excused(total, off, block)

        return both

    def _excused(self, total: Array, off: Array, block: Block) -> Array:
        """Weights that cancel excuse no more than `CANCELLED` times what is left of the row."""
        if not self.rounding:
            return off
        left = np.abs(total).max(axis=(1, 2), initial=0.0)[:, None, None]
        rows = slice(block[0], block[1])
        tiny = sum(np.abs(p.factor[rows]) * p.kernel.floor for p in self.parts)
        own = OWN / (self.rounding + OWN)
        most = CANCELLED * (self.rounding * left + np.reshape(tiny, (-1, 1, 1)))
        found: Array = np.minimum(off, most + own * off)
        return found

    def _zeros(self, room: Room, block: Block) -> Array:
        shape = block[1] - block[0], block[3] - block[2], prod(self.wide)
        total = room.like(np.broadcast_to(0.0, shape))
        total[...] = 0.0
        return total.reshape(*shape[:2], *self.wide)

    def _add(
        self,
        total: Array,
        part: Part,
        block: Block,
        k: Array,
        of: Callable[[Any], Any] = np.asarray,
    ) -> None:
        """k is overwritten."""
        where = total[(slice(None), slice(None), *part.places)]
        k *= of(part.factor[block[0] : block[1], None, None])
        where += k.reshape(where.shape)

    def _cut(self, total: Array) -> Array:
        kept = total[(slice(None), slice(None), *self.kept)] if self.kept else total
        return kept.reshape(*total.shape[:2], self.shape[2])


def live_taps(kernel: Kernel, taps: tuple[int, ...]) -> Mask:
    """Of each tap, whether a number of it is not zero; of a sum, of one of what is added up."""
    if isinstance(kernel, Summed):
        found: Mask = np.zeros(kernel.wide, np.bool_)
        for part in kernel.parts:
            where = found[part.places]
            where |= live_taps(part.kernel, where.shape)
        return found[kernel.kept] if kernel.kept else found
    if not isinstance(kernel, Weight):
        return np.ones(taps, bool)
    key = None if kernel.key is None else ("live", kernel.key)
    if key is None or key not in kernel.memory:
        seen: Mask = np.zeros(kernel.shape[2], np.bool_)
        opened = kernel.opened(kernel.along)
        for block in kernel.blocks(kernel.along):
            seen |= opened(block).any(axis=(0, 1))
            if seen.all():
                break
        if key is None:
            return seen.reshape(taps)
        kernel.memory[key] = seen
    seen = kernel.memory[key]
    return seen.reshape(taps)
