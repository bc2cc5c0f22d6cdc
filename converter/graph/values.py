"""What is known about a value without running the graph: its shape, and whether it is constant."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from converter.files.on_disk import Store
from converter.graph.rounding import Float64

# Ops whose constant results are not evaluated (`evaluation/constants.py`).
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
    | {"Multinomial", "Bernoulli"}
)
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})

# What `epsilon` is where a normalization does not say it (ONNX BatchNormalization-15 and the like):
# attributes are float32, and so is their default. In a float64 model the difference counts.
EPSILON = float(np.float32(1e-5))

# The size of an axis: a number, the name of an axis whose size may vary, or not known.
Dim = int | str | None


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a constant that cannot be replaced at run time."""
    return (
        value is not None
        and value.is_initializer()
        and value.const_value is not None
        and not value.is_graph_input()
    )


# Key in a value's `meta`: its tensor, and what rounding took from the numbers of that.
_REST = "rest"


def numbers(value: ir.Value) -> Float64:
    """The float64 copy of a constant's numbers, as they were before they were rounded if that is
    known (`keep_rest`).

    Raises:
        ValueError: `value` is not a constant.
    """
    if value.const_value is None:
        raise ValueError(f"{value.name} is not a constant")
    found = np.array(value.const_value.numpy(), dtype=np.float64)
    tensor, rest = value.meta.get(_REST, (None, None))
    if tensor is value.const_value:
        found += rest.numpy()
    return found


def keep_rest(value: ir.Value, exact: Float64, store: Store) -> None:
    """Keep what rounding took from the numbers of a constant, for who changes them again.

    A number that is rounded before others are added to it is off by a rounding of itself, which is
    much to a sum that is small.
    """
    tensor = value.const_value
    assert tensor is not None
    rest = exact - np.asarray(tensor.numpy(), np.float64)
    if rest.any() and np.isfinite(rest).all():
        value.meta[_REST] = tensor, store(rest.astype(np.float32), None)


def drop_rests(model: ir.Model) -> None:
    """Forget what `keep_rest` kept."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            value.meta.pop(_REST, None)


def shape_of(value: ir.Value) -> tuple[Dim, ...] | None:
    """A number or a name for each axis, None for an axis of unknown size."""
    if value.const_value is not None:  # the annotation may be from before it was evaluated
        return tuple(int(size) for size in value.const_value.shape.numpy())
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def size_of(value: ir.Value) -> int | None:
    """How many numbers a value has by its annotation, None where that is not known."""
    shape = value.shape
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return prod(dim for dim in shape if isinstance(dim, int))


def made_of_constants(value: ir.Value) -> ir.Node | None:
    """The node that computes a value which no input of the model reaches, or a quantising or random
    op on the way to it; None if it is not such a value."""
    first = value.producer()
    telling, waiting, seen = first, [value], {value}
    while waiting:
        current = waiting.pop()
        node = current.producer()
        if node is None:
            if current.is_graph_input() or not current.is_initializer():
                return None
            continue
        if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            return None
        if node.op_type in QUANTIZED | RANDOM and telling is first:
            telling = node
        more = {source for source in node.inputs if source is not None} - seen
        seen |= more
        waiting += more
    return telling
