"""Float64 kernels of the ops that carry the work, each from the ONNX operator specification.

onnx's own reference evaluator covers every op, but its convolutions and pools are slow, and
its BatchNormalization of opsets 9 to 13 is not the specification's. These replace it where it
matters; torch does the inner loops, in float64. A kernel returns None for a case that it
leaves to the reference evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch.nn import functional as F

from converter.proof.normalizing import (
    global_lp_pool,
    lrn,
    mean_variance_normalization,
    softmax_before_13,
)
from converter.proof.pad import pad
from converter.proof.quantization import dequantize_linear, quantize_linear
from converter.proof.recurrent import recurrent
from converter.proof.resize import resize
from converter.proof.sampling import grid_sample, unpadded_places

Array = npt.NDArray[Any]
Kernel = Callable[[ir.Node, Sequence[Array | None]], tuple[Array, ...] | None]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else list(attribute.as_ints())


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64, order="C", copy=True))


def _pads(
    node: ir.Node, size: Sequence[int], reach: Sequence[int], stride: Sequence[int]
) -> list[tuple[int, int]]:
    """(begin, end) for each spatial axis. `reach` is (kernel - 1) * dilation + 1."""
    axes = len(size)
    mode = node.attributes.get("auto_pad")
    name = "NOTSET" if mode is None else mode.as_string()
    if name in {"SAME_UPPER", "SAME_LOWER"}:
        found = []
        for i in range(axes):
            total = max(0, (-(-size[i] // stride[i]) - 1) * stride[i] + reach[i] - size[i])
            small, large = total // 2, total - total // 2
            found.append((small, large) if name == "SAME_UPPER" else (large, small))
        return found
    pads = [0] * (2 * axes) if name == "VALID" else _ints(node, "pads", [0] * (2 * axes))
    return [(pads[i], pads[axes + i]) for i in range(axes)]


def _padded(x: torch.Tensor, pads: Sequence[tuple[int, int]], value: float) -> torch.Tensor:
    """Pad the spatial axes; a negative size crops."""
    flat = [amount for begin, end in reversed(pads) for amount in (begin, end)]
    return F.pad(x, flat, value=value)


def conv(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Conv-1/11/22."""
    x, w = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or x.ndim - 2 not in _CONV:
        return None
    axes = x.ndim - 2
    stride, dilation = _ints(node, "strides", [1] * axes), _ints(node, "dilations", [1] * axes)
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    source = _padded(_tensor(x), _pads(node, x.shape[2:], reach, stride), 0.0)
    group = _int(node, "group", 1)
    if group == x.shape[1] > 1:
        y = _depthwise(source, _tensor(w), stride, dilation)
        return (y.numpy() if bias is None else y.numpy() + bias.reshape(-1, *[1] * axes),)
    y = _CONV[axes](
        source, _tensor(w), None if bias is None else _tensor(bias),
        stride=stride, dilation=dilation, groups=group,
    )  # fmt: skip
    return (y.numpy(),)


def _depthwise(
    x: torch.Tensor, w: torch.Tensor, stride: Sequence[int], dilation: Sequence[int]
) -> torch.Tensor:
    """One input channel a group, summed tap by tap: torch runs float64 groups one by one."""
    x = x.repeat_interleave(w.shape[0] // x.shape[1], dim=1)
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape[2:], w.shape[2:], dilation, stride, strict=True)
    ]
    y = torch.zeros((*x.shape[:2], *sizes), dtype=torch.float64)
    for at, tap in enumerate(product(*(range(k) for k in w.shape[2:]))):
        window: tuple[slice, ...] = tuple(
            slice(u * d, u * d + (n - 1) * s + 1, s)
            for u, d, s, n in zip(tap, dilation, stride, sizes, strict=True)
        )
        factor = w[:, 0].flatten(1)[:, at].reshape(-1, *[1] * len(sizes))
        y += x[:, :, *window] * factor
    return y


def conv_transpose(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """ConvTranspose-1/11/22: the full result, cropped by the pads, then the bias."""
    x, w = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or x.ndim - 2 not in _CONV_TRANSPOSE:
        return None
    axes = x.ndim - 2
    stride, dilation = _ints(node, "strides", [1] * axes), _ints(node, "dilations", [1] * axes)
    extra = _ints(node, "output_padding", [0] * axes)
    full = _CONV_TRANSPOSE[axes](
        _tensor(x), _tensor(w), stride=stride, dilation=dilation, groups=_int(node, "group", 1)
    )
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    crop = []
    for i, (begin, end) in enumerate(_transpose_pads(node, x.shape[2:], reach, stride, extra)):
        size = stride[i] * (x.shape[2 + i] - 1) + extra[i] + reach[i] - begin - end
        crop.append((-begin, size - (int(full.shape[2 + i]) - begin)))
    y = _padded(full, crop, 0.0)
    if bias is not None:
        y = y + _tensor(bias).reshape(-1, *[1] * axes)
    return (y.numpy(),)


def _transpose_pads(
    node: ir.Node,
    size: Sequence[int],
    reach: Sequence[int],
    stride: Sequence[int],
    extra: Sequence[int],
) -> list[tuple[int, int]]:
    mode = node.attributes.get("auto_pad")
    name = "NOTSET" if mode is None else mode.as_string()
    shape = node.attributes.get("output_shape")
    axes = len(size)
    if shape is None and name not in {"SAME_UPPER", "SAME_LOWER"}:
        return _pads(node, size, reach, stride)
    wanted = (
        list(shape.as_ints())[-axes:]
        if shape is not None
        else [n * s for n, s in zip(size, stride, strict=True)]
    )
    found = []
    for i in range(axes):
        total = max(0, stride[i] * (size[i] - 1) + extra[i] + reach[i] - wanted[i])
        small, large = total // 2, total - total // 2
        found.append((small, large) if name == "SAME_UPPER" else (large, small))
    return found


def batch_normalization(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """BatchNormalization-7/9/14/15: gamma*(x - mean)/sqrt(var + eps) + beta.

    In training (before version 14: with more than one output) mean and var are those of the
    batch, and the running ones, which come out too, move towards them by 1 - momentum.
    """
    x, *rest = (np.asarray(value) for value in inputs[:5])
    shape = [1, -1] + [1] * (x.ndim - 2) if _int(node, "spatial", 1) else [1, *x.shape[1:]]
    gamma, beta, mean, var = (value.reshape(shape) for value in rest)
    running: tuple[Array, ...] = ()
    if _int(node, "training_mode", 0) or sum(bool(value.name) for value in node.outputs) > 1:
        axes = tuple(axis for axis in range(x.ndim) if shape[axis] == 1)
        momentum = _float(node, "momentum", 0.9)
        now = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        running = tuple(
            (momentum * old + (1 - momentum) * new).reshape(rest[0].shape)
            for old, new in zip((mean, var), now, strict=True)
        )
        mean, var = now
    y = gamma * (x - mean) / np.sqrt(var + _float(node, "epsilon", 1e-5)) + beta
    return (y, *running)


def gemm(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Gemm-7/9/11/13: alpha*A'B' + beta*C."""
    a, b = np.asarray(inputs[0]), np.asarray(inputs[1])
    c = inputs[2] if len(inputs) > 2 else None
    a = a.T if _int(node, "transA", 0) else a
    b = b.T if _int(node, "transB", 0) else b
    y = _float(node, "alpha", 1.0) * (a @ b)
    return (y if c is None else y + _float(node, "beta", 1.0) * c,)


def matmul(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """MatMul-1/9/13."""
    del node
    return (np.matmul(np.asarray(inputs[0]), np.asarray(inputs[1])),)


def _windows(
    node: ir.Node, x: Array
) -> tuple[list[int], list[int], list[int], list[tuple[int, int]], list[tuple[int, int]]] | None:
    """kernel, stride, dilation, the pads, and the pads that make every window fit exactly.

    With ceil_mode a last window may hang over the end, but must start inside the input or
    its begin padding (MaxPool-12, AveragePool-19).
    """
    axes = x.ndim - 2
    if axes not in _MAX_POOL or not node.attributes.get("kernel_shape"):
        return None
    kernel = _ints(node, "kernel_shape", [])
    stride, dilation = _ints(node, "strides", [1] * axes), _ints(node, "dilations", [1] * axes)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = _pads(node, x.shape[2:], reach, stride)
    exact = []
    for i, (begin, end) in enumerate(pads):
        span = x.shape[2 + i] + begin + end - reach[i]
        count = span // stride[i] + 1
        if _int(node, "ceil_mode", 0):
            count = -(-span // stride[i]) + 1
            if (count - 1) * stride[i] >= x.shape[2 + i] + begin:
                count -= 1
        exact.append((begin, (count - 1) * stride[i] + reach[i] - x.shape[2 + i] - begin))
    return kernel, stride, dilation, pads, exact


def max_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """MaxPool-1/8/10/11/12, of floats and of integers; padding never wins."""
    x = np.asarray(inputs[0])
    windows = _windows(node, x)
    if windows is None:
        return None
    kernel, stride, dilation, _, exact = windows
    y, places = _MAX_POOL[x.ndim - 2](
        _padded(_tensor(x), exact, -np.inf),
        kernel,
        stride=stride,
        dilation=dilation,
        return_indices=True,
    )
    found: Array = y.numpy().astype(x.dtype, copy=False)
    if len(node.outputs) == 1:
        return (found,)
    return found, unpadded_places(node, places.numpy(), x.shape, exact)


def average_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """AveragePool-1/7/10/11/19: the sum of a window over the count of what it may count."""
    x = np.asarray(inputs[0])
    windows = _windows(node, x)
    if windows is None or any(d != 1 for d in windows[2]):
        return None
    kernel, stride, _, pads, exact = windows
    axes = x.ndim - 2
    inside = torch.ones((1, 1, *x.shape[2:]), dtype=torch.float64)
    if _int(node, "count_include_pad", 0):
        inside = _padded(inside, pads, 1.0)
        rest = [(0, e[1] - p[1]) for p, e in zip(pads, exact, strict=True)]
        counted = _padded(inside, rest, 0.0)
    else:
        counted = _padded(inside, exact, 0.0)
    pool = _AVG_POOL[axes]
    total = pool(_padded(_tensor(x), exact, 0.0), kernel, stride=stride)
    return ((total / pool(counted, kernel, stride=stride)).numpy(),)


def sigmoid(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Sigmoid-6/13."""
    del node
    return (torch.sigmoid(_tensor(np.asarray(inputs[0]))).numpy(),)


def erf(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Erf-9/13."""
    del node
    return (torch.special.erf(_tensor(np.asarray(inputs[0]))).numpy(),)


def group_normalization(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GroupNormalization-18 (a scale and bias a group) and 21 (a channel)."""
    x, scale, bias = (np.asarray(value) for value in inputs[:3])
    groups = _int(node, "num_groups", 1)
    grouped = x.reshape(x.shape[0], groups, -1)
    mean, var = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
    y = ((grouped - mean) / np.sqrt(var + _float(node, "epsilon", 1e-5))).reshape(x.shape)
    wide = [1, -1] + [1] * (x.ndim - 2)
    factor, shift = (np.repeat(v, x.shape[1] // v.size).reshape(wide) for v in (scale, bias))
    return (y * factor + shift,)


KERNELS: dict[str, Kernel] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "BatchNormalization": batch_normalization,
    "Gemm": gemm,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
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
    "MeanVarianceNormalization": mean_variance_normalization,
    "GlobalLpPool": global_lp_pool,
}
_BEFORE_13: dict[str, Kernel] = dict.fromkeys(
    ("Softmax", "LogSoftmax", "Hardmax"), softmax_before_13
)


def kernels_of(opset: int) -> dict[str, Kernel]:
    """By op: the kernels for what the ops of that opset mean."""
    return KERNELS | _BEFORE_13 if opset < 13 else KERNELS
