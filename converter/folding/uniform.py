"""A map with one number for all channels has no axis of its own: it may lie on any axis.

A factor 1/255 or a shift by one number is the same along every axis, so where a rule cannot use
the axis on which the map lies, the rule is tried again on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from converter.folding.affine import Affine
from converter.folding.refusal import Refusal
from converter.folding.step import Step
from converter.graph.values import Dim

_ABOUT_THE_AXIS = frozenset({"wrong-axis", "not-per-channel", "unknown-shape"})


def is_uniform(affine: Affine) -> bool:
    """Whether all channels have the same scale and the same shift."""
    return bool(np.all(affine.scale == affine.scale[0]) and np.all(affine.shift == affine.shift[0]))


def ask(
    rule: Callable[[Affine], Step | Refusal], affine: Affine, shape: Sequence[Dim] | None
) -> Step | Refusal:
    """The result of `rule` for `affine`, on any axis of a tensor of `shape` that it accepts."""
    answer = rule(affine)
    if isinstance(answer, Step) or answer.code not in _ABOUT_THE_AXIS or not is_uniform(affine):
        return answer
    for axis, size in enumerate(shape or ()):
        if isinstance(size, int) and size > 0 and axis != affine.axis:
            laid = Affine(np.full(size, affine.scale[0]), np.full(size, affine.shift[0]), axis)
            other = rule(laid)
            if isinstance(other, Step):
                return other
    return answer
