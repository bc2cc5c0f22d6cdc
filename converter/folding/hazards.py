"""What is numerically suspicious about a batch-norm, and about weights after a fold.

A frozen batch-norm is y = a*x + b with a = gamma/sqrt(var + eps), b = beta - mean*a. With u the
unit roundoff of the type (2^-24 for float32, 2^-11 for float16), to first order

    |y_unfolded - y| <= (K*u + 2u) |a||W||x| + 2u (|a*mean| + |beta|)
    |y_folded   - y| <= (K*u + 2u) |a||W||x| + u |b'|        b' = a*bias + b, in float64

(Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1): a fold saves the
subtraction of the mean, and it costs one rounding of each weight, which is harmless as long as
the weight stays a normal number of its type.

These are pure functions of numbers; values that are normal in a trained network give no hazard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converter.graph.rounding import Float64

# How many channels are named in a sentence and in the report, the worst first.
SAMPLE = 8
# With var < eps/9, epsilon is over 90 % of var + eps: the scale is epsilon's, not the data's.
EPSILON_SHARE = 0.9
# gamma/sqrt(var + eps) is at most 316 for gamma = 1 and eps = 1e-5. Beyond 1,000 a thousandth
# of the input, noise of a reduced precision, is a whole unit of the output.
HUGE_SCALE = 1e3
# |mean|/std: the subtraction of the mean amplifies the rounding of the input by this factor. 1,000
# costs 10 of float32's 24 bits, 32 costs 5 of float16's 11 and of bfloat16's 8.
MEAN_OVER_STD = {"float16": 32.0, "bfloat16": 32.0}
MEAN_OVER_STD_WIDE = 1000.0

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Hazard:
    """One finding. `str` is the sentence.

    Attributes:
        code: for programs ("zero-variance").
        sentence: for people, with the numbers in it.
        count: how many channels (for "underflow": weights) it concerns.
        of: how many there are in all.
        channels: the indices of the worst ones, at most `SAMPLE`.
        value: the worst number, in the unit that the sentence names.
        where: the op, for a hazard of folded weights.
    """

    code: str
    sentence: str
    count: int
    of: int
    channels: tuple[int, ...] = ()
    value: float | None = None
    where: str = ""

    def __str__(self) -> str:
        return self.sentence


def of_batchnorm(
    gamma: Float64,
    beta: Float64,
    mean: Float64,
    var: Float64,
    eps: float,
    dtype: npt.DTypeLike = np.float32,
    *,
    untracked: bool = False,
) -> tuple[Hazard, ...]:
    """The hazards of one batch-norm with a fixed map.

    Args:
        gamma, beta, mean, var: float64, shape (C,), finite, var >= 0.
        eps: as the batch-norm adds it to var.
        dtype: the type that the graph stores and computes in.
        untracked: whether its `num_batches_tracked` is known to be 0.
    """
    del beta  # no value of beta is suspicious
    name = np.dtype(dtype).name
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + eps)
        found = (
            _never_updated(mean, var, untracked),
            _dead(gamma),
            _zero_variance(gamma, var, eps),
            _tiny_variance(gamma, var, eps),
            _huge_scale(scale, name),
            _mean_over_std(gamma, mean, var, eps, name),
            _half_epsilon(gamma, var, eps, name),
        )
    return tuple(hazard for hazard in found if hazard is not None)


def of_rounding(
    before: Callable[[], npt.NDArray[Any]],
    exact: Float64,
    rounded: npt.NDArray[Any],
    where: str,
) -> Hazard | None:
    """Weights that were normal numbers before a fold and have lost precision to underflow in it.

    Subnormal numbers have fewer bits the smaller they are, and below half of the smallest one
    they are 0. That matters only where the rounding error |rounded - exact| is more than one
    rounding of the largest weight beside it, u * max|w|: a sum with larger terms hides the rest.

    Args:
        before: reads the weights as they were, which is seldom necessary.
        exact: the folded weights in float64, at least one axis.
        rounded: the same in the type of the graph.
        where: the op, for the sentence.
    """
    smallest, u = _limits(rounded.dtype)
    candidates = _below(rounded, smallest)
    candidates = candidates[exact.reshape(-1)[candidates] != 0.0]
    if not candidates.size:
        return None
    small: npt.NDArray[np.bool_] = np.zeros(exact.size, dtype=np.bool_)
    small[candidates] = True
    small = small.reshape(exact.shape)
    old = before()
    if old.shape == exact.shape:  # else the node took up branches, and has grown
        small &= np.abs(old) >= old.dtype.type(smallest)
    if not small.any():
        return None
    largest = np.abs(exact)
    error = np.abs(rounded.astype(np.float64) - exact)
    # The output channel is axis 0 or 1 of a weight, depending on the op.
    beside = [
        largest.max(axis=tuple(a for a in range(exact.ndim) if a != axis), keepdims=True)
        for axis in range(min(exact.ndim, 2))
    ]
    harmed = np.zeros_like(small)
    for peak in beside:
        harmed |= error > u * peak
    lost = small & harmed
    count = int(np.count_nonzero(lost))
    if not count:
        return None
    zeros = int(np.count_nonzero(lost & (rounded == 0)))
    name = rounded.dtype.name
    became = f"{count - zeros} of {exact.size} folded weights of {where} became subnormal"
    if zeros:
        became += f" and {zeros} became 0"
    return Hazard(
        "underflow",
        f"{became} in {name} (below {smallest:.2g}), though they were not before the fold: its "
        "scale is too small for the type. Fold in float32, and convert after that.",
        count,
        exact.size,
        channels=tuple(int(row) for row in np.unique(np.nonzero(lost)[0])[:SAMPLE]),
        value=float(largest[lost].min()),
        where=where,
    )


def _never_updated(mean: Float64, var: Float64, untracked: bool) -> Hazard | None:
    if not mean.size or np.any(mean) or not np.all(var == 1.0):
        return None
    # The counter alone proves nothing: statistics ported from other frameworks come without it.
    counter = ", num_batches_tracked 0" if untracked else ""
    # Only torch's networks have that counter, and only these can be run over data here.
    remedy = " `recalibrate` can compute them from data." if untracked else ""
    return Hazard(
        "never-updated",
        f"its statistics were never updated (mean 0, variance 1{counter}): was the model "
        f"trained, and is this the trained file?{remedy}",
        mean.size,
        mean.size,
    )


def _dead(gamma: Float64) -> Hazard | None:
    return _channels(
        "dead-channels",
        gamma == 0.0,
        gamma,
        lambda count, total, worst: (
            f"{count} of {total} channels have gamma = 0 and are constant: they can be pruned "
            f"({worst})."
        ),
    )


def _zero_variance(gamma: Float64, var: Float64, eps: float) -> Hazard | None:
    gain = np.abs(gamma) / np.sqrt(eps)
    return _channels(
        "zero-variance",
        (var == 0.0) & (gamma != 0.0),
        gain,
        lambda count, total, worst: (
            f"{count} of {total} channels have variance 0: their input never changed in "
            f"training, and whatever changes now is multiplied by gamma/sqrt(eps), up to "
            f"{np.max(gain[(var == 0.0) & (gamma != 0.0)]):.3g} ({worst})."
        ),
    )


def _tiny_variance(gamma: Float64, var: Float64, eps: float) -> Hazard | None:
    share = eps / (var + eps)
    return _channels(
        "tiny-variance",
        (share > EPSILON_SHARE) & (var > 0.0) & (gamma != 0.0),
        share,
        lambda count, total, worst: (
            f"{count} of {total} channels have a variance far below epsilon ({eps:.3g}), down to "
            f"{np.min(var[var > 0.0]):.3g}: their scale is that of epsilon, not of the data "
            f"({worst})."
        ),
    )


def _huge_scale(scale: Float64, dtype: str) -> Hazard | None:
    size = np.abs(scale)
    peak = float(size.max(initial=0.0))
    limit = float(_info(np.dtype(dtype)).max)
    reach = f"; an input above {limit / peak:.3g} overflows {dtype}" if peak * 1e3 > limit else ""
    return _channels(
        "huge-scale",
        size > HUGE_SCALE,
        size,
        lambda count, total, worst: (
            f"{count} of {total} channels have a scale above {HUGE_SCALE:g}, up to {peak:.3g}: "
            f"rounding errors of their input grow with it{reach} ({worst})."
        ),
    )


def _mean_over_std(
    gamma: Float64, mean: Float64, var: Float64, eps: float, dtype: str
) -> Hazard | None:
    ratio = np.abs(mean) / np.sqrt(var + eps)
    limit = MEAN_OVER_STD.get(dtype, MEAN_OVER_STD_WIDE)
    return _channels(
        "large-mean",
        (ratio > limit) & (gamma != 0.0),
        ratio,
        lambda count, total, worst: (
            f"{count} of {total} channels have a mean of up to {np.max(ratio):.3g} times their "
            f"standard deviation: subtracting it cancels digits in {dtype}. A fold takes the "
            f"mean into the bias in float64, which is more accurate ({worst})."
        ),
    )


def _half_epsilon(gamma: Float64, var: Float64, eps: float, dtype: str) -> Hazard | None:
    """float16's smallest normal number is 6.1e-5: epsilon is stored with fewer bits, or as 0."""
    if dtype != "float16" or eps >= float(np.finfo(np.float16).smallest_normal):
        return None
    # The relative error of the scale, as d(var + eps)^-1/2 = -1/2 d(eps)/(var + eps).
    stored = float(np.float16(eps))
    error = np.abs(stored - eps) / (2.0 * (var + eps))
    return _channels(
        "half-epsilon",
        (error > 2.0**-11) & (gamma != 0.0),
        error,
        lambda count, total, worst: (
            f"epsilon ({eps:.3g}) is {'0' if stored == 0 else 'subnormal'} in float16, and in "
            f"{count} of {total} channels the variance is so small that a runtime which adds it "
            f"in float16 is wrong by up to {np.max(error):.2g} of the scale. The fold computes "
            f"in float64 ({worst})."
        ),
    )


def _channels(
    code: str,
    mask: npt.NDArray[np.bool_],
    size: Float64,
    sentence: Callable[[int, int, str], str],
) -> Hazard | None:
    """A hazard about the channels in `mask`; the worst are those with the largest `size`."""
    found = np.flatnonzero(mask)
    if not found.size:
        return None
    worst = found[np.argsort(-size[found], kind="stable")]
    named = [int(index) for index in worst[:SAMPLE]]
    plural = "channel" if found.size == 1 else "channels"
    listed = ", ".join(map(str, named)) + (", .." if found.size > SAMPLE else "")
    return Hazard(
        code,
        sentence(int(found.size), int(mask.size), f"{plural} {listed}"),
        int(found.size),
        int(mask.size),
        tuple(named),
        float(size[worst[0]]) if np.isfinite(size[worst[0]]) else None,
    )


def _below(values: npt.NDArray[Any], limit: float) -> npt.NDArray[np.intp]:
    """Where |value| < limit, as flat indices; block by block, because hardly any weight is."""
    flat = values.reshape(-1)
    bound = values.dtype.type(limit)
    found = [
        start + np.flatnonzero(np.abs(flat[start : start + _BLOCK]) < bound)
        for start in range(0, flat.size, _BLOCK)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.intp)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The smallest normal number of a type, and its unit roundoff."""
    info = _info(dtype)
    return float(info.smallest_normal), float(info.eps) / 2.0


def _info(dtype: np.dtype[Any]) -> Any:
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
