"""What applying a plan leaves behind: copies where constants are shared, names, graph outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.folding import Hazard, fold_graph, note_untracked, plan_graph
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    feeds,
    fold,
    normalize,
    ort_run,
    signature,
)


def conv(g: Graph, x: str = "", weight: str = "", channels: int = 4, inputs: int = 3) -> str:
    x = x or g.input("x", "N", inputs, 5, 5)
    return g.op("Conv", x, weight or g.weight(channels, inputs, 3, 3))


def checked(g: Graph, left: int = 0) -> ir.Model:
    """Fold it, measure it, and look at the folded graph with onnx's own checker."""
    model = g.model()
    before = ir.to_proto(model).SerializeToString()
    normalized = normalize(model)
    middle = ir.to_proto(normalized).SerializeToString()
    after = fold_graph(normalized).model
    assert ir.to_proto(model).SerializeToString() == before
    assert ir.to_proto(normalized).SerializeToString() == middle
    assert batchnorms(after) == left
    assert_equal(model, after)
    assert_equal(model, after, seed=2)
    assert signature(after) == signature(normalized)
    assert len({value.name for value in _values(after)}) == len(_values(after))
    onnx.checker.check_model(ir.to_proto(after))
    return after


def _values(model: ir.Model) -> list[ir.Value]:
    graphs = [model.graph, *model.graph.subgraphs()]
    return [
        value
        for graph in graphs
        for value in [
            *graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)
        ]
        if not (value.is_initializer() and value.is_graph_input())
    ]  # fmt: skip


def test_a_shared_weight_keeps_its_numbers_for_its_other_reader() -> None:
    g = Graph()
    x, w = g.input("x", "N", 4, 5, 5), g.weight(4, 4, 1, 1, name="W")
    y = g.bn(conv(g, x, w), 4)
    g.output(g.op("Add", y, g.op("Relu", conv(g, x, w))), shape=["N", 4, 5, 5])
    after = checked(g)
    assert {"W", "W_folded"} <= set(after.graph.initializers)


def test_a_shared_weight_with_two_batchnorms() -> None:
    g = Graph()
    x, w, c = g.input("x", "N", 4, 5, 5), g.weight(4, 4, 1, 1), g.weight(4)
    y = g.bn(g.op("Conv", x, w, c), 4)
    g.output(g.bn(g.op("Conv", g.op("Relu", y), w, c), 4), shape=["N", 4, 5, 5])
    checked(g)


def test_a_module_that_is_used_twice_stays_one() -> None:
    """The same weight and the same batch-norm, twice: one folded weight, as before."""
    g = Graph()
    w, parts = g.weight(4, 3, 1, 1, name="W"), g.statistics(4)
    for name in ("left", "right"):
        y = g.op("Conv", g.input(name, "N", 3, 5, 5), w)
        g.output(g.op("BatchNormalization", y, *parts), shape=["N", 4, 5, 5])
    after = checked(g)
    weights = [v for v in after.graph.initializers.values() if len(v.shape or ()) == 4]
    assert len(weights) == 1


def test_a_weight_that_is_also_read_as_data() -> None:
    g = Graph()
    w = g.weight(4, 3, 5, 5, name="W")
    y = g.bn(g.op("Conv", w, w, pads=[2] * 4), 4)
    g.output(g.op("Add", y, g.input("x", 4, 4, 5, 5)), shape=[4, 4, 5, 5])
    model = g.model()
    after = fold(model).model
    assert_equal(model, after)


def test_a_weight_that_is_an_output_keeps_its_numbers() -> None:
    g = Graph()
    g.output(g.bn(conv(g, weight=g.weight(4, 3, 1, 1, name="W")), 4), shape=["N", 4, 5, 5])
    g.output("W", shape=[4, 3, 1, 1])
    checked(g)


def test_shared_statistics_of_a_batchnorm_that_stays() -> None:
    """The kept one takes up another's map into a gamma that a third one reads too."""
    g = Graph()
    parts = g.statistics(4)
    y = g.op("Relu", g.input("x", "N", 4, 5, 5))
    kept = g.bn(g.op("BatchNormalization", y, *parts), 4)
    z = g.op("BatchNormalization", g.op("Sigmoid", kept), *parts)
    g.output(z, shape=["N", 4, 5, 5])
    checked(g, left=2)


def branch(g: Graph, x: str, w: str, parts: list[str]) -> onnx.GraphProto:
    body = g.body()
    y = body.op("BatchNormalization", body.op("Conv", x, w), *parts)
    body.output(y, shape=["N", 4, 5, 5])
    return body.graph()


def test_both_branches_of_an_if_share_a_weight_with_the_graph() -> None:
    """The copy must lie where both branches see it."""
    g = Graph()
    x, w, parts = g.input("x", "N", 3, 5, 5), g.weight(4, 3, 1, 1), g.statistics(4)
    condition = g.input("c", dtype="bool")
    first, second = branch(g, x, w, parts), branch(g, x, w, parts)
    y = g.op("If", condition, then_branch=first, else_branch=second)
    g.output(g.op("Add", y, conv(g, x, w)), shape=["N", 4, 5, 5])
    checked(g)


def test_a_branch_may_return_a_batchnorm_from_outside() -> None:
    """An Identity stands between, and must stay: a body returns only what it computes."""
    g = Graph("float32")
    y = g.bn(conv(g), 4)
    a, b = g.body(), g.body()
    a.output(a.op("Identity", y), shape=["N", 4, 3, 3])
    b.output(b.op("Relu", y), shape=["N", 4, 3, 3])
    condition = g.input("c", dtype="bool")
    taken = g.op("If", condition, then_branch=a.graph(), else_branch=b.graph())
    g.output(taken, shape=["N", 4, 3, 3])
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    for given in (feeds(model), feeds(model) | {"c": np.array(True)}):
        np.testing.assert_allclose(ort_run(after, given)[0], ort_run(model, given)[0], atol=1e-5)


def test_a_batchnorm_inside_a_loop_body() -> None:
    g = Graph()
    x = g.input("x", 2, 4, 5, 5)
    body = g.body()
    body.input("i", dtype="int64")
    body.input("go", dtype="bool")
    state = body.input("state", 2, 4, 5, 5)
    y = body.bn(body.op("Conv", state, g.weight(4, 4, 1, 1)), 4)
    body.output(body.op("Identity", "go"), dtype="bool", shape=[])
    body.output(y, shape=[2, 4, 5, 5])
    count, go = g.const(3), g.const(np.array(True))
    g.output(g.op("Loop", count, go, x, body=body.graph()), shape=[2, 4, 5, 5])
    checked(g)


def test_an_output_keeps_its_name_and_its_sizes() -> None:
    g = Graph()
    y = g.bn(g.op("Conv", g.input("x", "N", 3, "H", "W"), g.weight(4, 3, 3, 3)), 4)
    g.rename(y, "features")
    g.output("features", shape=["batch", 4, "height", "width"])
    after = checked(g)
    (output,) = after.graph.outputs
    assert output.name == "features"
    assert [str(size) for size in output.shape or ()] == ["batch", "4", "height", "width"]


def test_an_output_that_others_read_keeps_its_name() -> None:
    g = Graph()
    y = g.bn(conv(g), 4)
    g.rename(y, "features")
    g.output("features", shape=["N", 4, 3, 3])
    g.output(g.op("Relu", "features"), shape=["N", 4, 3, 3])
    assert checked(g).graph.outputs[0].name == "features"


def test_an_output_behind_matmul_keeps_its_name() -> None:
    g = Graph()
    y = g.bn(g.op("MatMul", g.input("x", "N", 3), g.weight(3, 4)), 4)
    g.rename(y, "logits")
    g.output("logits", shape=["N", 4])
    assert checked(g).graph.outputs[0].name == "logits"


@pytest.mark.parametrize("op", ["Shape", "Size"])
def test_readers_of_the_shape_do_not_mind(op: str) -> None:
    g = Graph()
    y = conv(g)
    g.output(g.op(op, y), dtype="int64", shape=[4] if op == "Shape" else [])
    g.output(g.bn(y, 4), shape=["N", 4, 3, 3])
    checked(g)


def test_names_that_are_taken_are_not_used() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 5, 5)
    w = g.weight(4, 4, 1, 1, name="a.weight")
    y = g.bn(conv(g, x, w), 4)
    g.rename(y, "a.bias")
    z = g.op("Add", "a.bias", g.weight(4, 1, 1, name="a.weight_folded"))
    g.output(g.op("Add", z, g.op("Relu", conv(g, x, w))), shape=["N", 4, 5, 5])
    checked(g)


def test_a_batchnorm_that_does_nothing_folds() -> None:
    g = Graph()
    same = {"gamma": np.ones(4), "beta": np.zeros(4), "mean": np.zeros(4), "var": np.ones(4)}
    y = g.op("BatchNormalization", conv(g), *g.statistics(4, **same), epsilon=0.0)
    g.output(y, shape=["N", 4, 3, 3])
    assert [node.op_type for node in checked(g).graph] == ["Conv"]


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 14, 15, 22])
def test_opsets(opset: int) -> None:
    g = Graph(opset=opset)
    g.output(g.bn(conv(g), 4), shape=["N", 4, 3, 3])
    checked(g)


def test_two_opset_domains_of_one_name() -> None:
    """The default domain is written "" or "ai.onnx" (onnx/docs/IR.md)."""
    g = Graph()
    g.output(g.op("Relu", g.bn(conv(g), 4)), shape=["N", 4, 3, 3])
    proto = g.proto()
    proto.opset_import[0].domain = "ai.onnx"
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    model = ir.from_proto(proto)
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after)


def test_a_graph_without_batchnorms_stays_as_it_is() -> None:
    g = Graph()
    g.output(g.op("Relu", conv(g)), shape=["N", 4, 3, 3])
    model = normalize(g.model())
    after = fold_graph(model)
    assert after.plan.decisions == ()
    assert ir.to_proto(after.model) == ir.to_proto(model)


def test_planning_changes_nothing() -> None:
    g = Graph()
    g.output(g.bn(conv(g), 4))
    model = normalize(g.model())
    before = ir.to_proto(model).SerializeToString()
    assert len(plan_graph(model).folded) == 1
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean": np.zeros(4), "var": np.ones(4)}, "never updated"),
        ({"gamma": [1.0, 0, 2, 0]}, "2 of 4 channels have gamma = 0"),
    ],
)
def test_suspicious_statistics_warn(given: dict[str, object], says: str) -> None:
    g = Graph()
    y = g.op("BatchNormalization", conv(g), *g.statistics(4, **given))
    g.output(y, shape=["N", 4, 3, 3])
    checked(g)
    (decision,) = fold(g).plan.decisions
    assert says in " ".join(map(str, decision.site.warnings))


def test_a_counter_of_zero_is_told_with_the_values_it_explains() -> None:
    """Alone it proves nothing: statistics that were ported from elsewhere come without it."""

    def warnings(g: Graph, *untracked: str) -> tuple[Hazard, ...]:
        graph = normalize(g.model())
        note_untracked(graph, untracked)
        return fold_graph(graph).plan.decisions[0].site.warnings

    g = Graph()
    g.output(g.bn(conv(g), 4, name="layer1.bn"))
    assert warnings(g, "layer1.bn") == ()
    g = Graph()
    fresh = g.statistics(4, "layer1.bn", mean=np.zeros(4), var=np.ones(4))
    g.output(g.op("BatchNormalization", conv(g), *fresh))
    (warning,) = warnings(g, "layer1.bn")
    assert "num_batches_tracked 0" in str(warning)
    (warning,) = warnings(g)
    assert "num_batches_tracked" not in str(warning)
