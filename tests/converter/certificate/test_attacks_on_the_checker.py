"""Graphs that would end the checker, fill the memory, or keep it busy: a sentence, in any case."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from converter.certificate import NotCertified, certify, walk
from converter.errors import UserError
from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, doubted, refused, written

END_OF_A_PROCESS = """
import numpy as np
import onnx_ir as ir
from converter.certificate.atoms import Space
from converter.certificate.context import infer
from converter.certificate.forms import Known, of_atom
from converter.certificate.verdict import Doubt
space = Space(3.0)
def form(*shape, whole=False):
    atom = space.fresh("x", shape)
    atom.more["dtype"] = 7 if whole else 1
    return of_atom(atom, shape, real=not whole)
def ask(op, values, outputs=1, **attributes):
    inputs = [ir.Value(name=f"i{place}") for place in range(len(values))]
    made = [ir.AttrInt64(name, value) for name, value in attributes.items()]
    node = ir.Node("", op, inputs, made, num_outputs=outputs)
    for place, value in enumerate(node.outputs):
        value.name = f"o{place}"
    try:
        infer(node, values, 20)
    except Doubt:
        print("in doubt")
ask("Split", [form(8, 4)], 3, num_outputs=2)
ask("Split", [form(8, 4), Known(np.array([4, 4]))], 3)
ask("GatherND", [form(2, 3, 4), form(2, 1, whole=True)], batch_dims=-3)
ask("Expand", [form(6), form(1 << 62, whole=True)])
ask("ConstantOfShape", [form(1 << 30, whole=True)])
ask("Relu", [form(1 << 40, 1 << 40)])
"""


def test_what_would_end_the_process_is_not_asked() -> None:
    words = [sys.executable, "-c", END_OF_A_PROCESS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["in doubt"] * 6


HUGE = 10**12


def huge(kind: str) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", 1, 1)
        match kind:
            case "expanded":
                return str(g.op("Expand", x, g.const([1, HUGE])))
            case "tiled":
                return str(g.op("Tile", x, g.const([1, HUGE])))
            case "gathered":
                places = g.const(np.zeros((1 << 8, 1 << 7), np.int64))
                for _ in range(4):
                    x = g.op("Gather", x, places, axis=1)
                return str(x)
            case "a constant":
                return str(g.op("Mul", x, g.op("ConstantOfShape", g.const([HUGE]))))
            case "an expanded constant":
                return str(g.op("Mul", x, g.op("Expand", g.const([1.0]), g.const([HUGE]))))
            case "a range":
                numbers = [g.const(np.array(n)) for n in (0, HUGE, 1)]
                return str(g.op("Mul", x, g.op("Cast", g.op("Range", *numbers), to=1)))
            case "a sum of constants":
                one, other = g.const(np.ones((1 << 16, 1))), g.const(np.ones((1, 1 << 16)))
                return str(g.op("Mul", x, g.op("Add", one, other)))
            case _:
                one, other = g.const(np.ones((1 << 16, 1))), g.const(np.ones((1, 1 << 16)))
                return str(g.op("Add", g.op("Add", x, one), other))

    return build


@pytest.mark.parametrize(
    "kind",
    ["expanded", "tiled", "gathered", "a constant", "an expanded constant", "a range",
     "a sum of constants", "a sum"],
)  # fmt: skip
def test_a_value_that_is_claimed_to_be_huge_is_not_made(kind: str) -> None:
    words = str(doubted(written(huge(kind)), written(huge(kind))))
    assert "numbers" in words or "not known" in words


def test_a_padding_without_end_is_an_op_like_any_other() -> None:
    """Nothing is made of it, so there is nothing to hold."""

    def build(to: int) -> Build:
        return lambda g: str(g.op("Pad", g.input("x", 1, 1), g.const([0, to, 0, 0]), mode="edge"))

    accepted(written(build(HUGE)), written(build(HUGE)))
    refused(written(build(HUGE)), written(build(HUGE + 1)))


def nested(depth: int) -> ir.Model:
    g = Graph("float32")
    condition, x = g.input("condition", dtype="bool"), g.input("x", "N", 4)
    inner: onnx.GraphProto | None = None
    for _ in range(depth):
        body = g.body()
        if inner is None:
            y = body.op("Relu", x)
        else:
            y = body.op("If", condition, then_branch=inner, else_branch=inner)
        body.output(y, shape=["N", 4])
        inner = body.graph()
    g.output(g.op("If", condition, then_branch=inner, else_branch=inner))
    return g.model()


def test_bodies_in_bodies_without_end_are_a_sentence() -> None:
    model = nested(6)
    assert certify(model, model)


def test_functions_that_double_what_they_call_are_a_sentence() -> None:
    functions = []
    for level in range(60):
        nodes = [helper.make_node("Neg", ["a"], ["b"])]
        if level:
            called = f"F{level - 1}"
            nodes = [
                helper.make_node(called, ["a"], ["t"], domain="local"),
                helper.make_node(called, ["t"], ["b"], domain="local"),
            ]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
        functions.append(helper.make_function("local", f"F{level}", ["a"], ["b"], nodes, opsets))
    g = Graph("float32")
    g.nodes.append(helper.make_node("F59", [g.input("x", 2)], ["y"], domain="local"))
    g.output("y")
    proto = g.proto()
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.extend(functions)
    assert "too many" in doubted(ir.from_proto(proto), ir.from_proto(proto)).reason


def test_a_function_that_calls_itself_is_a_sentence() -> None:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    again = helper.make_node("F", ["a"], ["b"], domain="local")
    g = Graph("float32")
    g.nodes.append(helper.make_node("F", [g.input("x", 2)], ["y"], domain="local"))
    g.output("y")
    proto = g.proto()
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.append(helper.make_function("local", "F", ["a"], ["b"], [again], opsets))
    assert "calls itself" in doubted(ir.from_proto(proto), ir.from_proto(proto)).reason


def test_a_graph_that_goes_round_in_a_circle_is_a_sentence() -> None:
    g = Graph("float32")
    x = g.input("x", 2, 4)
    g.nodes.append(helper.make_node("Add", [x, "b"], ["a"]))
    g.nodes.append(helper.make_node("Relu", ["a"], ["b"]))
    g.output("b")
    found = certify(g.model(), g.model())
    assert isinstance(found, NotCertified)


def test_a_long_sum_ends_in_bounded_time() -> None:
    def build(g: Graph) -> str:
        x = total = g.input("x", "N", 4)
        for number in range(600):
            total = g.op("Add", total, g.op("Pow", x, g.const(np.full((), float(number)))))
        return str(total)

    assert "added up" in doubted(written(build), written(build)).reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (UserError("model.onnx was changed while it was being read."), "was changed while"),
        (OSError("no such file"), "could not be read: no such file"),
    ],
)
def test_what_is_no_difference_is_told_as_what_it_is(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(walk.Walk, "_node", fails)
    model = written(lambda g: str(g.op("Relu", g.input("x", 2, 3))))
    found = certify(model, model)
    assert isinstance(found, NotCertified)
    assert words in found.reason
