"""How the constants of a linear op change when it absorbs an affine: pure arithmetic.

`AFTER` is for y' = a*y + b on the op's output, `BEFORE` for x' = a*x + b on its data input.

One function an op, on float64 copies (`Constants`); nothing is rounded and no graph is
touched here. Whether an update is allowed is asked elsewhere (`sinks.py`, `moves/`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from converter.folding import contractions
from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.graph.rounding import Float64

Update = Callable[[Constants, Affine], None]


def _conv(constants: Constants, affine: Affine) -> None:
    """W[o] *= a[o], bias = a*bias + b; W is (Cout, Cin/group, k...)."""
    weight = constants[1]
    weight *= along_axis(affine.scale, 0, weight.ndim)  # a copy; large ones cost memory
    constants[1] = weight
    _bias(constants, affine)


def _conv_transpose(constants: Constants, affine: Affine) -> None:
    """W is (Cin, Cout/group, k...): seen as (group, Cin/group, Cout/group, k...), it is
    multiplied by a seen as (group, 1, Cout/group, 1...)."""
    weight = constants[1]
    group = constants.integer("group", 1)
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(group, inputs // group, outputs, *kernel)
    scale = affine.scale.reshape(group, 1, outputs, *[1] * len(kernel))
    constants[1] = (grouped * scale).reshape(weight.shape)
    _bias(constants, affine)


def _bias(constants: Constants, affine: Affine) -> None:
    """bias = a*bias + b, a missing bias being zero."""
    bias = constants.get(2)
    if bias is not None:
        constants[2] = affine.scale * bias + affine.shift
    elif affine.shifts:
        constants[2] = affine.shift


def _gemm(constants: Constants, affine: Affine) -> None:
    """alpha*A'(B'*a) + 1*(a*(beta*C) + b); B' has the output's columns, alpha stays."""
    columns = 0 if constants.integer("transB", 0) else 1
    constants[1] = constants[1] * along_axis(affine.scale, columns, 2)
    bias = constants.get(2)  # (), (1,), (N,), (1, N), (M, N)
    if bias is not None:
        beta = constants.real("beta", 1.0)
        constants[2] = affine.scale * (beta * bias) + affine.shift
        constants.set_real("beta", 1.0)
    elif affine.shifts:
        constants[2] = affine.shift
        constants.set_real("beta", 1.0)


def _matmul(constants: Constants, affine: Affine) -> None:
    """B *= a on its last axis, B being (.., K, N), or A *= a on its rows, A being (M, K); MatMul
    has no bias, so b stays behind it."""
    weight = constants.constant_index()
    scale = affine.scale if weight == 1 else affine.scale[:, None]
    constants[weight] = constants[weight] * scale
    if constants.behind is not None or affine.shifts:
        before = 0.0 if constants.behind is None else constants.behind
        constants.behind = affine.scale * before + affine.shift
        constants.behind_axis = affine.axis


def _batchnorm(constants: Constants, affine: Affine) -> None:
    """gamma *= a, beta = a*beta + b."""
    constants[1] = affine.scale * constants[1]
    constants[2] = affine.scale * constants[2] + affine.shift


def _normalisation(constants: Constants, affine: Affine) -> None:
    """scale *= a, bias = a*bias + b along an axis of theirs; LayerNormalization may lack b."""
    scale, bias = constants[1], constants.get(2)
    factor, shift = (
        along_axis(values, affine.axis, scale.ndim) for values in (affine.scale, affine.shift)
    )
    if bias is not None:
        constants[2] = factor * bias + shift
    elif affine.shifts:
        constants[2] = np.broadcast_to(shift, scale.shape)
    constants[1] = factor * scale


def _add(constants: Constants, affine: Affine) -> None:
    """a*(x + c) + b = a*x + (a*c + b): the constant takes the shift."""
    index, rank = constants.constant_index(), constants.output_rank()
    scale = along_axis(affine.scale, affine.axis, rank)
    constants[index] = scale * constants[index] + along_axis(affine.shift, affine.axis, rank)


def _sub(constants: Constants, affine: Affine) -> None:
    """a*(x - c) + b = a*x - (a*c - b);  a*(c - x) + b = (a*c + b) - a*x."""
    index, rank = constants.constant_index(), constants.output_rank()
    scale = along_axis(affine.scale, affine.axis, rank)
    shift = along_axis(affine.shift, affine.axis, rank)
    constants[index] = scale * constants[index] + (shift if index == 0 else -shift)


def _add_before(constants: Constants, affine: Affine) -> None:
    """(a*x + b) + c = a*(x + (c + b)/a)."""
    _over_scale(constants, affine, 1.0)


def _sub_before(constants: Constants, affine: Affine) -> None:
    """(a*x + b) - c = a*(x - (c - b)/a);  c - (a*x + b) = a*((c - b)/a - x)."""
    _over_scale(constants, affine, -1.0)


def _over_scale(constants: Constants, affine: Affine, sign: float) -> None:
    index, rank = constants.constant_index(), constants.output_rank()
    shift = along_axis(affine.shift, affine.axis, rank)
    scale = along_axis(affine.scale, affine.axis, rank)
    constants[index] = (constants[index] + sign * shift) / scale


def _mul(constants: Constants, affine: Affine) -> None:
    """a*(c*x) = (a*c)*x."""
    index, rank = constants.constant_index(), constants.output_rank()
    constants[index] = constants[index] * along_axis(affine.scale, affine.axis, rank)


def _div(constants: Constants, affine: Affine) -> None:
    """a*(c/x) = (a*c)/x;  a*(x/c) = x/(c/a)."""
    index, rank = constants.constant_index(), constants.output_rank()
    scale = along_axis(affine.scale, affine.axis, rank)
    constants[index] = constants[index] * scale if index == 0 else constants[index] / scale


def _clip(constants: Constants, affine: Affine) -> None:
    """a*clip(x, lo, hi) + b = clip(a*x + b, a*lo + b, a*hi + b); a Relu is one of lo = 0."""
    constants.thresholds = constants.bounds().after(affine)


def _clip_before(constants: Constants, affine: Affine) -> None:
    """clip(a*x + b, lo, hi) = a*clip(x, (lo - b)/a, (hi - b)/a) + b."""
    constants.thresholds = constants.bounds().before(affine)


def _gather(constants: Constants, affine: Affine) -> None:
    """table = a*table + b along the axis of the table."""
    table = constants[0]
    scale, shift = (
        along_axis(values, affine.axis, table.ndim) for values in (affine.scale, affine.shift)
    )
    constants[0] = scale * table + shift


def _add_bias(target: Constants, bias: Float64 | None) -> None:
    if bias is not None and np.any(bias):
        before = target.get(2)
        target[2] = bias if before is None else before + bias


def _conv_before(constants: Constants, affine: Affine) -> None:
    """W[o, i] *= a[group(o), i], bias[o] += sum over i and k of W[o, i, k]*b[group(o), i]."""
    weight = constants[1]  # (Cout, Cin/group, k...)
    outputs, per_group, *kernel = weight.shape
    group = constants.integer("group", 1)
    shape = (outputs, per_group, *[1] * len(kernel))
    scale, shift = (
        np.repeat(values.reshape(group, per_group), outputs // group, axis=0).reshape(shape)
        for values in (affine.scale, affine.shift)
    )
    _add_bias(constants, (weight * shift).sum(axis=tuple(range(1, weight.ndim))))
    constants[1] = weight * scale


def _conv_transpose_before(constants: Constants, affine: Affine) -> None:
    """bias[o] += sum of W[i, o]*b[i] in each group, W[i] *= a[i]; W is (Cin, Cout/group, k...),
    and its kernel has one tap where there is a shift."""
    weight = constants[1]
    if affine.shifts:
        group = constants.integer("group", 1)
        inputs, outputs = weight.shape[:2]
        taps = (weight.reshape(inputs, outputs) * affine.shift[:, None]).reshape(group, -1, outputs)
        _add_bias(constants, taps.sum(axis=1).ravel())
    constants[1] = weight * along_axis(affine.scale, 0, weight.ndim)


def _gemm_before(constants: Constants, affine: Affine) -> None:
    """C = beta*C + alpha*(b B'), then the rows of B' *= a."""
    weight = constants[1]
    transposed = bool(constants.integer("transB", 0))
    if affine.shifts:
        product = affine.shift @ (weight.T if transposed else weight)
        before = constants.get(2)
        bias = 0.0 if before is None else constants.real("beta", 1.0) * before
        constants[2] = bias + constants.real("alpha", 1.0) * product
        constants.set_real("beta", 1.0)
    constants[1] = weight * along_axis(affine.scale, 1 if transposed else 0, 2)


def _matmul_before(constants: Constants, affine: Affine) -> None:
    """b B is added behind, then the rows of B *= a, B being (.., K, N); A b, and the columns of
    A, where the constant is on the left."""
    index = constants.constant_index()
    weight = constants[index]
    if affine.shifts:
        before = 0.0 if constants.behind is None else constants.behind
        product = affine.shift @ weight if index == 1 else weight @ affine.shift
        constants.behind = before + product
        constants.behind_axis = constants.output_rank() - (1 if index == 1 else 2)
    constants[index] = weight * (affine.scale[:, None] if index == 1 else affine.scale)


def _batchnorm_before(constants: Constants, affine: Affine) -> None:
    """beta += gamma/std*(a*mean + b - mean), then gamma *= a."""
    gamma, mean, var = constants[1], constants[3], constants[4]
    slope = gamma / np.sqrt(var + constants.real("epsilon", 1e-5))
    constants[2] = constants[2] + slope * (affine.scale * mean + affine.shift - mean)
    constants[1] = gamma * affine.scale


def _recurrent_before(constants: Constants, affine: Affine) -> None:
    """Wb += W b, then W *= a; W is (directions, gates*H, I), B is [Wb, Rb]."""
    weight = constants[1]
    if affine.shifts:
        directions, rows, _ = weight.shape
        before = constants.get(3)
        bias = np.zeros((directions, 2 * rows)) if before is None else before.copy()
        bias[:, :rows] += weight @ affine.shift
        constants[3] = bias
    constants[1] = weight * affine.scale


BEFORE: dict[str, Update] = {
    "Conv": _conv_before,
    "ConvTranspose": _conv_transpose_before,
    "Gemm": _gemm_before,
    "MatMul": _matmul_before,
    "Einsum": contractions.update_before,
    "BatchNormalization": _batchnorm_before,
    "RNN": _recurrent_before,
    "LSTM": _recurrent_before,
    "GRU": _recurrent_before,
    "Add": _add_before,
    "Sub": _sub_before,
    **dict.fromkeys(("Relu", "Clip", "Max", "Min"), _clip_before),
}

AFTER: dict[str, Update] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": contractions.update_after,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _normalisation,
    "InstanceNormalization": _normalisation,
    "GroupNormalization": _normalisation,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Gather": _gather,
    **dict.fromkeys(("Relu", "Clip", "Max", "Min"), _clip),
}
