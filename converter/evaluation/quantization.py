"""QuantizeLinear and DequantizeLinear of every opset (ONNX 10/13/19/21/23), per tensor or channel.

onnx's reference evaluator has them from opset 19 on; models from quantization-aware training come
with opset 13. Blocked quantization and 8-bit floating-point types are left to the evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]


def quantize_linear(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """y = saturate(round_half_to_even(x / scale) + zero_point)."""
    if "output_dtype" in node.attributes and len(inputs) < 3:
        return None
    x, scale, zero = _operands(node, inputs)
    if x is None or scale is None or zero is None:
        return None
    limits = np.iinfo(zero.dtype)
    y = np.rint(x / scale) + zero
    return (np.clip(y, limits.min, limits.max).astype(zero.dtype),)


def dequantize_linear(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """y = (x - zero_point) * scale."""
    x, scale, zero = _operands(node, inputs)
    if x is None or scale is None or zero is None or not np.issubdtype(x.dtype, np.integer):
        return None
    return ((x.astype(np.float64) - zero) * scale,)


def _operands(
    node: ir.Node, inputs: Sequence[Array | None]
) -> tuple[Array | None, Array | None, Array | None]:
    """The tensor, and scale and zero point in a shape that broadcasts over it.

    None where the case is left to the reference evaluator.
    """
    nothing = None, None, None
    x, scale = inputs[0], inputs[1]
    given = inputs[2] if len(inputs) > 2 else None
    if x is None or scale is None or node.attributes.get_int("block_size", 0) != 0:
        return nothing
    zero = np.zeros_like(scale, dtype=np.uint8) if given is None else given
    if not np.issubdtype(zero.dtype, np.integer):
        return nothing
    if scale.size == 1:
        return x, scale.reshape(()), zero.reshape(())
    if scale.ndim != 1:
        return nothing
    wide = [1] * x.ndim
    wide[node.attributes.get_int("axis", 1)] = -1
    return x, scale.reshape(wide), zero.reshape(wide)
