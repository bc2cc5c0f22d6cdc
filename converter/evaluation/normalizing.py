"""Normalisations that onnx's reference evaluator gets wrong in float64 or for old opsets.

Before opset 13, Softmax, LogSoftmax and Hardmax treat all axes from `axis` on as one, and `axis` is
1 where it is not given (Softmax-11); the evaluator has only the later meaning. Its LRN confuses the
number of samples with that of channels, and its MeanVarianceNormalization adds a float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]


def softmax_before_13(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Softmax-1/11, LogSoftmax-1/11 and Hardmax-1/11: over the rows of a matrix."""
    x = np.asarray(inputs[0])
    axis = node.attributes.get_int("axis", 1)
    rows = prod(x.shape[: axis + x.ndim if axis < 0 else axis])
    matrix = x.reshape(rows, -1) if x.size else x
    if not x.size:
        return (x,)
    if node.op_type == "Hardmax":
        found = np.zeros_like(matrix)
        found[np.arange(rows), matrix.argmax(axis=1)] = 1.0
        return (found.reshape(x.shape),)
    shifted = matrix - matrix.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    found = np.exp(shifted) / total if node.op_type == "Softmax" else shifted - np.log(total)
    return (found.reshape(x.shape),)


def lrn(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """LRN-1/13: x / (bias + alpha/size * the sum of squares over `size` channels) ** beta."""
    x = np.asarray(inputs[0])
    size = node.attributes.get_int("size", 1)
    before, channels = (size - 1) // 2, x.shape[1]
    squares = np.stack(
        [
            np.sum(x[:, max(0, c - before) : c - before + size] ** 2, axis=1)
            for c in range(channels)
        ],
        axis=1,
    )
    alpha, beta = (
        node.attributes.get_float("alpha", 1e-4),
        node.attributes.get_float("beta", 0.75),
    )
    return (x / (node.attributes.get_float("bias", 1.0) + alpha / size * squares) ** beta,)


def mean_variance_normalization(
    node: ir.Node, inputs: Sequence[Array | None]
) -> tuple[Array, ...] | None:
    """MeanVarianceNormalization-9/13: (x - mean) / (std + 1e-9) over `axes`."""
    x = np.asarray(inputs[0])
    axes = tuple(node.attributes.get_ints("axes", (0, 2, 3)))
    centred = x - x.mean(axis=axes, keepdims=True)
    return (centred / (np.sqrt(np.mean(centred**2, axis=axes, keepdims=True)) + 1e-9),)


def lp_normalization(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """LpNormalization-1/22: x over its p-norm along an axis; 0 where that is 0.

    The evaluator does not take the magnitudes for p = 1.
    """
    x, p = np.asarray(inputs[0]), node.attributes.get_int("p", 2)
    axis = node.attributes.get_int("axis", -1)
    norm = np.sum(np.abs(x) ** p, axis=axis, keepdims=True) ** (1.0 / p)
    return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0.0),)
