"""Constants of constants, in float64: by numpy where it is plain, else by onnx's own evaluator.

What is computed from sizes is named (`origins.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from converter.certificate.arrays import MOST, Array, count
from converter.certificate.context import REAL, UNITS, Context, attributes, frozen
from converter.certificate.forms import Known, Value
from converter.certificate.moving import moved
from converter.certificate.origins import Operand
from converter.certificate.verdict import Doubt

# What gives no more numbers than it reads.
_BOUNDED = frozenset(
    {"Shape", "Size", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten", "Split"}
    | {"Slice", "NonZero", "Unique", "Compress", "Not", "Abs", "Exp", "Log", "Floor", "Ceil"}
    | {
        "DequantizeLinear",
        "ReduceProd",
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "BatchNormalization",
    }
)
# One rounding and half of the smallest number of the types that numpy calls by these names.
_FLOATS = {
    "float16": UNITS[ir.DataType.FLOAT16],
    "bfloat16": UNITS[ir.DataType.BFLOAT16],
    "float32": UNITS[ir.DataType.FLOAT],
    "float64": UNITS[ir.DataType.DOUBLE],
}
_SIMPLE: dict[str, Any] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Identity": lambda a: a,
    "Equal": np.equal,
    "Where": np.where,
    "MatMul": np.matmul,
}


# These give the numbers that they are given: minus infinity in a mask stays what it is.
HANDING_ON = frozenset(
    {"Concat", "ConstantOfShape", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze", "Where"}
)


def evaluated(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    """The results of a node that reads constants alone."""
    known = [value for value in values if isinstance(value, Known)]
    if (there := moved(ctx, node, values)) is not None:
        return [there]
    if node.op_type in {"Cast", "CastLike"}:
        made = ctx.seen(_cast(known, attributes(node, ctx.opset)))
        return [_named(ctx, node, known[:1], [made])[0]]
    arrays = [None if value is None else value.array for value in values if value is None
              or isinstance(value, Known)]  # fmt: skip
    _must_fit(ctx, node, values, arrays)
    results = _computed(ctx, node, arrays)
    reals = [value for value in known if value.real]
    gives: list[Known] = []
    for result in results:
        array = np.asarray(result)
        if array.size > MOST:
            raise Doubt(f"a constant of {array.size:,} numbers is computed")
        if str(array.dtype) in _FLOATS:
            types = [(value.unit, value.tiny) for value in reals] or [_FLOATS[str(array.dtype)]]
            array = array.astype(np.float64)
            why = _undefined(node.op_type, array, known)
            gives.append(ctx.seen(Known(array, *max(types), undefined=why)))
        else:
            gives.append(Known(array))
    return list(_named(ctx, node, values, gives))


def _undefined(op: str, array: Array, known: Sequence[Known]) -> str:
    """Why a result is not finite, which is no fault as long as nothing but a Where reads it."""
    before = next((value.undefined for value in known if value.undefined), "")
    handed_on = op in HANDING_ON and not before and not np.isnan(array).any()
    if handed_on or np.isfinite(array).all():
        return ""
    return before or f"a {op} of constants gives what is not finite"


def _named(
    ctx: Context, node: ir.Node, values: Sequence[Value], results: list[Known]
) -> Sequence[Known]:
    """The results with the names of their numbers, if a value that was read has some."""
    if not any(isinstance(v, Known) and v.sized for v in values):
        return results
    x = values[0]
    if node.op_type in {"Cast", "CastLike"} and isinstance(x, Known) and x.real:
        (made,) = results
        if made.real and made.unit == x.unit:  # nothing is rounded
            return [replace(made, sized=x.sized)]
    operands = [Operand(v.array, v.sized) if isinstance(v, Known) else None for v in values]
    names = ctx.space.names.of_op(
        node, frozen(attributes(node, ctx.opset)), operands, [value.array for value in results],
        lambda arrays: _computed(ctx, node, arrays), second=ctx.space.second,
    )  # fmt: skip
    return [
        value if ctx.space.names.fixed(sizes) else replace(value, sized=sizes)
        for value, sizes in zip(results, names, strict=True)
    ]


def _computed(ctx: Context, node: ir.Node, arrays: Sequence[Any]) -> Sequence[Any]:
    op, attrs = node.op_type, attributes(node, ctx.opset)
    if op in _SIMPLE:
        with np.errstate(all="ignore"):
            return [_SIMPLE[op](*arrays)]
    if op == "BatchNormalization":
        x, gamma, beta, mean, var = arrays[:5]
        # What it makes of the running statistics is left out: who reads it is in doubt.
        if attrs.get("training_mode", 0) or sum(bool(value.name) for value in node.outputs) > 1:
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            mean, var = x.mean(axes), x.var(axes)
        shape = (1, -1, *[1] * (x.ndim - 2))
        a = (gamma / np.sqrt(var + attrs["epsilon"])).reshape(shape)
        return [a * (x - mean.reshape(shape)) + beta.reshape(shape)]
    if op == "DequantizeLinear" and not attrs.get("block_size"):
        return [_dequantized(arrays, attrs)]
    return _reference(ctx, node, arrays)


def _dequantized(arrays: Sequence[Any], attrs: dict[str, Any]) -> Array:
    """(x - zero point) * scale, with one of each, or one of each place along an axis."""
    x, scale, *zero = (np.asarray(array, np.float64) for array in arrays)
    shape = [1] * x.ndim
    if scale.size != 1:
        shape[attrs.get("axis", 1)] = -1
    away = x - zero[0].reshape(shape if zero[0].size != 1 else ()) if zero else x
    return np.asarray(away * scale.reshape(shape if scale.size != 1 else ()))


def _cast(known: Sequence[Known], attrs: dict[str, Any]) -> Known:
    """Of a constant, a cast to a narrower type is no rounding while a graph runs: it is done."""
    x = known[0]
    if "to" in attrs:
        to = ir.DataType(int(attrs["to"]))
    elif known[1].real:
        to = next(dtype for dtype, (unit, _) in UNITS.items() if unit == known[1].unit)
    else:
        to = ir.DataType.from_numpy(known[1].array.dtype)
    if to == ir.DataType.STRING or x.array.dtype.hasobject:
        raise Doubt("it casts a constant to text, or from it")
    if to not in REAL:
        with np.errstate(all="ignore"):
            return Known(x.array.astype(to.numpy()))
    array = x.array.astype(np.float64)
    if x.unit < UNITS[to][0]:
        array = x.array.astype(to.numpy()).astype(np.float64)
    if np.isnan(array).any() or np.any(np.isinf(array) & ~np.isinf(x.array)):
        raise Doubt("a Cast of constants gives what is not finite")
    return Known(array, *max((x.unit, x.tiny), UNITS[to]))


def _must_fit(ctx: Context, node: ir.Node, values: Sequence[Value], arrays: Sequence[Any]) -> None:
    """
    Raises:
        Doubt: the result would have more numbers than are held, or nobody knows how many.
    """
    if node.op_type == "MatMul":
        shapes = [(*arrays[0].shape[:-1], *arrays[1].shape[-1:])]
    elif node.op_type in _SIMPLE:
        shapes = [np.broadcast_shapes(*(array.shape for array in arrays))]
    elif node.op_type in _BOUNDED:
        return
    else:
        shapes = [shape for shape, _ in ctx.results(node, values) if shape is not None]
        if not shapes:
            raise Doubt("it is not known how many numbers it gives")
    for shape in shapes:
        if count(shape) > MOST:
            raise Doubt(f"a constant of {count(shape):,} numbers is computed")


def _reference(ctx: Context, node: ir.Node, arrays: Sequence[Any]) -> Sequence[Any]:
    proto = ir.serde.serialize_node(node)
    names = [f"i{place}" if array is not None else "" for place, array in enumerate(arrays)]
    del proto.input[:]
    proto.input.extend(names)
    outputs = [f"o{place}" for place in range(len(node.outputs))]
    del proto.output[:]
    proto.output.extend(outputs)
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names if name],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
    )
    opsets = [onnx.helper.make_opsetid("", ctx.opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if name}
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:
        raise Doubt(f"a {node.op_type} of constants cannot be evaluated ({error})") from error
    if any(isinstance(result, list) for result in results):
        raise Doubt(f"a {node.op_type} of constants gives a sequence")
    return list(results)
