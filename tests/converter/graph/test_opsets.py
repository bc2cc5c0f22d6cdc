"""What normalizing and folding write exists at the opset of the model, from 7 to 23."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from converter.graph.cost import cost_of
from patterns.graphs import Graph, batchnorms, count

OPSETS = range(7, 24)
node = helper.make_node


class Net:
    """x (N, 3, 6, 6) through a convolution and a batch-norm to n (N, 6, 4, 4); then `body`."""

    def __init__(self, opset: int) -> None:
        rng = np.random.default_rng(0)
        self.opset = opset
        self.constants: list[onnx.TensorProto] = []
        self.const("w", rng.standard_normal((6, 3, 3, 3)).astype(np.float32))
        for name in "gbmv":
            self.const(name, rng.uniform(0.5, 1.5, 6).astype(np.float32))
        self.nodes = [
            node("Conv", ["x", "w"], ["a"]),
            node("BatchNormalization", ["a", *"gbmv"], ["n"]),
        ]
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])]
        self.outputs: list[onnx.ValueInfoProto] = []

    def const(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(self, op: str, *names: str, to: str | list[str], **attributes: Any) -> None:
        outputs = [to] if isinstance(to, str) else to
        self.nodes.append(node(op, list(names), outputs, **attributes))

    def result(self, name: str, rank: int = 4) -> None:
        shape = [f"{name}{axis}" for axis in range(rank)]
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def sequence(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)

    def proto(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


# The nets, each with the first opset that has its ops.
NETS: dict[str, tuple[int, Callable[[Net], None]]] = {}


def since(opset: int) -> Callable[[Callable[[Net], None]], Callable[[Net], None]]:
    def register(make: Callable[[Net], None]) -> Callable[[Net], None]:
        NETS[make.__name__] = opset, make
        return make

    return register


def chunked(net: Net, *split: str, **attributes: Any) -> None:
    net.op("SplitToSequence", "n", *split, to="q", **attributes)
    for name, place in (("p", 0), ("r", -1)):
        net.op("SequenceAt", "q", net.const(f"{name}_at", np.int64(place)), to=name)
        net.op("ReduceMean", name, to=f"{name}_mean", keepdims=0)
    net.op("Add", "p_mean", "r_mean", to="y")
    net.result("y", 0)


@since(11)
def equal_chunks(net: Net) -> None:
    chunked(net, net.const("s", np.int64(2)), axis=1)


@since(11)
def chunks_with_a_rest(net: Net) -> None:
    chunked(net, net.const("s", np.int64(4)), axis=-3)


@since(11)
def chunks_of_given_sizes(net: Net) -> None:
    chunked(net, net.const("s", np.array([1, 5])), axis=1)


@since(11)
def keepdims_does_not_count_with_sizes(net: Net) -> None:
    chunked(net, net.const("s", np.array([3, 3])), axis=1, keepdims=0)


@since(11)
def single_slices(net: Net) -> None:
    chunked(net, axis=1)


@since(11)
def single_slices_without_their_axis(net: Net) -> None:
    chunked(net, axis=1, keepdims=0)


@since(11)
def concatenated(net: Net) -> None:
    net.op("Relu", "n", to="r")
    net.op("SequenceConstruct", "n", "r", to="q")
    net.op("ConcatFromSequence", "q", to="y", axis=1)
    net.result("y")


@since(11)
def stacked(net: Net) -> None:
    net.op("Relu", "n", to="r")
    net.op("SequenceConstruct", "n", "r", to="q")
    net.op("ConcatFromSequence", "q", to="y", axis=-1, new_axis=1)
    net.result("y", 5)


@since(11)
def a_sequence_as_a_result(net: Net) -> None:
    net.op("SplitToSequence", "n", net.const("s", np.int64(2)), to="q", axis=1)
    net.op("Relu", "n", to="y")
    net.result("y")
    net.outputs.append(net.sequence("q"))


@since(14)
def a_sequence_under_two_names(net: Net) -> None:
    net.op("SequenceConstruct", "n", "n", to="q0")
    net.op("Identity", "q0", to="q")
    net.op("Relu", "n", to="y")
    net.result("y")
    net.outputs += [net.sequence("q0"), net.sequence("q")]


@since(11)
def a_sequence_that_grows(net: Net) -> None:
    net.op("SequenceEmpty", to="e")
    net.op("SequenceInsert", "e", "n", to="f")
    net.op("SequenceInsert", "f", "n", to="q")
    net.op("ConcatFromSequence", "q", to="y", axis=1)
    net.result("y")


@since(13)
def a_sequence_out_of_an_if(net: Net) -> None:
    net.inputs.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    bodies = [
        helper.make_graph(
            [node("SequenceConstruct", ["n"] * (1 + i), [f"q{i}"])],
            "body",
            [],
            [net.sequence(f"q{i}")],
        )
        for i in (0, 1)
    ]
    net.op("If", "c", to="q", then_branch=bodies[0], else_branch=bodies[1])
    net.op("SequenceAt", "q", net.const("first", np.int64(0)), to="p")
    net.op("Relu", "p", to="y")
    net.result("y")


@since(7)
def sizes_that_are_known(net: Net) -> None:
    net.op("Shape", "n", to="shape")
    net.op("Gather", "shape", net.const("zero", np.array([0])), to="batch")
    net.op("Concat", "batch", net.const("rest", np.array([-1])), to="sizes", axis=0)
    net.op("Reshape", "n", "sizes", to="y")
    net.result("y", 2)


@since(7)
def a_factor_from_a_size(net: Net) -> None:
    net.op("Size", "w", to="size")
    net.nodes.append(node("Cast", ["size"], ["number"], to=TensorProto.FLOAT))
    net.op("Div", "n", "number", to="y")
    net.result("y")


@since(8)
def an_expanded_factor(net: Net) -> None:
    ones = net.const("ones", np.full(1, 3, np.float32))
    net.op("Expand", ones, net.const("sizes", np.array([6, 1, 1])), to="e")
    net.op("Mul", "n", "e", to="y")
    net.result("y")


@since(7)
def dropout_with_its_mask(net: Net) -> None:
    net.op("Dropout", "n", to=["d", "mask"])
    net.op("Relu", "d", to="y")
    net.result("y")


@since(7)
def an_if_that_is_decided(net: Net) -> None:
    shape = ["N", 6, 4, 4]
    bodies = [
        helper.make_graph(
            [node(op, ["n"], [f"y{op}"])],
            "body",
            [],
            [helper.make_tensor_value_info(f"y{op}", TensorProto.FLOAT, shape)],
        )
        for op in ("Relu", "Tanh")
    ]
    condition = net.const("c", np.array(True))
    net.op("If", condition, to="y", then_branch=bodies[0], else_branch=bodies[1])
    net.result("y")


def results(proto: onnx.ModelProto) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given: dict[str, Any] = {
        "x": np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    }
    if any(value.name == "c" for value in session.get_inputs()):
        given["c"] = np.array(True)
    return list(session.run(None, given))


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


CASES = [(name, opset) for name, (first, _) in NETS.items() for opset in OPSETS if opset >= first]


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_every_opset(name: str, opset: int) -> None:
    net = Net(opset)
    NETS[name][1](net)
    proto = net.proto()
    expected = results(proto)
    normalized = normalize(ir.from_proto(proto))
    folded = fold_graph(normalized).model
    for model in (normalized, folded):
        after = ir.to_proto(model)
        onnx.checker.check_model(after)
        assert_same(expected, results(after))
    assert batchnorms(folded) == 0
    assert cost_of(folded).nodes <= cost_of(normalized).nodes


@pytest.mark.parametrize(("opset", "bends"), [(7, False), (8, True), (20, True)])
def test_a_maximum_with_one_number_a_channel_needs_opset_8(opset: int, bends: bool) -> None:
    g = Graph("float32", opset=opset)
    y = g.op("Relu", g.bn(g.op("Tanh", g.input("x", "N", 3, 4, 4)), 3))
    g.output(g.op("Conv", y, g.weight(2, 3, 1, 1)), shape=["N", 2, 4, 4])
    folded = fold_graph(normalize(g.model()), FoldOptions(through_relu=True)).model
    assert (batchnorms(folded) == 0) is bends
    onnx.checker.check_model(ir.to_proto(folded))
    results_of = ort.InferenceSession(
        ir.to_proto(folded).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert results_of.run(None, {"x": np.ones((1, 3, 4, 4), np.float32)})


@pytest.mark.parametrize("opset", [7, 8])
def test_a_sum_with_a_constant_that_is_repeated_needs_opset_8(opset: int) -> None:
    g = Graph("float32", opset=opset)
    x = g.op("Relu", g.input("x", "N", 3, 4, 4))
    a, b = (g.op("Conv", x, g.weight(3, 3, 1, 1)) for _ in range(2))
    total = g.op("Add", g.op("Sum", a, b, g.op("Tanh", x)), g.op("GlobalAveragePool", x))
    g.output(total, shape=["N", 3, 4, 4])
    model = g.model()
    folded = fold_graph(normalize(model)).model
    assert count(folded, "Conv") == (2 if opset == 7 else 1)
    assert count(folded, "Sum") == 1
    given = {"x": np.random.default_rng(2).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    one, other = (
        ort.InferenceSession(
            ir.to_proto(m).SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, given)
        for m in (model, folded)
    )
    assert_same(one, other)
