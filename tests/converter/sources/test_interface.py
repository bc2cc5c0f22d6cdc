"""The names of a graph's inputs, outputs and axes."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from converter.sources.interface import NameInputsPass, NameOutputsPass, RenameAxisPass
from converter.sources.onnx_forms import NameAxesPass, RaiseIrVersionPass
from patterns.graphs import Graph


def two_inputs() -> ir.Model:
    g = Graph("float32")
    total = g.op("Add", g.input("x", "N", 3), g.input("y", "N", 3))
    g.output(g.op("Relu", total), shape=["N", 3])
    return g.model()


def names(values: object) -> list[str | None]:
    return [value.name for value in values]  # type: ignore[attr-defined]


def test_outputs_get_the_names_that_are_given() -> None:
    model = two_inputs()
    assert NameOutputsPass(["logits"])(model).modified
    assert names(model.graph.outputs) == ["logits"]
    assert not NameOutputsPass(["logits"])(model).modified


@pytest.mark.parametrize("given", [[], ["a", "b"], ["x"]])
def test_names_that_do_not_fit_give_way_to_plain_ones(given: list[str]) -> None:
    model = two_inputs()
    NameOutputsPass(given)(model)
    assert names(model.graph.outputs) == ["output"]


def test_outputs_that_are_one_value_become_two() -> None:
    model = two_inputs()
    model.graph.outputs.append(model.graph.outputs[0])
    model.graph.outputs.append(model.graph.inputs[0])
    NameOutputsPass(["a", "b", "c"])(model)
    assert names(model.graph.outputs) == ["a", "b", "c"]
    assert [node.op_type for node in model.graph][2:] == ["Identity", "Identity"]


def test_a_value_inside_gives_its_name_away() -> None:
    model = two_inputs()
    inner = model.graph[0].outputs[0]
    inner.name = "logits"
    NameOutputsPass(["logits"])(model)
    assert (inner.name, names(model.graph.outputs)) == ("logits_inner", ["logits"])


def test_inputs_may_exchange_their_names() -> None:
    model = two_inputs()
    first, second = model.graph.inputs
    assert NameInputsPass(["y", "x"])(model).modified
    assert (first.name, second.name) == ("y", "x")
    assert not NameInputsPass(["y", "x"])(model).modified


@pytest.mark.parametrize("given", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_inputs_need_a_name_each(given: list[str]) -> None:
    with pytest.raises(ir.passes.PreconditionError, match="not names for 2 inputs"):
        NameInputsPass(given)(two_inputs())


def test_an_axis_is_renamed_wherever_it_is_part_of_a_size() -> None:
    model = two_inputs()
    model.graph[0].outputs[0].shape = ir.Shape(["2*N", "Nine"])
    assert RenameAxisPass("N", "batch")(model).modified
    assert model.graph.inputs[0].shape == ir.Shape(["batch", 3])
    assert model.graph[0].outputs[0].shape == ir.Shape(["2*batch", "Nine"])
    assert not RenameAxisPass("N", "batch")(model).modified


def test_axes_without_a_meaning_get_names() -> None:
    model = two_inputs()
    model.graph.inputs[0].shape = ir.Shape([None, -1])
    model.graph[0].outputs[0].shape = ir.Shape([None, 3])
    assert NameAxesPass()(model).modified
    assert model.graph.inputs[0].shape == ir.Shape(["batch", "x_1"])
    assert model.graph.inputs[1].shape == ir.Shape(["N", 3])
    model.graph[0].outputs[0].shape = None
    assert not NameAxesPass()(model).modified


@pytest.mark.parametrize(("version", "raised"), [(3, 8), (7, 8), (8, 8), (10, 10)])
def test_old_ir_versions_are_raised(version: int, raised: int) -> None:
    model = two_inputs()
    model.ir_version = version
    assert RaiseIrVersionPass()(model).modified == (version != raised)
    assert model.ir_version == raised
    assert names(model.graph.inputs) == ["x", "y"]
