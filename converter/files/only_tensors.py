"""Models whose inputs or outputs are sequences, maps and the like: only tensors are supported.

Every classifier of scikit-learn, as skl2onnx writes it, ends in a ZipMap, whose result is a
sequence of maps beside the labels. Such an output is left out, with the nodes that only it needs; a
model with such an input is refused.

Source: onnx.proto, TypeProto.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from converter.errors import UserError
from service.models.kinds import why_left_out


def only_tensors(proto: onnx.ModelProto, path: Path) -> dict[str, str]:
    """Remove the outputs from `proto` that are not tensors: {name: why}.

    Raises:
        UserError: an input is not a tensor, or no output is one.
    """
    graph = proto.graph
    for value in graph.input:
        if not _is_tensor(value.type):
            raise UserError(
                f"{path}: input {value.name!r} is not a tensor of numbers but "
                f"{kind_of(value.type)}",
                "give a model with a tensor for each input; what makes them stays outside of it",
            )
    left_out = {
        value.name: why_left_out(kind_of(value.type))
        for value in graph.output
        if not _is_tensor(value.type)
    }
    if not left_out:
        if any(node.op_type == "ZipMap" for node in graph.node):  # no node reads its result
            _drop_dead(graph)
        return {}
    if len(left_out) == len({value.name for value in graph.output}):
        name, why = next(iter(left_out.items()))
        raise UserError(
            f"{path} has no output that is a tensor: {name!r} is left out, as {why}",
            "export the model with a tensor among its outputs",
        )
    for values in (graph.output, graph.value_info):
        kept = [value for value in values if value.name not in left_out]
        del values[:]
        values.extend(kept)
    _drop_dead(graph)
    return left_out


def kind_of(kind: onnx.TypeProto) -> str:
    """A type as onnxruntime writes it: `seq(map(int64,tensor(float)))`."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return f"tensor({_element(kind.tensor_type.elem_type)})"
    if which == "sparse_tensor_type":
        return f"sparse_tensor({_element(kind.sparse_tensor_type.elem_type)})"
    if which == "sequence_type":
        return f"seq({kind_of(kind.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({kind_of(kind.optional_type.elem_type)})"
    if which == "map_type":
        return f"map({_element(kind.map_type.key_type)},{kind_of(kind.map_type.value_type)})"
    return "of no type"


def _element(number: int) -> str:
    try:
        return str(onnx.TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return "unknown"


def _is_tensor(kind: onnx.TypeProto) -> bool:
    return kind.WhichOneof("value") in {"tensor_type", None}


def _drop_dead(graph: onnx.GraphProto) -> None:
    """Remove the nodes that only led to outputs that were left out."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs):
                    needed.update(name for name in _read_inside(body))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    typed = needed.union(*(node.output for node in kept)) if kept else needed
    infos = [value for value in graph.value_info if value.name in typed]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _read_inside(body: onnx.GraphProto) -> set[str]:
    """Every name that a body reads, including its own."""
    names = {value.name for value in body.output}
    for node in body.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= _read_inside(inner)
    return names
