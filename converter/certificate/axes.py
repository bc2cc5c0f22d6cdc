"""Which axes have a fixed size, and which one the size of an axis of an input.

A graph computes with sizes that are always the same (channels; all but the batch), and another tool
evaluates those: so what is computed from them is a constant like any other. What is fixed is what
onnx infers where the open axes of the inputs have names in the place of numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.context import kind_of, schema
from converter.certificate.forms import Form, Known, Value
from converter.certificate.inferable import must_be_inferable
from converter.certificate.origins import Names, Sizes
from converter.certificate.sizes import named
from converter.certificate.verdict import Doubt

# Of each axis its size, the name of an input's axis that it is as long as, or None.
Axes = tuple[int | str | None, ...]

Message = onnx.NodeProto | onnx.TypeProto | onnx.TensorProto

_FEW = 64  # numbers of a constant that sizes are read from


class Symbols:
    """The axes of the values of one graph.

    Args:
        names: of both graphs.
        opset: of the graph.
        memory: what was inferred before, of either graph and at other sizes.
    """

    def __init__(self, names: Names, opset: int, memory: dict[Any, Any]) -> None:
        self._names, self._opset, self._memory = names, opset, memory
        self._of: dict[ir.Value, Axes] = {}
        self._parts: dict[ir.Value | None, tuple[Axes, int]] = {}  # of sequences
        self._sizes: dict[int | str | None, int] = {}  # of the names of their axes
        self._read: dict[int, int | str] = {}  # what the name of a number means

    def given(self, value: ir.Value, shape: Shape) -> None:
        """An input of the graph, and its shape at the sizes that are tried."""
        self._of[value] = tuple(named(value))
        for name, size in zip(self._of[value], shape, strict=True):
            if isinstance(name, str):
                self._sizes[name] = size

    def sizes(self, value: ir.Value | None, ids: object, rank: int, *, allowed: bool) -> Sizes:
        """The names of the axes of a value.

        Args:
            value: what is known of it counts.
            ids: of its atoms, which name an axis of which nothing is known.
            rank: how many axes it has.
            allowed: whether the second graph may say the names of such axes first.
        """
        found = []
        for place, axis in enumerate(self.of(value, rank)):
            if axis is None:
                found.append(self._names.name("Shape", (ids, place), allowed=allowed))
                continue
            kind = "constant" if isinstance(axis, int) else "axis"
            told = ("whole", axis) if isinstance(axis, int) else axis
            found.append(self._names.name(kind, told, allowed=True))
            self._read[found[-1]] = axis
        return Sizes(np.array(found, np.int64))

    def follow(self, node: ir.Node, values: Sequence[Value], results: Sequence[Value]) -> None:
        """Note the axes of what a node computes."""
        axes: list[Axes | None] = [None] * len(results)
        x = values[0] if values else None
        if node.op_type == "Reshape" and isinstance(x, Form):
            axes[0] = self._reshaped(node, values)
        elif any(isinstance(result, Form) for result in results):
            axes = self._inferred(node, values, len(results))
        for value, result, found in zip(node.outputs, results, axes, strict=False):
            if isinstance(result, Form) and found is not None and len(found) == result.rank:
                self._of[value] = tuple(
                    axis if size in (axis, self._sizes.get(axis)) else None
                    for axis, size in zip(found, result.shape, strict=True)
                )

    def split(self, node: ir.Node, axes: Axes) -> None:
        """Note the axes of what a SplitToSequence reads: its parts have the others of them."""
        axis: int = node.attributes.get_int("axis", 0)
        kept: int = node.attributes.get_int("keepdims", 1)
        if node.op_type == "SplitToSequence" and axes and kept:
            self._parts[node.outputs[0]] = axes, axis % len(axes)

    def taken(self, node: ir.Node, part: Value) -> None:
        """Note the axes of a part of a sequence."""
        held = node.inputs[0]
        if held not in self._parts or node.op_type != "SequenceAt" or not isinstance(part, Form):
            return
        axes, axis = self._parts[held]
        # The sizes of the parts do not depend on open sizes, or there were no sequence.
        self._of[node.outputs[0]] = (*axes[:axis], part.shape[axis], *axes[axis + 1 :])

    def of(self, value: ir.Value | None, rank: int) -> Axes:
        """What is known of the axes of a value."""
        found = self._of.get(value) if value is not None else None
        return found if found is not None and len(found) == rank else (None,) * rank

    def _meaning(self, value: Value) -> list[int | str | None] | None:
        """Of the numbers of a constant that an op reads as sizes."""
        if not isinstance(value, Known) or value.size > _FEW:
            return None
        numbers = value.array.reshape(-1).tolist()
        if value.sized is None:
            return [int(number) for number in numbers]
        names = value.sized.names.reshape(-1).tolist()
        if len(names) != len(numbers):  # they have one name together
            return None
        return [
            int(number) if self._names.constant(name) else self._read.get(name)
            for name, number in zip(names, numbers, strict=True)
        ]

    def _reshaped(self, node: ir.Node, values: Sequence[Value]) -> Axes | None:
        x = values[0]
        assert isinstance(x, Form)
        given = self.of(node.inputs[0], x.rank)
        if len(values) > 1:
            target = self._meaning(values[1])
        else:
            target = list(node.attributes.get_ints("shape", ()))
        if target is None:
            return None
        if not node.attributes.get_int("allowzero", 0):
            target = [given[i] if n == 0 and i < len(given) else n for i, n in enumerate(target)]
        if -1 in target:
            # What is left of the input's axes when the named ones are taken away.
            others = [n for n in target if n != -1]
            left = Counter(n for n in given if not isinstance(n, int))
            left.subtract(Counter(n for n in others if not isinstance(n, int)))
            open_ = [name for name, count in left.items() if count]
            rest: int | str | None = None
            sizes = [prod(n for n in part if isinstance(n, int)) for part in (given, others)]
            if None not in left and sizes[1] and sizes[0] % sizes[1] == 0:
                factor = sizes[0] // sizes[1]
                if not open_:
                    rest = factor
                elif len(open_) == 1 and left[open_[0]] == 1 and factor == 1:
                    rest = open_[0]
            target[target.index(-1)] = rest
        return tuple(target)

    def _inferred(self, node: ir.Node, values: Sequence[Value], count: int) -> list[Axes | None]:
        proto = onnx.NodeProto(op_type=node.op_type)
        types, data = {}, {}
        for place, value in enumerate(values):
            name = f"i{place}" if value is not None else ""
            proto.input.append(name)
            if isinstance(value, Form):
                if 0 in value.shape or value.shape == (-1,):
                    return [None] * count
                kind = onnx.TensorProto.FLOAT if value.real else kind_of(value)
                axes = self.of(node.inputs[place], value.rank)
                types[name] = onnx.helper.make_tensor_type_proto(kind, axes)
            elif value is not None:
                kind = onnx.TensorProto.FLOAT
                if not value.real:
                    kind = onnx.helper.np_dtype_to_tensor_dtype(value.array.dtype)
                # What is computed from sizes may be as long as they are.
                counted = value.sized is None or value.sized.counted
                shape = value.shape if counted else (None,) * len(value.shape)
                types[name] = onnx.helper.make_tensor_type_proto(kind, shape)
                if value.sized is None and value.size <= _FEW:
                    held = np.asarray(value.array)
                    held = held.astype(np.float32) if value.real else held
                    data[name] = onnx.numpy_helper.from_array(held, name)
        proto.output.extend(f"o{place}" if v.name else "" for place, v in enumerate(node.outputs))
        for attribute in node.attributes.values():
            if attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
                return [None] * count
            proto.attribute.append(ir.serde.serialize_attribute(attribute))
        try:
            must_be_inferable(
                node,
                [None if value is None else value.shape for value in values],
                [isinstance(value, Form) for value in values],
            )
        except Doubt:
            return [None] * count
        asked: list[Message] = [proto, *types.values(), *data.values()]
        key = "axes", self._opset, (*types, 0, *data), *map(_encoded, asked)
        if key not in self._memory:
            self._memory[key] = self._infer(proto, types, data)
        found: list[Axes | None] = self._memory[key]
        return found

    def _infer(
        self,
        proto: onnx.NodeProto,
        types: dict[str, onnx.TypeProto],
        data: dict[str, onnx.TensorProto],
    ) -> list[Axes | None]:
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema(proto.op_type, self._opset), proto, types, data,
                opset_imports=[onnx.helper.make_opsetid("", self._opset)],
            )  # fmt: skip
        except Exception:  # noqa: BLE001 - then nothing is known of them
            return [None] * len(proto.output)
        return [_read(found.get(name)) for name in proto.output]


def _encoded(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _read(found: onnx.TypeProto | None) -> Axes | None:
    if found is None or not found.HasField("tensor_type"):
        return None
    if not found.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in found.tensor_type.shape.dim
    )
