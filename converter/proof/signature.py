"""Inputs and outputs must be the same before anything is compared."""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir


def problem_of(reference: ir.Model, candidate: ir.Model) -> str:
    for kind in ("inputs", "outputs"):
        names = [[v.name for v in getattr(m.graph, kind)] for m in (reference, candidate)]
        if names[0] != names[1]:
            return f"the {kind} have other names: {names[0]} and {names[1]}"
        types = [[type_name(v) for v in getattr(m.graph, kind)] for m in (reference, candidate)]
        if types[0] != types[1]:
            return f"the {kind} have other types: {types[0]} and {types[1]}"
    return ""


def type_name(value: ir.Value) -> str:
    if value.dtype is None:
        return "float32"
    names: dict[str, Literal["float32", "float64"]] = {"FLOAT": "float32", "DOUBLE": "float64"}
    return names.get(value.dtype.name, value.dtype.name.lower())
