"""Large weights: they stay where the graph has them and are read in parts, in their own type."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.certificate.arrays import Shape

Numbers = npt.NDArray[Any]
# What lies from one place to another along the first axis.
Part = Callable[[int, int], Numbers]


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of a graph, with its axes moved.

    Attributes:
        tensor: as it stands in the graph.
        shape: with the moves done.
        moves: what was done to it, each the axes of a transposition or a new shape.
    """

    tensor: ir.TensorProtocol
    shape: Shape
    moves: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def name(self) -> str | None:
        return self.tensor.name

    @property
    def key(self) -> Hashable:
        """The same for the same numbers, as long as the tensor is held."""
        return id(self.tensor), self.moves

    @property
    def turned(self) -> Stored | None:
        """What this is the transpose of, if it is no more than that of a matrix."""
        if len(self.shape) == 2 and self.moves[-1:] == (("transpose", (1, 0)),):
            return replace(self, shape=self.shape[::-1], moves=self.moves[:-1])
        return None

    def transposed(self, perm: tuple[int, ...]) -> Stored:
        shape = tuple(self.shape[axis] for axis in perm)
        if len(perm) == 2 and perm == (1, 0) and self.turned is not None:
            return self.turned
        return replace(self, shape=shape, moves=(*self.moves, ("transpose", perm)))

    def reshaped(self, shape: Shape) -> Stored:
        return replace(self, shape=shape, moves=(*self.moves, ("reshape", shape)))

    def whole(self) -> Numbers:
        """All numbers; from a file they are read."""
        array: Numbers = self.tensor.numpy()
        for kind, sizes in self.moves:
            array = array.transpose(sizes) if kind == "transpose" else array.reshape(sizes)
        return array

    def parts(self) -> Part:
        """What reads a part along the first axis: of a file no more than that, if it is as there.

        What is returned may hold all numbers, so it is not to be kept.
        """
        part = getattr(self.tensor, "part", None)
        if part is not None and not self.moves:
            read: Part = part
            return read
        array = self.whole()
        return lambda begin, end: array[begin:end]


def parts_of(numbers: Numbers | Stored) -> Part:
    if isinstance(numbers, Stored):
        return numbers.parts()
    return lambda begin, end: numbers[begin:end]


def whole_of(numbers: Numbers | Stored) -> Numbers:
    return numbers.whole() if isinstance(numbers, Stored) else np.asarray(numbers)
