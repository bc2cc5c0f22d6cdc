"""Constants of constants, in float64: by numpy where it is plain, else by onnx's own evaluator.

What is computed from sizes is followed: two sizes determine a size that is made of them by adding
and by multiplying with numbers, so an op that does anything else with them is told
(`Context.sizes_used`): the second graph must not do more of it than the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from converter.certificate.arrays import MOST
from converter.certificate.context import REAL, UNITS, Context, attributes
from converter.certificate.forms import Known, Value
from converter.certificate.verdict import Doubt

# What a size may go through and still be determined by two sizes.
_AFFINE = frozenset(
    {"Shape", "Size", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "CastLike"}
    | {"Identity", "Add", "Sub", "Neg", "Reshape", "ConstantOfShape", "Expand", "Transpose"}
    | {"Flatten", "Split", "ReduceProd", "ReduceSum", "Range", "Tile"}
)
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


def evaluated(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    """The results of a node that reads constants alone."""
    known = [value for value in values if isinstance(value, Known)]
    sized = [value for value in known if value.sized]
    if sized:
        _follow(ctx, node.op_type, known)
    arrays = [None if value is None else value.array for value in values if value is None
              or isinstance(value, Known)]  # fmt: skip
    results = _computed(ctx, node, arrays)
    reals = [value for value in known if value.real]
    unit = max((value.unit for value in reals), default=UNITS[ir.DataType.FLOAT][0])
    tiny = max((value.tiny for value in reals), default=UNITS[ir.DataType.FLOAT][1])
    made: list[Value] = []
    for result in results:
        array = np.asarray(result)
        if array.size > MOST:
            raise Doubt(f"a constant of {array.size:,} numbers is computed")
        if array.dtype.kind in "fV" or str(array.dtype) == "bfloat16":
            array = array.astype(np.float64)
            if not np.isfinite(array).all():
                raise Doubt(f"a {node.op_type} of constants gives what is not finite")
            made.append(Known(array, unit, tiny, bool(sized)))
        else:
            made.append(Known(array, sized=bool(sized)))
    return made


def _follow(ctx: Context, op: str, known: Sequence[Known]) -> None:
    few = sum(value.sized for value in known) == 1
    if op in _AFFINE or (op == "Mul" and few) or (op == "Div" and few and known[0].sized):
        return
    ctx.sizes_used[op] = ctx.sizes_used.get(op, 0) + 1


def _computed(ctx: Context, node: ir.Node, arrays: Sequence[Any]) -> Sequence[Any]:
    op, attrs = node.op_type, attributes(node, ctx.opset)
    if op in {"Cast", "CastLike"}:
        return [_cast(arrays, attrs)]
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
    return _reference(ctx, node, arrays)


def _cast(arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
    x = arrays[0]
    to = ir.DataType(int(attrs["to"])) if "to" in attrs else None
    if to is None:
        like = arrays[1]
        to = ir.DataType.DOUBLE if like.dtype == np.float64 else ir.DataType.from_numpy(like.dtype)
    if to in REAL:
        return x.astype(np.float64)
    return x.astype(to.numpy())


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
