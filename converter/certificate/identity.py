"""Which graphs and which checker a certificate speaks of: hashes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import onnx_ir as ir


def checker_sha256() -> str:
    """The sha256 of the checker's source files, of each its name and text.

    It is the same in a checkout, in a wheel and in an archive, and however a line ends.
    """
    digest = hashlib.sha256()
    for name, source in sorted(_sources(files(__package__ or ""))):
        text = source.replace(b"\r\n", b"\n")
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def _sources(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield prefix + entry.name, entry.read_bytes()


def graph_sha256(model: ir.Model) -> str:
    """The sha256 of what a graph computes with, however its file stores it.

    Of the inputs: names, types, sizes, and which open axes are of one size; of the outputs: names
    and types; the nodes in their order, with attributes and bodies; the weights; the opsets of the
    domains in use. Names of nodes and of open axes, shapes that are only noted, and texts for
    people are not part of it.

    Raises:
        ValueError: a weight has no value, or an attribute is of a kind that nothing here reads.
    """
    domains = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
    content = {
        "opsets": {name: model.opset_imports.get(name) for name in domains},
        "graph": _graph(model.graph),
        "functions": [
            [*function.identifier(), _graph(function.graph)]
            for _, function in sorted(model.functions.items(), key=lambda item: str(item[0]))
        ],
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _graph(graph: ir.Graph) -> dict[str, Any]:
    axes: dict[str, int] = {}
    return {
        "inputs": [[value.name, _type(value), _sizes(value, axes)] for value in graph.inputs],
        "outputs": [[value.name, _type(value)] for value in graph.outputs],
        "weights": {name: _tensor(value.const_value) for name, value in graph.initializers.items()},
        "nodes": [_node(node) for node in graph],
    }


def _node(node: ir.Node) -> list[Any]:
    return [
        node.domain,
        node.op_type,
        node.overload,
        [None if value is None else value.name for value in node.inputs],
        [value.name for value in node.outputs],
        {name: _attribute(attribute) for name, attribute in node.attributes.items()},
    ]


def _attribute(attribute: ir.Attr) -> list[Any]:
    kind, value = attribute.type, attribute.value
    if attribute.ref_attr_name:
        return ["ref", attribute.ref_attr_name]
    if kind == ir.AttributeType.TENSOR:
        held: Any = _tensor(value)
    elif kind == ir.AttributeType.TENSORS:
        held = [_tensor(each) for each in value]
    elif kind == ir.AttributeType.GRAPH:
        held = _graph(value)
    elif kind == ir.AttributeType.GRAPHS:
        held = [_graph(each) for each in value]
    elif kind == ir.AttributeType.FLOAT:
        held = _float32(value)
    elif kind == ir.AttributeType.FLOATS:
        held = [_float32(each) for each in value]
    elif kind in {ir.AttributeType.INT, ir.AttributeType.STRING}:
        held = value
    elif kind in {ir.AttributeType.INTS, ir.AttributeType.STRINGS}:
        held = list(value)
    else:
        held = str(value)  # types of values: they print what they are
    return [str(kind.name), held]


def _float32(value: float) -> str:
    """A float attribute as a file holds it."""
    return float(np.float32(value)).hex()


def _tensor(tensor: ir.TensorProtocol | None) -> list[Any]:
    """Type, sizes, and the sha256 of the numbers, little-endian in row-major order."""
    if tensor is None:
        raise ValueError("a weight of the graph has no value")
    if tensor.dtype == ir.DataType.STRING:
        texts = [bytes(text).hex() for text in np.asarray(tensor.numpy()).reshape(-1)]
        content = json.dumps(texts).encode()
    else:
        content = tensor.tobytes()
    return [
        tensor.dtype.name,
        [int(size) for size in tensor.shape.numpy()],
        hashlib.sha256(content).hexdigest(),
    ]


def _type(value: ir.Value) -> str:
    return str(value.type)


def _sizes(value: ir.Value, axes: dict[str, int]) -> list[Any] | None:
    """Numbers as they are; open axes by a number, the same one for the same name."""
    if value.shape is None:
        return None
    found: list[Any] = []
    for size in value.shape:
        if isinstance(size, int):
            found.append(size)
        else:
            name = size.value or f" {len(axes)}"  # without a name each is an axis of its own
            found.append(f"axis {axes.setdefault(name, len(axes))}")
    return found
