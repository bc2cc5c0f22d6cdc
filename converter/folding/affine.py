"""The one map that is folded: y = scale * x + shift, per channel, in float64.

A frozen batch-norm (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 2) is

    y = gamma * (x - mean) / sqrt(var + eps) + beta  =  a*x + b
    a = gamma / sqrt(var + eps)        b = beta - mean*a

Only this module does the arithmetic of the maps, and only in float64; the weights that
absorb a map are rounded to their own type once, at the very end (`rounding.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.graph.rounding import Float64


@dataclass(frozen=True, eq=False)
class Affine:
    """y = scale * x + shift along one axis of a tensor.

    Attributes:
        scale: float64, shape (C,).
        shift: float64, shape (C,), in the unit of y.
        axis: the axis of size C, counted from 0.
    """

    scale: Float64
    shift: Float64
    axis: int

    def __post_init__(self) -> None:
        if self.scale.ndim != 1 or self.scale.shape != self.shift.shape:
            raise ValueError(f"scale {self.scale.shape} and shift {self.shift.shape} must be (C,)")

    @classmethod
    def of_batchnorm(
        cls,
        gamma: Float64,
        beta: Float64,
        mean: Float64,
        var: Float64,
        eps: float,
        axis: int = 1,
    ) -> Affine:
        """The map of a batch-norm with population statistics; all arrays have shape (C,)."""
        scale = gamma / np.sqrt(var + eps)
        return cls(scale, beta - mean * scale, axis)

    @property
    def channels(self) -> int:
        return int(self.scale.size)

    @property
    def shifts(self) -> bool:
        """Whether the shift has an effect."""
        return bool(np.any(self.shift != 0.0))

    @property
    def scales(self) -> bool:
        """Whether the scale has an effect."""
        return bool(np.any(self.scale != 1.0))

    def scale_only(self) -> Affine:
        """The same without its shift."""
        return Affine(self.scale, np.zeros_like(self.shift), self.axis)

    def shift_only(self) -> Affine:
        """The same without its scale."""
        return Affine(np.ones_like(self.scale), self.shift, self.axis)

    def along(self, axis: int) -> Affine:
        """The same map on another axis of the same size (the tensor was permuted)."""
        return Affine(self.scale, self.shift, axis)

    def then(self, outer: Affine) -> Affine:
        """outer(self(x)): (a2, b2) after (a1, b1) = (a2*a1, a2*b1 + b2)."""
        if outer.axis != self.axis or outer.channels != self.channels:
            raise ValueError("maps of different axes do not compose to one map")
        return Affine(outer.scale * self.scale, outer.scale * self.shift + outer.shift, self.axis)


def along_axis(values: Float64, axis: int, rank: int) -> Float64:
    """View (C,) as (1, .., C, .., 1) with C on `axis` of `rank` axes, to broadcast."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])
