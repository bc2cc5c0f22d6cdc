"""From float64 to the type of the weights: rounded to nearest even, exactly once."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def round_once(values: Float64, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`values` in `dtype`, each rounded once (ties to even); values too large become infinite.

    numpy rounds float64 to float32 and float16 directly. ml_dtypes reaches bfloat16 through
    float32, which rounds twice; rounding to odd in between (Boldo & Melquiond 2008,
    "Emulation of FMA and correctly rounded sums") makes the second rounding the only one.
    """
    target = np.dtype(dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if target == np.dtype(ml_dtypes.bfloat16):
            return _to_odd_float32(values).astype(target)
        return values.astype(target)


def _to_odd_float32(values: Float64) -> npt.NDArray[np.float32]:
    near = values.astype(np.float32)
    even = (near.view(np.uint32) & 1) == 0
    error = values - near
    inexact = np.isfinite(near) & (error != 0.0)
    neighbour = np.nextafter(near, np.where(error > 0, np.inf, -np.inf).astype(np.float32))
    return np.where(inexact & even, neighbour, near).astype(np.float32)
