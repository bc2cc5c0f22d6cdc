"""Kernels of linear ops: (outputs, inputs of the group, taps), read in blocks.

A kernel holds no numbers. It says where they are, and a block of them (some outputs, some inputs,
all taps) is read when it is compared: so a model of many gigabytes takes as much memory as a block.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod
from typing import Any, Literal

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.forms import OWN, Known
from converter.certificate.stored import Numbers, Stored, parts_of, whole_of
from converter.certificate.verdict import Doubt

Block = tuple[int, int, int, int]  # outputs from and to, inputs from and to
Along = Literal["outputs", "inputs"]
# Numbers of a block: in float64 a few of them fit into a core's cache.
BLOCK = 1 << 16

# Of a layout: along which axis numbers lie in the graph, and how (outputs, inputs, *taps) is made.
LAYOUTS: dict[str, tuple[Along, Callable[[Numbers, int], Numbers] | None]] = {
    "conv": ("outputs", None),
    "matrix": ("inputs", None),
    "matrix transposed": ("outputs", None),
    "conv transposed": ("outputs", lambda a, group: _swapped(a, group)),
    "matrices": ("outputs", lambda a, _: a.swapaxes(-1, -2).reshape(-1, a.shape[-2])),
}


def _swapped(a: Numbers, group: int) -> Numbers:
    """(inputs, outputs of the group, *taps) to (outputs, inputs of the group, *taps)."""
    inputs, each, *taps = a.shape
    grouped = a.reshape(group, inputs // group, each, *taps)
    return grouped.swapaxes(1, 2).reshape(group * each, inputs // group, *taps)


@dataclass(eq=False, kw_only=True)
class Kernel:
    """A linear op over an atom z whose input is s*z + t.

    Attributes:
        shape: (outputs, inputs of the group, taps).
        group: of a convolution; 1.
        rounding, floor: what a weight may be off by, relative and absolute.
        s, t: of the input, a number a channel (all inputs, of all groups).
        t_off: what t may be off by.
        ratio_off: what t may be off by, as a multiple of s.
        memory: what was found of kernels before, by what it depends on.
        hints: factors of the rows in the first graph.
    """

    shape: tuple[int, int, int]
    group: int
    rounding: float
    s: Array
    t: Array
    t_off: Array
    ratio_off: Array
    memory: dict[Hashable, Any]
    floor: float = 0.0
    hints: list[Array] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def along(self) -> Along:
        """Of which axis parts can be read."""
        raise NotImplementedError

    @property
    def key(self) -> Hashable:
        """The same for the same numbers of the graphs; None: it cannot be told."""
        raise NotImplementedError

    def numbers(self, along: Along) -> Callable[[Block], Array]:
        """What reads a block of the kernel over z: float64, overwritten by the next block."""
        raise NotImplementedError

    def bounded(self, along: Along) -> Callable[[Block], tuple[Array, Array]]:  # fmt: skip
        """The same, with what each number may be off by."""
        raise NotImplementedError

    def blocks(self, along: Along) -> Iterator[Block]:
        """The first one is small: most kernels that differ do in every number."""
        outputs, inputs, taps = self.shape
        length, across = (outputs, inputs) if along == "outputs" else (inputs, outputs)
        step = max(1, BLOCK // max(1, across * taps))
        first = 0
        while first < length:
            last = min(first + step, length) if first else 1
            yield (first, last, 0, inputs) if along == "outputs" else (0, outputs, first, last)
            first = last

    def alive(self) -> Array:
        """1 for each output, 0 where the whole row is zero.

        Raises:
            Doubt: a number is not finite.
        """
        key = None if self.key is None else ("alive", self.key, digest(self.s == 0))
        if key is None or key not in self.memory:
            found = self._alive()
            if key is None:
                return found
            self.memory[key] = found
        return np.asarray(self.memory[key])

    def _alive(self) -> Array:
        found = np.zeros(self.outputs, bool)
        read = self.numbers(self.along)
        for block in self.blocks(self.along):
            k = read(block)
            if not np.isfinite(k).all():
                raise Doubt("a weight is infinite or not a number")
            found[block[0] : block[1]] |= k.any(axis=(1, 2))
        return found.astype(np.float64)

    @property
    def scale(self) -> Array | None:
        """s, if it is not 1 all over."""
        return None if np.all(self.s == 1.0) else self.s

    @property
    def pulls(self) -> bool:
        return bool(self.t.any() or self.t_off.any())

    def pull(self) -> tuple[Array, Array]:
        """What the input's shift adds to each output, and what that may be off by."""
        zero = np.zeros(self.outputs)
        return zero, zero


@dataclass(eq=False, kw_only=True)
class Weight(Kernel):
    """A weight of the graph.

    Attributes:
        weight: as it stands in the graph.
        layout: of `LAYOUTS`.
        kept: the taps that count, a slice for each spatial axis of a convolution.
    """

    weight: Known
    layout: str
    kept: tuple[slice, ...] = ()

    @property
    def along(self) -> Along:
        return LAYOUTS[self.layout][0]

    @property
    def key(self) -> Hashable:
        if not isinstance(self.weight.numbers, Stored):
            return None
        return self.weight.numbers.key, self.layout, str(self.kept), self.group

    @property
    def dtype(self) -> np.dtype[Any]:
        numbers = self.weight.numbers
        if isinstance(numbers, Stored):
            return np.dtype(numbers.tensor.dtype.numpy())
        return numbers.dtype

    def opened(self, along: Along) -> Callable[[Block], Numbers]:
        """What reads a block in the type of the graph, (outputs, inputs, taps), without s."""
        first, layout = LAYOUTS[self.layout]
        _, inputs, taps = self.shape
        numbers = self.weight.numbers
        kept = (slice(None), slice(None), *self.kept)
        if first == along and layout is None:
            part = parts_of(numbers)
            if along == "outputs":
                return lambda b: part(b[0], b[1])[kept].reshape(b[1] - b[0], inputs, taps)[
                    :, b[2] : b[3]
                ]
            return lambda b: part(b[2], b[3]).T[b[0] : b[1], :, None]
        array = whole_of(numbers)
        if layout is not None:
            array = layout(array, self.group)
        elif first == "inputs":
            array = array.T
        rows = array[kept].reshape(self.shape)
        return lambda b: rows[b[0] : b[1], b[2] : b[3]]

    def numbers(self, along: Along) -> Callable[[Block], Array]:
        opened, room, scale = self.opened(along), Room(), self.scale

        def read(block: Block) -> Array:
            raw = opened(block)
            k = room.like(raw)
            if scale is None:
                np.copyto(k, raw)
            else:
                np.multiply(raw, of_inputs(scale, self, block), out=k)
            return k

        return read

    def bounded(self, along: Along) -> Callable[[Block], tuple[Array, Array]]:  # fmt: skip
        read, room, scale = self.numbers(along), Room(), self.scale

        def both(block: Block) -> tuple[Array, Array]:
            k = read(block)
            off = np.abs(k, out=room.like(k))
            off *= self.rounding + OWN
            if self.floor:
                off += (
                    self.floor
                    if scale is None
                    else self.floor * np.abs(of_inputs(scale, self, block))
                )
            return k, off

        return both

    def _alive(self) -> Array:
        dead = self.s == 0
        found = np.zeros(self.outputs)
        opened, room = self.opened(self.along), Room()
        for block in self.blocks(self.along):
            raw = opened(block)
            size = np.abs(raw, out=room.like(raw, raw.dtype))
            if not np.isfinite(size.max(initial=0)):
                raise Doubt("a weight is infinite or not a number")
            if dead.any():
                size[np.broadcast_to(of_inputs(dead, self, block), size.shape)] = 0
            most = size.max(axis=(1, 2), initial=0)
            found[block[0] : block[1]] = np.maximum(found[block[0] : block[1]], most != 0)
        return found

    def pull(self) -> tuple[Array, Array]:
        if not self.pulls:
            return super().pull()
        key = None
        if self.key is not None:
            key = ("pull", self.key, self.rounding, digest(self.t, self.t_off))
        if key is None or key not in self.memory:
            found = self._pull()
            if key is None:
                return found
            self.memory[key] = found
        sums: tuple[Array, Array] = self.memory[key]
        return sums

    def _pull(self) -> tuple[Array, Array]:
        pulled, off = np.zeros(self.outputs), np.zeros(self.outputs)
        allowed = self.t_off + (self.rounding + OWN) * np.abs(self.t)
        opened, room = self.opened(self.along), Room()
        for block in self.blocks(self.along):
            raw = opened(block)
            rows = slice(block[0], block[1])
            part = np.multiply(raw, of_inputs(self.t, self, block), out=room.like(raw))
            pulled[rows] += part.sum(axis=(1, 2))
            np.multiply(raw, of_inputs(allowed, self, block), out=part)
            off[rows] += np.abs(part, out=part).sum(axis=(1, 2))
        return pulled, off


class Room:
    """Memory for one array at a time, used again for the next one."""

    def __init__(self) -> None:
        self._held: Numbers | None = None

    def like(self, array: Numbers, dtype: Any = np.float64) -> Array:
        """Not initialised: of an array's shape and order."""
        if self._held is None or self._held.size < array.size:
            self._held = np.empty(array.size, dtype)
        flat = self._held[: array.size]
        if array.ndim == 3 and abs(array.strides[0]) < abs(array.strides[1]):
            outputs, inputs, taps = array.shape
            return flat.reshape(inputs, outputs, taps).swapaxes(0, 1)
        return flat.reshape(array.shape)


def of_inputs(numbers: Array, kernel: Kernel, block: Block) -> Array:
    """A number a channel of the input, where it is read in a block: (outputs or 1, inputs, 1)."""
    if kernel.group == 1:
        return numbers[None, block[2] : block[3], None]
    grouped = numbers.reshape(kernel.group, -1)[:, block[2] : block[3]]
    owners = np.arange(block[0], block[1]) // (kernel.outputs // kernel.group)
    return grouped[owners, :, None]


def digest(*arrays: Array) -> bytes:
    made = blake2b()
    for array in arrays:
        made.update(str((array.dtype, array.shape)).encode())
        made.update(np.ascontiguousarray(array).data)
    return made.digest()


def rows_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(outputs, inputs, *taps) with one axis of taps."""
    return shape[0], shape[1], prod(shape[2:])
