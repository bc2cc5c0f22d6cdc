"""Pairs that compute different things, made to look the same: bodies, functions, windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import external_data_helper, helper

from converter.certificate import certify
from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, doubted, refused, written


def strided(op: str, kernel: int = 3, **attributes: object) -> Build:
    """Windows of stride 2 over an image whose size is open."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 3, "H", "W")
        if op == "Conv":
            weight = g.weight(4, 3, kernel, kernel)
            return str(g.op(op, x, weight, strides=[2, 2], **attributes))
        return str(g.op(op, x, kernel_shape=[kernel] * 2, strides=[2, 2], **attributes))

    return build


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
def test_a_padding_to_the_same_size_is_none_of_numbers(op: str) -> None:
    """With an even size it is (0, 1), with an odd one (1, 1)."""
    same = written(strided(op, auto_pad="SAME_UPPER"))
    refused(same, written(strided(op, auto_pad="SAME_LOWER")))
    refused(same, written(strided(op, pads=[0, 0, 1, 1])))
    refused(written(strided(op, pads=[0, 0, 1, 1])), same)


def test_a_padding_to_the_same_size_is_numbers_where_the_size_is_fixed() -> None:
    def build(**attributes: object) -> Build:
        return lambda g: str(
            g.op("Conv", g.input("x", 2, 3, 8, 8), g.weight(4, 3, 3, 3), strides=[2, 2],
                 **attributes)
        )  # fmt: skip

    accepted(written(build(auto_pad="SAME_UPPER")), written(build(pads=[0, 0, 1, 1])))
    refused(written(build(auto_pad="SAME_UPPER")), written(build(pads=[1, 1, 0, 0])))


def test_a_batch_norm_passes_a_convolution_that_pads_to_the_same_size() -> None:
    def build(scale: float) -> Build:
        def inner(g: Graph) -> str:
            y = g.op("Conv", g.input("x", "N", 3, "H", "W"), g.const(weight * scale),
                     strides=[2, 2], auto_pad="SAME_UPPER")  # fmt: skip
            return str(y if scale != 1 else g.op("Mul", y, g.const(np.full((), 1.5))))

        weight = np.random.default_rng(3).standard_normal((4, 3, 3, 3)).astype(np.float32)
        return inner

    accepted(written(build(1.0)), written(build(1.5)))


@pytest.mark.parametrize("kernel", [2, 4])
def test_an_attribute_that_does_not_fit_to_the_kernel_is_not_overlooked(kernel: int) -> None:
    def build(size: int) -> Build:
        return lambda g: str(
            g.op("Conv", g.input("x", "N", 3, 8, 8), g.weight(4, 3, 3, 3), kernel_shape=[size] * 2)
        )

    refused(written(build(3)), written(build(kernel)))


def nested(counted: str) -> ir.Model:
    """A Loop in a Loop: both start with x, and the inner one adds the round of one of them."""
    g = Graph("float32")
    x, times, go = g.input("x", 2, 3), g.const(np.array(3)), g.const(np.array(True))
    outer = g.body()
    rounds = {"outer": outer.input("i", dtype="int64")}
    condition, state = outer.input("c", dtype="bool"), outer.input("s", 2, 3)
    inner = outer.body()
    rounds["inner"] = inner.input("j", dtype="int64")
    again, held = inner.input("d", dtype="bool"), inner.input("t", 2, 3)
    inner.output(inner.op("Identity", again), dtype="bool")
    inner.output(inner.op("Add", held, inner.op("Cast", rounds[counted], to=1)), shape=[2, 3])
    found = outer.op("Loop", times, go, x, body=inner.graph())
    outer.output(outer.op("Identity", condition), dtype="bool")
    outer.output(outer.op("Add", outer.op("Neg", state), found), shape=[2, 3])
    g.output(g.op("Loop", times, go, x, body=outer.graph()), shape=[2, 3])
    return g.model()


def test_a_loop_in_a_loop_counts_its_own_rounds() -> None:
    refused(nested("outer"), nested("inner"))
    refused(nested("inner"), nested("outer"))


def looped(body: Build, axis: int | None = None, state: str = "first") -> ir.Model:
    """A Loop of which the state, or what is collected, is the output."""
    g = Graph("float32")
    x, times, go = g.input("x", 2, 3), g.input("times", dtype="int64"), g.const(np.array(True))
    inner = g.body()
    inner.input("i", dtype="int64")
    again = inner.input("c", dtype="bool")
    inner.input("s", 2, 3)
    inner.output(inner.op("Identity", again), dtype="bool")
    inner.output(body(inner), shape=[2, 3])
    inner.output(inner.op("Relu", "s"), shape=[2, 3])
    last, collected = g.op("Loop", times, go, x, outputs=2, body=inner.graph())
    if axis is None:
        g.output(last if state == "first" else collected)
    else:
        g.output(g.rename(g.op("Softmax", collected, axis=axis), "y"))
    return g.model()


def halved(g: Graph) -> str:
    return str(g.op("Mul", "s", g.const(np.full((), 0.5))))


def test_an_axis_of_a_value_of_unknown_rank_is_that_axis() -> None:
    refused(looped(halved, axis=1), looped(halved, axis=2))
    refused(looped(halved, axis=-1), looped(halved, axis=1))


def test_what_a_loop_computes_in_every_round_is_compared() -> None:
    def by(number: float) -> Build:
        return lambda g: str(g.op("Mul", "s", g.const(np.full((), number))))

    accepted(looped(by(0.5)), looped(by(0.5)))
    refused(looped(by(0.5)), looped(by(0.500001)))


def test_how_long_a_loop_runs_is_compared() -> None:
    def build(times: int, go: bool) -> ir.Model:
        g = Graph("float32")
        x = g.input("x", 2, 3)
        inner = g.body()
        inner.input("i", dtype="int64")
        again, held = inner.input("c", dtype="bool"), inner.input("s", 2, 3)
        inner.output(inner.op("Identity", again), dtype="bool")
        inner.output(inner.op("Relu", held), shape=[2, 3])
        number, truth = g.const(np.array(times)), g.const(np.array(go))
        g.output(g.op("Loop", number, truth, x, body=inner.graph()), shape=[2, 3])
        return g.model()

    refused(build(3, True), build(4, True))
    refused(build(3, True), build(3, False))


def test_in_which_direction_a_scan_goes_is_compared() -> None:
    def build(**directions: list[int]) -> ir.Model:
        g = Graph("float32")
        x, start = g.input("x", 5, 3), g.input("start", 3)
        inner = g.body()
        held, now = inner.input("h", 3), inner.input("v", 3)
        inner.output(inner.rename(inner.op("Add", inner.op("Tanh", held), now), "n"), shape=[3])
        inner.output(inner.op("Sigmoid", "n"), shape=[3])
        last, all_of_them = g.op(
            "Scan", start, x, outputs=2, body=inner.graph(), num_scan_inputs=1, **directions
        )
        g.output(last, shape=[3])
        g.output(all_of_them, shape=[5, 3])
        return g.model()

    accepted(build(), build())
    refused(build(), build(scan_input_directions=[1]))
    refused(build(), build(scan_output_directions=[1]))


def test_a_body_reads_the_value_that_its_own_graph_made() -> None:
    """A branch that captures another value of the outer graph."""

    def build(captured: int) -> ir.Model:
        g = Graph("float32")
        condition, x = g.input("condition", dtype="bool"), g.input("x", "N", 4)
        values = [g.op("Relu", x), g.op("Sigmoid", x)]
        one, two = g.body(), g.body()
        one.output(one.op("Tanh", values[captured]), shape=["N", 4])
        two.output(two.op("Tanh", values[0]), shape=["N", 4])
        g.output(g.op("If", condition, then_branch=one.graph(), else_branch=two.graph()))
        return g.model()

    refused(build(1), build(0))
    refused(build(0), build(1))


def calling(*functions: onnx.FunctionProto, op: str = "F", overload: str = "") -> ir.Model:
    g = Graph("float32")
    x = g.input("x", "N", 4)
    node = helper.make_node(op, [x], ["y"], domain="" if op == "Relu" else "local")
    node.overload = overload
    g.nodes.append(node)
    g.output("y")
    proto = g.proto()
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.extend(functions)
    return ir.from_proto(proto)


def function(op: str, name: str = "F", domain: str = "local", overload: str = "", opset: int = 20
             ) -> onnx.FunctionProto:  # fmt: skip
    found = helper.make_function(
        domain, name, ["a"], ["b"], [helper.make_node(op, ["a"], ["b"])],
        [helper.make_opsetid("", opset)],
    )  # fmt: skip
    found.overload = overload
    return found


def test_functions_of_one_name_are_told_apart_by_their_overload() -> None:
    both = [function("Relu", overload="one"), function("Sigmoid", overload="other")]
    accepted(calling(*both, overload="one"), calling(*both, overload="one"))
    refused(calling(*both, overload="one"), calling(*both, overload="other"))


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_function_that_is_named_as_an_op_is_refused(domain: str) -> None:
    found = doubted(calling(op="Relu"), calling(function("Neg", "Relu", domain), op="Relu"))
    assert "named as the op 'Relu'" in found.reason


def test_a_function_of_another_opset_is_refused() -> None:
    assert not certify(calling(function("Relu")), calling(function("Relu", opset=12)))


def test_the_same_name_in_another_domain_is_another_op() -> None:
    g = Graph("float32")
    g.nodes.append(helper.make_node("Relu", [g.input("x", "N", 4)], ["y"], domain="com.microsoft"))
    g.output("y")
    assert "com.microsoft" in refused(calling(op="Relu"), g.model()).reason


def test_outputs_that_change_places_are_refused() -> None:
    def build(first: str, second: str) -> ir.Model:
        g = Graph("float32")
        x = g.input("x", "N", 4)
        values = {name: g.op("Identity", g.op(name, x)) for name in ("Relu", "Neg")}
        g.output(g.rename(values[first], "one"))
        g.output(g.rename(values[second], "two"))
        return g.model()

    accepted(build("Relu", "Neg"), build("Relu", "Neg"))
    refused(build("Relu", "Neg"), build("Neg", "Relu"))


@pytest.mark.parametrize("opset", [6, 99])
def test_rules_are_for_the_opsets_that_they_were_written_for(opset: int) -> None:
    """Before 7 an Add broadcasts along its `axis`; what comes may be anything."""

    def build(**axis: int) -> ir.Model:
        g = Graph("float32", opset=opset, ir_version=8)
        g.output(g.op("Add", g.input("x", 2, 4, 4, 4), g.const(np.arange(4.0)), **axis))
        return g.model()

    assert f"opset {opset}" in doubted(build(axis=1, broadcast=1), build(broadcast=1)).reason


def test_what_an_average_is_divided_by_in_a_window_that_lies_partly_outside_is_compared() -> None:
    def build(counted: int) -> Build:
        return lambda g: str(
            g.op("AveragePool", g.input("x", 1, 2, 6, 6), kernel_shape=[3, 3], strides=[2, 2],
                 ceil_mode=1, count_include_pad=counted)
        )  # fmt: skip

    refused(written(build(0)), written(build(1)))


def test_an_axis_that_an_upsample_moves_within_its_size_is_one_that_it_resizes() -> None:
    """Of two channels with a factor of 1.2, both are the first one."""

    def build(*, first: bool) -> Build:
        def inner(g: Graph) -> str:
            x, factor = g.input("x", 1, 2, 3, 3), g.const(np.array([2.0, 3.0]).reshape(1, 2, 1, 1))
            if first:
                x = g.op("Mul", x, factor)
            y = g.op("Upsample", x, scales=[1.0, 1.2, 2.0, 2.0], mode="nearest")
            return str(y if first else g.op("Mul", y, factor))

        return inner

    assert not certify(written(build(first=True), opset=8), written(build(first=False), opset=8))


def test_weights_beside_a_file_are_not_looked_for(tmp_path: Path) -> None:
    """They could lie anywhere; who reads the file with its folder opens them."""
    g = Graph("float32")
    g.output(g.op("MatMul", g.input("x", "N", 64), g.weight(64, 64)))
    proto = g.proto()
    external_data_helper.convert_model_to_external_data(proto, location="../a.data")
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    (tmp_path / "a.onnx").write_bytes(proto.SerializeToString())
    assert "weights beside it" in doubted(tmp_path / "a.onnx", tmp_path / "a.onnx").reason


def test_a_weight_of_a_body_hides_the_value_of_its_name() -> None:
    def build(*, hidden: bool) -> ir.Model:
        g = Graph("float32")
        condition, x = g.input("condition", dtype="bool"), g.input("x", "N", 4)
        value = g.op("Relu", x)
        one, two = g.body(), g.body()
        if hidden:
            one.const(np.ones((1, 4)), value)
        one.output(one.op("Tanh", value), shape=["N", 4])
        two.output(two.op("Neg", value), shape=["N", 4])
        g.output(g.op("If", condition, then_branch=one.graph(), else_branch=two.graph()))
        return g.model()

    refused(build(hidden=False), build(hidden=True))
    refused(build(hidden=True), build(hidden=False))


def test_an_alias_is_what_it_is_another_name_of() -> None:
    def build(of: str) -> ir.Model:
        g = Graph("float32")
        x = g.input("x", "N", 4)
        values = {"Relu": g.op("Relu", x), "Neg": g.op("Neg", x)}
        g.output(g.rename(g.op("Identity", values["Relu"]), "one"))
        g.output(g.rename(g.op("Identity", g.op("Identity", values[of])), "other"))
        return g.model()

    accepted(build("Relu"), build("Relu"))
    refused(build("Relu"), build("Neg"))
