"""What a route and a refusal tell of the ops on the way."""

from __future__ import annotations

import onnx_ir as ir

from converter.evaluation.normalize import normalize
from converter.folding import Refusal, Route, fold_graph

HEAD = """<ir_version: 10, opset_import: ["": 18]>
g (float[N, 4, 6, 6] x) => (float[N, k, a, b] y)
<float[4, 4, 1, 1] w = {W}, float[4] s = {1.0, -2.0, 3.0, 0.5}, float[4] t = {1.0, 1.0, 0.0, 2.0},
 float[4] m = {0.0, 0.0, 1.0, 1.0}, float[4] v = {1.0, 1.0, 1.0, 4.0}>
""".replace("{W}", "{" + ", ".join(["0.5"] * 16) + "}")


def outcome(body: str) -> Route | Refusal:
    model = ir.from_onnx_text(HEAD + "{" + body + "}")
    (decision,) = fold_graph(normalize(model)).plan.decisions
    return decision.outcome


def test_a_route_knows_the_map_on_each_side_of_an_op() -> None:
    route = outcome(
        "c = Conv(x, w) d = Transpose<perm = [0, 2, 3, 1]>(c) e = Transpose<perm = [0, 3, 1, 2]>(d)"
        " y = BatchNormalization(e, s, t, m, v)"
    )
    assert isinstance(route, Route)
    assert [step.op.split()[0] for step in route.steps] == ["Transpose", "Transpose", "Conv"]
    assert [step.met.axis for step in route.steps if step.met] == [1, 3, 1]
    assert [[left.axis for left in step.left] for step in route.steps] == [[3], [1], []]
    assert route.path == tuple(f"{step.op}: {step.formula}" for step in route.steps)


def test_a_refusal_tells_what_went_well_before_it() -> None:
    refusal = outcome(
        "c = Sigmoid(x) d = Transpose<perm = [0, 2, 3, 1]>(c) e = Transpose<perm = [0, 3, 1, 2]>(d)"
        " n = BatchNormalization(e, s, t, m, v) p = Identity(n)"
        " q = Transpose<perm = [0, 2, 3, 1]>(p) y = Tanh(q)"
    )
    assert isinstance(refusal, Refusal)
    assert "Sigmoid" in refusal.sentence
    assert refusal.node is not None
    assert refusal.node.op_type == "Sigmoid"
    assert [step.op.split()[0] for step in refusal.steps] == ["Transpose", "Transpose"]
    assert refusal.behind is not None
    assert "Tanh" in refusal.behind.sentence
    assert refusal.behind.node is not None
    assert refusal.behind.node.op_type == "Tanh"
    assert [(step.op.split()[0], step.way) for step in refusal.behind.steps] == [
        ("Transpose", "forward")
    ]


def test_a_refusal_at_the_first_op_has_passed_nothing() -> None:
    refusal = outcome("c = Sigmoid(x) y = BatchNormalization(c, s, t, m, v)")
    assert isinstance(refusal, Refusal)
    assert refusal.steps == ()
    assert refusal.behind is not None
    assert refusal.behind.steps == ()
