"""What must be the same before anything is compared: inputs, their defaults, outputs, opsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate import opsets
from converter.certificate.sizes import given, named
from converter.certificate.verdict import Doubt
from converter.files.slim import LEFT_OUT

DEFAULT = ("", "ai.onnx")
OLDEST = 7


def check(first: ir.Model, second: ir.Model) -> None:
    """
    Raises:
        Doubt: they are not the same, an input is no tensor, or outputs were left out when a file
            was read.
    """
    for model in (first, second):
        for name, why in model.meta.get(LEFT_OUT, {}).items():
            raise Doubt(f"nothing is known of the output {name!r}, as {why}")
    one, other = _opset(first), _opset(second)
    if one != other:
        if one is None or other is None:
            raise Doubt("one of the graphs does not say which opset it is of")
        opsets.compared(first, second, (one, other))
    inputs = [given(model) for model in (first, second)]
    _same_names(*inputs)
    for one, other in zip(*inputs, strict=True):
        if one.dtype is None or not isinstance(one.type, ir.TensorType):
            raise Doubt(f"the input {one.name!r} is no tensor")
        if one.type != other.type or _sizes(one) != _sizes(other):
            raise Doubt(f"the input {one.name!r} has another type or shape")
        _same_default(one, other)
    outputs = [graph.outputs for graph in (first.graph, second.graph)]
    names = [[value.name for value in values] for values in outputs]
    if names[0] != names[1]:
        raise Doubt(f"the graphs have other outputs: {_listed(names[1])}, not {_listed(names[0])}")
    for one, other in zip(*outputs, strict=True):
        if one.type is None or one.type != other.type:
            raise Doubt(f"the output {one.name!r} has another type, or none")


def _same_names(first: Sequence[ir.Value], second: Sequence[ir.Value]) -> None:
    names = [[value.name for value in values] for values in (first, second)]
    if names[0] == names[1]:
        return
    for value in first:
        if value.name not in names[1]:
            more = "" if value.const_value is None else ": its default can no longer be replaced"
            raise Doubt(f"the graphs have other inputs: {value.name!r} is gone{more}")
    for name in names[1]:
        if name not in names[0]:
            raise Doubt(f"the graphs have other inputs: {name!r} is new")
    raise Doubt("the graphs have other inputs: their order is another one")


def _listed(names: Sequence[str | None], most: int = 4) -> str:
    told = ", ".join(repr(name) for name in names[:most])
    return f"{told}, .." if len(names) > most else told


def _opset(model: ir.Model) -> int | None:
    """The version of the default domain.

    Raises:
        Doubt: the rules do not hold for it.
    """
    imports = model.graph.opset_imports
    found = {imports[domain] for domain in DEFAULT if domain in imports}
    if len(found) > 1:
        raise Doubt("a graph is of two opsets at once")
    latest = onnx.defs.onnx_opset_version()
    for opset in found:
        # Before version 7, Add and its kin broadcast along an axis, and norms train by default.
        if not OLDEST <= opset <= latest:
            raise Doubt(f"a graph is of opset {opset}, and rules are for {OLDEST} to {latest}")
    return found.pop() if found else None


def _sizes(value: ir.Value) -> list[int | str]:
    return named(value)


def _same_default(one: ir.Value, other: ir.Value) -> None:
    """An input that has a default may be left out: then the defaults are what is computed with."""
    held = [value.const_value for value in (one, other)]
    if held[0] is None and held[1] is None:
        return
    if held[0] is None or held[1] is None:
        raise Doubt(f"the input {one.name!r} has a default in one graph only")
    arrays = [tensor.numpy() for tensor in held if tensor is not None]
    if arrays[0].dtype != arrays[1].dtype or not np.array_equal(arrays[0], arrays[1]):
        raise Doubt(f"the input {one.name!r} has another default")
