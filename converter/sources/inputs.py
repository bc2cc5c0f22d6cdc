"""What a graph declares about its inputs, with a number for every axis."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from converter.errors import UserError
from converter.sources.loaded import Input


def required_inputs(model: ir.Model) -> list[ir.Value]:
    """The graph's inputs that have no default value among the initializers."""
    initializers = model.graph.initializers
    return [value for value in model.graph.inputs if value.name not in initializers]


def dynamic_batch(model: ir.Model) -> bool:
    """Whether axis 0 of every input may vary."""
    shapes = [value.shape for value in required_inputs(model)]
    return bool(shapes) and all(
        shape is not None and len(shape) > 0 and not isinstance(shape[0], int) for shape in shapes
    )


def describe(
    model: ir.Model,
    numbers: Mapping[str, int] | None = None,
    values: Mapping[str, float] | None = None,
) -> tuple[Input, ...]:
    """The inputs that need a value, in the graph's order.

    Args:
        numbers: the size to take for each axis that may vary, by its name; 1 for others.
        values: what examples of an input are filled with, by its name.

    Raises:
        UserError: when an input is not a tensor of numbers.
    """
    found = []
    for value in required_inputs(model):
        kind = value.type
        known = isinstance(kind, ir.TensorType) and kind.dtype != ir.DataType.STRING
        if not known or value.dtype is None or value.shape is None:
            raise UserError(
                f"input {value.name!r} is not a tensor of numbers ({kind or 'no type'})",
                "give a model whose inputs are tensors: preprocessing of text stays outside it",
            )
        shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
        found.append(
            Input(
                name=str(value.name),
                shape=shape,
                example=tuple(
                    dim if isinstance(dim, int) else (numbers or {}).get(dim, 1) for dim in shape
                ),
                dtype=value.dtype.numpy().name,
                upper=_rows(value) if value.dtype.is_integer() else None,
                value=(values or {}).get(str(value.name)),
            )
        )
    return tuple(found)


def _rows(value: ir.Value) -> int | None:
    """For indices: how many rows the smallest table has that is indexed by them.

    Gather(table, indices, axis) with table.shape[axis] rows; the indices may be cast before.
    """
    bounds = []
    for user, position in value.uses():
        if user.op_type == "Gather" and position == 1:
            table = user.inputs[0]
            axis = user.attributes.get_int("axis", 0)
            if table is not None and table.shape is not None:
                size = table.shape[axis]
                bounds += [size] if isinstance(size, int) else []
        elif user.op_type in {"Cast", "Identity"}:
            inner = _rows(user.outputs[0])
            bounds += [inner] if inner is not None else []
    return min(bounds, default=None)
