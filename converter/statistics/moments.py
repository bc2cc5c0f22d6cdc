"""Mean and variance of each channel in one pass, in float64, merged piece by piece.

Of two pieces with n_1 and n_2 values, means μ_1 and μ_2, and sums of squared deviations M_1 and
M_2 (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979, equations 2.1):

    n = n_1 + n_2      δ = μ_2 − μ_1      μ = μ_1 + δ n_2/n      M = M_1 + M_2 + δ² n_1 n_2/n

The variance is the population's, M/n. Nothing large is subtracted from something as large, as
E[x²] − E[x]² does: digits are kept whatever the mean is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Activations are widened to float64 in pieces of at most so many numbers (32 MiB).
PIECE = 1 << 22


@dataclass(frozen=True)
class Moments:
    """What is known of C channels after some values of each.

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
        """Of all values of each channel: x is (N, C, ...), of any floating type.

        Every value weighs the same, so that a batch weighs as many times as much as it has
        samples and positions.
        """
        found = cls.none(x.shape[1])
        for piece in _pieces(x):
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(piece.double(), axes, correction=0)
            count = piece.numel() // x.shape[1]
            found = found.merge(cls(count, mean.cpu(), variance.cpu() * count))
        return found

    def merge(self, other: Self) -> Self:
        """Of the values of both."""
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
        """Whether no value was infinite or not a number."""
        return bool(self.mean.isfinite().all() and self.squares.isfinite().all())


@dataclass(frozen=True)
class InstanceMoments(Moments):
    """As an instance norm tracks them: means over samples of each sample's mean and variance.

    `count` is the number of samples, `squares` the sum of their variances. How far the means of
    the samples lie apart is no part of it: an instance norm never compares samples.
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
    """x along its batch axis, so that no piece has more than `PIECE` numbers if it can be."""
    if not x.numel():
        return ()
    return torch.split(x, max(1, PIECE * len(x) // x.numel()))
