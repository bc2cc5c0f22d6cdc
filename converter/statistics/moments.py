"""Mean and variance of each channel in one pass, in float64, merged piece by piece.

Of two pieces with n_1 and n_2 values, means μ_1 and μ_2, and sums of squared deviations M_1 and
M_2 (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979, equations 2.1):

    n = n_1 + n_2      δ = μ_2 − μ_1      μ = μ_1 + δ n_2/n      M = M_1 + M_2 + δ² n_1 n_2/n

The variance is the population's, M/n. Unlike E[x²] − E[x]², this does not subtract two large
numbers that are nearly equal, so no digits are lost, whatever the mean is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Activations are converted to float64 in pieces of at most this many numbers (32 MiB).
PIECE = 1 << 22


@dataclass(frozen=True)
class Moments:
    """The moments of C channels after some values of each.

    Attributes:
        count: n, the same for every channel.
        mean: μ, float64 (C,).
        squares: M, float64 (C,).
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def none(cls, channels: int) -> Self:
        """No values yet."""
        zeros = torch.zeros(channels, dtype=torch.float64)
        return cls(0, zeros, zeros.clone())

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The moments of all values of each channel: x is (N, C, ...), of any floating type.

        Every value has the same weight, so the weight of a batch is its number of samples times
        positions.
        """
        found = cls.none(x.shape[1])
        for piece in _pieces(x):
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(piece.double(), axes, correction=0)
            count = piece.numel() // x.shape[1]
            found = found.merge(cls(count, mean.cpu(), variance.cpu() * count))
        return found

    def merge(self, other: Self) -> Self:
        """The moments of the values of both."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        between = delta * delta * (self.count * other.count / count)
        return type(self)(count, mean, self.squares + other.squares + between)

    @property
    def variance(self) -> Tensor:
        """M/n, float64 (C,): of the population, without Bessel's correction."""
        return self.squares / max(self.count, 1)

    @property
    def finite(self) -> bool:
        """Whether all values were finite."""
        return bool(self.mean.isfinite().all() and self.squares.isfinite().all())


@dataclass(frozen=True)
class InstanceMoments(Moments):
    """Moments as an instance norm tracks them: averages of each sample's mean and variance.

    `count` is the number of samples, `squares` the sum of their variances. The
    variance between the means of samples does not count: an instance norm never compares samples.
    """

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """x is (N, C, ...): all positions of a sample are one instance of a channel."""
        found = cls.none(x.shape[1])
        for piece in _pieces(x):
            flat = piece.double().flatten(2)  # (n, C, positions)
            variance, mean = torch.var_mean(flat, 2, correction=0)
            found = found.merge(cls(len(piece), mean.mean(0).cpu(), variance.sum(0).cpu()))
        return found

    def merge(self, other: Self) -> Self:
        count = self.count + other.count
        if not count:
            return self
        mean = self.mean + (other.mean - self.mean) * (other.count / count)
        return type(self)(count, mean, self.squares + other.squares)


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Split x along its batch axis into pieces of at most `PIECE` numbers, if possible."""
    if not x.numel():
        return ()
    return torch.split(x, max(1, PIECE * len(x) // x.numel()))
