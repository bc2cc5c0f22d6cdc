"""What onnx is asked of the shapes of a node's results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate.forms import Form, Known, Value

# Constants of so many numbers may be sizes, which the shapes of results depend on.
FEW = 64

Shaped = Sequence[int | str | None] | None


@dataclass(frozen=True, eq=False)
class Question:
    """A node with the types of its inputs, and those inputs that shapes may depend on."""

    node: onnx.NodeProto
    types: dict[str, onnx.TypeProto]
    data: dict[str, onnx.TensorProto]

    def answer(self, opset: int) -> list[onnx.TypeProto | None]:
        """Of each result; whatever onnx raises goes through."""
        found = onnx.shape_inference.infer_node_outputs(
            schema(self.node.op_type, opset), self.node, self.types, self.data,
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )  # fmt: skip
        return [found.get(name) for name in self.node.output]


def question(
    node: ir.Node,
    values: Sequence[Value],
    shaped: Callable[[int, Form | Known], Shaped],
    told: Callable[[Known], bool],
) -> Question:
    """
    Args:
        node: one without a body.
        values: of its inputs.
        shaped: the axes of the value at a place: numbers, names, or None; None if there is no rank.
        told: whether the numbers of a constant are told, if they are few.
    """
    proto = onnx.NodeProto(op_type=node.op_type)
    types, data = {}, {}
    for place, value in enumerate(values):
        name = f"i{place}" if value is not None else ""
        proto.input.append(name)
        if value is None:
            continue
        kind = int(onnx.TensorProto.FLOAT)
        if isinstance(value, Form) and not value.real:
            kind = kind_of(value)
        elif isinstance(value, Known) and not value.real:
            kind = int(onnx.helper.np_dtype_to_tensor_dtype(value.array.dtype))
        types[name] = onnx.helper.make_tensor_type_proto(kind, shaped(place, value))
        if isinstance(value, Known) and value.size <= FEW and told(value):
            array = value.array.astype(np.float32) if value.real else value.array
            data[name] = onnx.numpy_helper.from_array(np.asarray(array), name)
    proto.output.extend(f"o{place}" if v.name else "" for place, v in enumerate(node.outputs))
    for attribute in node.attributes.values():
        if attribute.type not in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            proto.attribute.append(ir.serde.serialize_attribute(attribute))
    return Question(proto, types, data)


@cache
def schema(op: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op, opset, "")


def kind_of(form: Form) -> int:
    """The type of a value that is no float, as onnx numbers it."""
    (atom,) = form.terms
    return int(atom.more.get("dtype", onnx.TensorProto.INT64))
