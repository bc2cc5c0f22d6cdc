"""Float64 kernels of the ops that do most of the work, each from the ONNX specification.

onnx's own reference evaluator covers every op, but its convolutions and pools are slow, and
its BatchNormalization of opsets 9 to 13 is not the specification's. These replace it where it
matters; torch does the inner loops, in float64. A kernel returns None for a case that it
leaves to the reference evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.evaluation.convolution import conv, conv_transpose, tensor
from converter.evaluation.gathering import gather_elements, one_hot
from converter.evaluation.normalizing import (
    lp_normalization,
    lrn,
    mean_variance_normalization,
    softmax_before_13,
)
from converter.evaluation.pad import pad
from converter.evaluation.pooling import (
    average_pool,
    global_average_pool,
    global_lp_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from converter.evaluation.quantization import dequantize_linear, quantize_linear
from converter.evaluation.recurrent import recurrent
from converter.evaluation.resize import resize
from converter.evaluation.sampling import grid_sample
from converter.graph.values import EPSILON

Array = npt.NDArray[Any]
Kernel = Callable[[ir.Node, Sequence[Array | None]], tuple[Array, ...] | None]


def batch_normalization(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """BatchNormalization-7/9/14/15: gamma*(x - mean)/sqrt(var + eps) + beta.

    In training (before version 14: with more than one output) mean and var are those of the
    batch, and the running ones, which are outputs too, move towards them by 1 - momentum.
    """
    x, *rest = (np.asarray(value) for value in inputs[:5])
    spatial = node.attributes.get_int("spatial", 1)
    shape = [1, -1] + [1] * (x.ndim - 2) if spatial else [1, *x.shape[1:]]
    gamma, beta, mean, var = (value.reshape(shape) for value in rest)
    running: tuple[Array, ...] = ()
    training = node.attributes.get_int("training_mode", 0)
    if training or sum(bool(value.name) for value in node.outputs) > 1:
        axes = tuple(axis for axis in range(x.ndim) if shape[axis] == 1)
        momentum = node.attributes.get_float("momentum", 0.9)
        now = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        running = tuple(
            (momentum * old + (1 - momentum) * new).reshape(rest[0].shape)
            for old, new in zip((mean, var), now, strict=True)
        )
        mean, var = now
    y = x - mean
    y *= gamma / np.sqrt(var + node.attributes.get_float("epsilon", EPSILON))
    y += beta
    return (y, *running)


def gemm(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Gemm-7/9/11/13: alpha*A'B' + beta*C."""
    a, b = np.asarray(inputs[0]), np.asarray(inputs[1])
    c = inputs[2] if len(inputs) > 2 else None
    a = a.T if node.attributes.get_int("transA", 0) else a
    b = b.T if node.attributes.get_int("transB", 0) else b
    y = node.attributes.get_float("alpha", 1.0) * (a @ b)
    return (y if c is None else y + node.attributes.get_float("beta", 1.0) * c,)


def matmul(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """MatMul-1/9/13."""
    del node
    return (np.matmul(np.asarray(inputs[0]), np.asarray(inputs[1])),)


def sigmoid(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Sigmoid-6/13."""
    del node
    return (torch.sigmoid(tensor(np.asarray(inputs[0]))).numpy(),)


def erf(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Erf-9/13."""
    del node
    return (torch.special.erf(tensor(np.asarray(inputs[0]))).numpy(),)


def group_normalization(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GroupNormalization-18 (a scale and bias per group) and 21 (per channel)."""
    x, scale, bias = (np.asarray(value) for value in inputs[:3])
    groups = node.attributes.get_int("num_groups", 1)
    grouped = x.reshape(x.shape[0], groups, -1)
    mean, var = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
    epsilon = node.attributes.get_float("epsilon", EPSILON)
    y = ((grouped - mean) / np.sqrt(var + epsilon)).reshape(x.shape)
    wide = [1, -1] + [1] * (x.ndim - 2)
    factor, shift = (np.repeat(v, x.shape[1] // v.size).reshape(wide) for v in (scale, bias))
    return (y * factor + shift,)


def mean(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Mean-8/13: of tensors that broadcast; the evaluator adds them up in the first one's
    shape."""
    del node
    total = np.asarray(inputs[0])
    for more in inputs[1:]:
        total = total + np.asarray(more)
    return (total / len(inputs),)


def identity(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Optional-15 of a value, and OptionalGetElement-15/18: the value itself."""
    del node
    there = inputs and inputs[0] is not None
    return (inputs[0],) if there else None  # type: ignore[return-value]


def is_there(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """OptionalHasElement-15/18."""
    del node
    return (np.asarray(bool(inputs) and inputs[0] is not None),)


KERNELS: dict[str, Kernel] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "BatchNormalization": batch_normalization,
    "Gemm": gemm,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalMaxPool": global_max_pool,
    "GlobalAveragePool": global_average_pool,
    "Sigmoid": sigmoid,
    "Erf": erf,
    "GroupNormalization": group_normalization,
    "Pad": pad,
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "Resize": resize,
    "Upsample": resize,
    "GridSample": grid_sample,
    "RNN": recurrent,
    "LSTM": recurrent,
    "GRU": recurrent,
    "LRN": lrn,
    "LpNormalization": lp_normalization,
    "Mean": mean,
    "GatherElements": gather_elements,
    "OneHot": one_hot,
    "Optional": identity,
    "OptionalGetElement": identity,
    "OptionalHasElement": is_there,
    "MeanVarianceNormalization": mean_variance_normalization,
    "GlobalLpPool": global_lp_pool,
}
_BEFORE_13: dict[str, Kernel] = dict.fromkeys(
    ("Softmax", "LogSoftmax", "Hardmax"), softmax_before_13
)


def kernels_of(opset: int) -> dict[str, Kernel]:
    """The kernels for the ops as that opset defines them, by op type."""
    return KERNELS | _BEFORE_13 if opset < 13 else KERNELS
