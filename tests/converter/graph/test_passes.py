"""What holds for every pass: it tells whether it changed something, and a second run does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converter.errors import UserError
from converter.evaluation.constants import EvaluateConstantsPass, Growth
from converter.graph.building import Builder
from converter.graph.identities import DropIdentitiesPass, DropNeutralPass
from converter.graph.in_order import InOrder
from converter.graph.opsets import FitOpsetPass, SizeSequencesPass
from converter.graph.paddings import KeepZeroPaddingsPass
from converter.graph.reshapes import FixReshapesPass, TellReshapesPass
from converter.graph.shapes import InferShapesPass
from converter.graph.tidy import TidyPass
from converter.graph.transposes import CancelTransposesPass
from converter.graph.unused import DropEmptyOutputsPass, DropUnusedPass
from converter.graph.zero_biases import DropZeroBiasesPass, ZeroBiasesDropped
from converter.sources.keras_graph import (
    DropWholeSlicesPass,
    DropZeroStatesPass,
    TakeBiasesPass,
    TellConstantsPass,
)
from patterns.graphs import Graph

Made = Callable[[], ir.passes.PassBase]


def identity(g: Graph, x: str) -> str:
    return g.op("Relu", g.op("Identity", x))


def neutral(g: Graph, x: str) -> str:
    return g.op("Relu", g.op("Add", x, g.const(np.float32(0))))


def split(g: Graph, x: str) -> str:
    parts = g.op("SplitToSequence", x, g.const(np.int64(2)), axis=1)
    return g.op("Relu", g.op("ConcatFromSequence", parts, axis=1))


def unsqueezed(g: Graph, x: str) -> str:
    return g.op("Relu", g.op("Unsqueeze", x, g.const(np.int64(0))))


def padded(g: Graph, x: str) -> str:
    wide = g.op("Pad", x, g.const(np.int64([0, 0, 1, 1, 0, 0, 1, 1])))
    return g.op("MaxPool", wide, kernel_shape=[2, 2])


def reshaped(g: Graph, x: str) -> str:
    first = g.op("Slice", g.op("Shape", x), g.const(np.int64([0])), g.const(np.int64([1])))
    return g.op("Reshape", x, g.op("Concat", first, g.const(np.int64([-1])), axis=0))


def fixed(g: Graph, x: str) -> str:
    first = g.op("Slice", g.op("Shape", x), g.const(np.int64([0])), g.const(np.int64([1])))
    return g.op("Reshape", x, g.op("Concat", first, g.const(np.int64([144])), axis=0))


def transposed(g: Graph, x: str) -> str:
    y = g.op("Relu", g.op("Transpose", x, perm=[0, 2, 3, 1]))
    return g.op("Transpose", y, perm=[0, 3, 1, 2])


def unused(g: Graph, x: str) -> str:
    g.op("Sigmoid", x)
    return g.op("Relu", x)


def unbiased(g: Graph, x: str) -> str:
    shape, zero = g.const(np.int64([4])), g.const(np.float32([0]))
    return g.op("Conv", x, g.weight(4, 4, 1, 1), g.op("Expand", zero, shape))


def plainly_unbiased(g: Graph, x: str) -> str:
    return g.op("Conv", x, g.weight(4, 4, 1, 1), g.const(np.zeros(4, np.float32)))


def biased_behind(g: Graph, x: str) -> str:
    bias = g.const(np.ones((1, 4, 1, 1), np.float32))
    return g.op("Relu", g.op("Add", g.op("Conv", x, g.weight(4, 4, 1, 1)), bias))


def sliced(g: Graph, x: str) -> str:
    bounds = [g.const(np.int64([n])) for n in (0, 99, 1)]
    return g.op("Relu", g.op("Slice", x, *bounds))


def evaluated(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Exp", g.const(np.float32([1]))))


def recurrent(g: Graph, x: str) -> str:
    steps = g.op("Reshape", x, g.const(np.int64([6, 6, 4])))
    zeros = g.op("ConstantOfShape", g.const(np.int64([1, 6, 3])))
    w, r = g.weight(1, 9, 4), g.weight(1, 9, 3)
    return g.op("GRU", steps, w, r, "", "", zeros, hidden_size=3)


CASES: dict[str, tuple[Made, Callable[[Graph, str], str]]] = {
    "identities": (DropIdentitiesPass, identity),
    "neutral operands": (DropNeutralPass, neutral),
    "sizes of sequences": (SizeSequencesPass, split),
    "forms of the opset": (FitOpsetPass, unsqueezed),
    "paddings": (KeepZeroPaddingsPass, padded),
    "told reshapes": (TellReshapesPass, reshaped),
    "fixed reshapes": (FixReshapesPass, fixed),
    "transposes": (CancelTransposesPass, transposed),
    "unused": (DropUnusedPass, unused),
    "zero biases": (DropZeroBiasesPass, unbiased),
    "zero biases of Keras": (lambda: DropZeroBiasesPass(constants=True), plainly_unbiased),
    "biases of Keras": (TakeBiasesPass, biased_behind),
    "whole slices": (DropWholeSlicesPass, sliced),
    "zero states": (DropZeroStatesPass, recurrent),
    "constants": (lambda: EvaluateConstantsPass(Growth(0)), evaluated),
    "tidy": (lambda: TidyPass(folded=1, kept=0), identity),
}


def built(body: Callable[[Graph, str], str]) -> ir.Model:
    g = Graph("float32", opset=20)
    g.output(body(g, g.input("x", "N", 4, 6, 6)))
    model = g.model()
    InferShapesPass()(model)
    return model


@pytest.mark.parametrize("what", CASES)
def test_a_pass_tells_what_it_did(what: str) -> None:
    make, body = CASES[what]
    model = built(body)
    given = content(model)
    done = make()(model)
    assert done.modified
    assert content(done.model) != given
    after = content(done.model)
    again = make()(done.model)
    assert not again.modified
    assert content(again.model) == after
    if not make().changes_input:
        assert content(model) == given


@pytest.mark.parametrize("what", CASES)
def test_a_pass_leaves_a_graph_alone_that_it_does_not_mean(what: str) -> None:
    make, _ = CASES[what]
    model = built(lambda g, x: g.op("Sigmoid", x))
    if what == "tidy":
        make()(model)
    given = content(model)
    done = make()(model)
    assert not done.modified
    assert content(done.model) == given


@pytest.mark.parametrize("make", [DropEmptyOutputsPass, TellConstantsPass, InferShapesPass])
def test_nothing_to_do(make: Made) -> None:
    assert not make()(built(identity)).modified


def test_empty_outputs() -> None:
    model = built(lambda g, x: g.op("Dropout", x))
    node = model.graph[0]
    node.resize_outputs(2)
    node.outputs[1].name = ""
    assert DropEmptyOutputsPass()(model).modified
    assert len(node.outputs) == 1


def test_constants_are_told() -> None:
    model = built(neutral)
    (value,) = model.graph.initializers.values()
    value.shape = ir.Shape(["N"])
    assert TellConstantsPass()(model).modified
    assert value.shape == ir.Shape([])


def test_zero_biases_that_no_runtime_takes_are_counted() -> None:
    model = built(lambda g, x: g.op("Conv", x, g.weight(4, 4, 1, 1), g.const(np.zeros((4, 2)))))
    done = DropZeroBiasesPass()(model)
    assert isinstance(done, ZeroBiasesDropped)
    assert (done.modified, done.misshapen) == (True, 1)


def test_in_order() -> None:
    model = built(lambda g, x: neutral(g, identity(g, x)))
    done = InOrder(DropIdentitiesPass(), DropNeutralPass())(model)
    assert done.modified
    assert [node.op_type for node in done.model.graph] == ["Relu", "Relu"]
    assert not InOrder(DropIdentitiesPass(), DropNeutralPass())(model).modified


def test_what_a_pass_raises_is_raised_as_it_is() -> None:
    class Failing(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            raise UserError(f"memory has ended at {model.graph.name}.", "Give it more.")

    with pytest.raises(UserError, match="memory has ended") as caught:
        InOrder(InOrder(DropIdentitiesPass(), Failing()))(built(identity))
    assert caught.value.hint == "Give it more."


def test_names_of_constants_are_unique_in_the_model() -> None:
    model = built(identity)
    builder = Builder(model)
    taken = str(model.graph[0].outputs[0].name)
    made = [
        builder.constant(model.graph, name, np.zeros(2, np.float32)) for name in (taken, taken, "x")
    ]
    assert [value.name for value in made] == [f"{taken}_2", f"{taken}_3", "x_2"]
    assert all(model.graph.initializers[str(value.name)] is value for value in made)
    assert made[0].shape == ir.Shape([2])
    assert made[0].dtype == ir.DataType.FLOAT


def content(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)
