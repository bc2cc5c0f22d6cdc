"""Stable names: for outputs "output", "output_0", ... or the keys that forward() chose.

Exporters name outputs after the last operator, which changes with every version.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in what `forward` returned, with a name, in the order of torch's pytrees.

    {"logits": t, "features": (t, t)} gives logits, features_0, features_1. A lone tensor gives
    "output", a plain tuple output_0, output_1.
    """
    if isinstance(value, torch.Tensor):
        yield prefix or "output", value
        return
    for key, child in _children(value):
        name = key if not prefix else f"{prefix}_{key}"
        yield from leaves(child, f"output_{name}" if name.isdigit() else name)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((re.sub(r"[^\w.-]", "_", str(key)), child) for key, child in value.items())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))


def name_outputs(model: ir.Model, names: list[str]) -> None:
    """Give the graph's outputs these names, or output_0, output_1 where they do not fit.

    An output that is also an input, an initializer or another output gets an Identity of its
    own: one value cannot have two names.
    """
    graph = model.graph
    count = len(graph.outputs)
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    if len(names) != count or len(set(names)) != count or taken & set(names):
        names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    while taken & set(names):
        names = [f"{name}_" for name in names]
    seen: set[ir.Value] = set()
    for index, value in enumerate(graph.outputs):
        if value in seen or value.producer() is None:
            graph.outputs[index] = _copy_of(graph, value)
        seen.add(graph.outputs[index])
    wanted = set(names)
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in wanted and value not in seen:
                value.name = f"{value.name}_inner"
    # Two steps, as one output may hold the name that another is to get.
    for index, value in enumerate(graph.outputs):
        value.name = f"__output_{index}"
    for value, name in zip(graph.outputs, names, strict=True):
        value.name = name


def name_inputs(model: ir.Model, names: Sequence[str]) -> None:
    """Give the graph's inputs these names; a value inside that has one of them gets another."""
    graph = model.graph
    taken = {str(name) for name in graph.initializers}
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in names:
                value.name = f"{value.name}_inner"
    for index, value in enumerate(graph.inputs):
        value.name = f"__input_{index}"
    for value, name in zip(graph.inputs, names, strict=True):
        value.name = f"{name}_" if name in taken else name


def _copy_of(graph: ir.Graph, value: ir.Value) -> ir.Value:
    node = ir.node("Identity", [value])
    graph.append(node)
    copy = node.outputs[0]
    copy.type, copy.shape = value.type, value.shape
    return copy
