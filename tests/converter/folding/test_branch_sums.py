"""Random sums of everything that may be a branch: never wrong, never dearer."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.evaluation.normalize import normalize
from patterns.graphs import Graph, assert_equal, count, fold

SIZE = 9


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """A convolution or a pool of any geometry on 4 channels."""
    axes = draw(st.integers(1, 2))
    return {
        "op": draw(st.sampled_from(["Conv", "Conv", "AveragePool", "ConvTranspose"])),
        "kernel": [draw(st.integers(1, 4)) for _ in range(axes)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(axes)],
        "pads": [draw(st.integers(0, 3)) for _ in range(2 * axes)],
        "group": draw(st.sampled_from([1, 2, 4])),
    }


def window(g: Graph, x: str, spec: dict[str, Any], stride: int) -> tuple[str, tuple[int, ...]]:
    """The op, and the sizes that it leaves."""
    axes = len(spec["kernel"])
    pads = spec["pads"]
    op = spec["op"]
    if op == "AveragePool":
        pads = [min(pad, spec["kernel"][i % axes] - 1) for i, pad in enumerate(pads)]
    reach = [(k - 1) * d for k, d in zip(spec["kernel"], spec["dilations"], strict=True)]
    margin = [pads[i] + pads[axes + i] - reach[i] for i in range(axes)]
    more: dict[str, Any] = {
        "strides": [stride] * axes, "dilations": spec["dilations"], "pads": pads,
    }  # fmt: skip
    if op == "AveragePool":
        name = g.op(op, x, kernel_shape=spec["kernel"], count_include_pad=1, **more)
    else:
        weight = g.weight(4, 4 // spec["group"], *spec["kernel"])
        name = g.op(op, x, weight, g.weight(4), group=spec["group"], **more)
    if op == "ConvTranspose":
        return name, tuple((SIZE - 1) * stride + 1 - by for by in margin)
    return name, tuple((SIZE + by - 1) // stride + 1 for by in margin)


def total_of(g: Graph, summands: list[str], joints: list[str]) -> str:
    """Join neighbours until one is left."""
    values = list(summands)
    for joint in joints:
        if len(values) > 2 and joint == "Sum":
            values[:3] = [g.op("Sum", *values[:3])]
        elif len(values) > 1:
            values[-2:] = [g.op("Sub" if joint == "Sub" else "Add", *values[-2:])]
    return str(g.op("Sum", *values))


def check(g: Graph) -> None:
    before = normalize(g.model())
    after = fold(g).model
    assert_equal(before, after)
    assert count(after) <= count(before)
    assert multiply_adds(after) <= multiply_adds(before)


def multiply_adds(model: ir.Model) -> int:
    """Of the convolutions and products, for each position of the result: all have the same."""
    return sum(
        prod(node.inputs[1].shape.numpy())
        for node in model.graph
        if node.op_type in {"Conv", "ConvTranspose", "MatMul", "Gemm"} and node.inputs[1].shape
    )


JOINTS = st.lists(st.sampled_from(["Add", "Sub", "Sum"]), min_size=8, max_size=8)
EXTRAS = st.lists(st.sampled_from(["x", "bn", "scale", "half", "constant", "other"]), max_size=4)


@pytest.mark.slow
@given(windows(), st.lists(windows(), min_size=1, max_size=3), st.integers(1, 2), EXTRAS, JOINTS)
def test_windows(
    first: dict[str, Any],
    others: list[dict[str, Any]],
    stride: int,
    extras: list[str],
    joints: list[str],
) -> None:
    axes = len(first["kernel"])
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, *[SIZE] * axes))
    y = g.input("y", "N", 4, *[1] * axes)
    name, sizes = window(g, x, first, stride)
    if min(sizes) < 1:
        return
    summands = [name]
    for spec in others:
        if len(spec["kernel"]) != axes:
            continue
        undo = len(g.nodes), len(g.initializers)
        name, found = window(g, x, spec, stride)
        if found == sizes:
            summands.append(name)
        else:
            del g.nodes[undo[0] :], g.initializers[undo[1] :]
    summands += [
        _extra(g, x, y, kind, axes)
        for kind in extras
        if kind in {"constant", "other"} or set(sizes) == {SIZE}
    ]
    g.output(g.op("Sigmoid", total_of(g, summands, joints)), shape=["N", 4, *sizes])
    check(g)


def _extra(g: Graph, x: str, y: str, kind: str, axes: int) -> str:
    made = {
        "x": lambda: x,
        "bn": lambda: g.bn(x, 4),
        "scale": lambda: g.op("Mul", x, g.weight(4, *[1] * axes)),
        "half": lambda: g.op("Div", x, g.const(-2.0)),
        "constant": lambda: g.weight(1, 4, *[1] * axes),
        "other": lambda: y,
    }
    return str(made[kind]())


@given(
    st.lists(st.sampled_from(["MatMul", "Gemm", "GemmT", "x", "bn", "constant", "other"]),
             min_size=2, max_size=6),
    JOINTS,
)  # fmt: skip
def test_matrices(kinds: list[str], joints: list[str]) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4))
    y = g.input("y", "N", 4)
    made = {
        "MatMul": lambda: g.op("MatMul", x, g.weight(4, 4)),
        "Gemm": lambda: g.op("Gemm", x, g.weight(4, 4), g.weight(4), alpha=0.5, beta=-1.5),
        "GemmT": lambda: g.op("Gemm", x, g.weight(4, 4), transB=1, alpha=-3.0),
        "x": lambda: x,
        "bn": lambda: g.bn(x, 4),
        "constant": lambda: g.weight(4),
        "other": lambda: y,
    }
    summands = [str(made[kind]()) for kind in kinds]
    g.output(g.op("Sigmoid", total_of(g, [*summands, y], joints)), shape=["N", 4])
    check(g)


def test_a_constant_that_took_up_a_uniform_map_on_another_axis() -> None:
    """Behind an edge padding the uniform map lies on the rows; the bias has columns."""
    g = Graph()
    y = g.op("Gemm", g.op("Tanh", g.input("x", 2, 3)), g.weight(3, 4), g.weight(1))
    y = g.op("Pad", g.op("Add", y, g.weight(1)), g.const([0, 0, 0, 1]), mode="edge")
    same = {key: np.full(5, 0.5) for key in ("gamma", "beta", "mean", "var")}
    g.output(g.op("BatchNormalization", y, *g.statistics(5, **same)))
    folded = fold(g)
    assert [node.op_type for node in folded.model.graph] == ["Tanh", "Gemm", "Pad"]
    assert_equal(normalize(g.model()), folded.model)
