"""More random inputs, for where chance may have decided, and for where noise is not informative.

A detector's head gives 1e-6 on noise, where the runtime's own sigmoid is 1e-7 away from the
truth: a right fold could not be told from a wrong one there. On larger numbers, on pictures of 0 to
255 or on a picture with surfaces in it, the same head gives larger outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.proof import examples
from converter.proof.measure import Case
from converter.proof.settings import NOTHING, Setting
from converter.sources.loaded import Input

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

# The side length of the squares of equal numbers in a picture with surfaces.
_SURFACE = 8
# How many numbers one sample may have at larger sizes.
_MOST = 2**22


@dataclass(frozen=True)
class Kind:
    """How floating-point inputs are drawn; `larger`: with open axes twice as long.

    `setting`: what some inputs are set to; `says`: the name of the standard kind with that setting.
    """

    name: str
    draw: Draw
    larger: bool = False
    setting: Setting = NOTHING
    says: str = ""

    @property
    def seed(self) -> int:
        """The seed of this kind; 0 for the standard numbers, which `examples` draws."""
        return next((i for i, kind in enumerate(KINDS, 1) if kind.draw is self.draw), 0)


def _normal(times: float) -> Draw:
    return lambda rng, shape: times * rng.standard_normal(shape)


def _uniform(most: float) -> Draw:
    return lambda rng, shape: most * rng.random(shape)


def _surfaces(times: float) -> Draw:
    """Equal numbers on squares, as pictures and spectra have them; shape (N, C, ..)."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        coarse = (*shape[:2], *(-(-size // _SURFACE) for size in shape[2:]))
        found = times * rng.standard_normal(coarse)
        for axis in range(2, len(shape)):
            found = np.repeat(found, _SURFACE, axis=axis)
        return found[tuple(map(slice, shape))]

    return draw


STANDARD = Kind("", _normal(1.0))
# The kinds, in the order in which they are tried.
KINDS: tuple[Kind, ...] = (
    Kind("normal times 4", _normal(4.0)),
    Kind("normal times 16", _normal(16.0)),
    Kind("uniform 0 to 255", _uniform(255.0)),
    Kind("surfaces times 16", _surfaces(16.0)),
    Kind("uniform 0 to 1", _uniform(1.0)),
    Kind("normal times 1/16", _normal(1 / 16)),
    Kind("normal times 64", _normal(64.0)),
    Kind("normal, twice the size", _normal(1.0), larger=True),
    Kind("surfaces times 16, twice the size", _surfaces(16.0), larger=True),
)


def kinds_for(inputs: Sequence[Input]) -> list[Kind]:
    """The kinds whose inputs differ from the standard ones."""
    if not any(_is_float(item) for item in inputs):
        return []
    larger = [enlarged(item) for item in inputs]
    grows = larger != list(inputs) and all(math.prod(item.example) <= _MOST for item in larger)
    return [kind for kind in KINDS if grows or not kind.larger]


def draw(kind: Kind, inputs: Sequence[Input], batch: int | None, seed: int, turn: int = 0) -> Case:
    """Inputs of a kind; whole numbers are drawn as always.

    Args:
        batch: as in `examples.random_feeds`.
        turn: each turn gives other numbers and another name.
    """
    inputs = [enlarged(item) for item in inputs] if kind.larger else inputs
    inputs = kind.setting.sized(inputs)
    feeds = examples.random_feeds(inputs, batch, seed + turn)
    if kind.seed:
        rng = np.random.default_rng([seed, batch or 0, turn, kind.seed])
        for item in inputs:
            if _is_float(item):
                old = feeds[item.name]
                feeds[item.name] = kind.draw(rng, old.shape).astype(old.dtype)
    kind.setting.fill(feeds)
    name = "the fixed batch" if batch is None else f"batch {batch}"
    parts = (name, kind.name or kind.says, f"draw {turn + 1}" if turn else "")
    return Case(", ".join(filter(None, parts)), feeds, kind=kind.name)


def enlarged(item: Input) -> Input:
    """The input with its open axes, except the batch, twice as long as in the example."""
    sizes = (
        2 * size if axis and isinstance(name, str) else size
        for axis, (name, size) in enumerate(zip(item.shape, item.example, strict=True))
    )
    return replace(item, example=tuple(sizes))


def _is_float(item: Input) -> bool:
    return item.dtype == "bfloat16" or np.dtype(item.dtype).kind == "f"
