"""A verdict speaks of what ran: branches and loops are made to run, or named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.proof import Proof, verify
from converter.proof.conclusion import conclusion, uncovered
from converter.proof.control import bodies, fixed, pairs, random_outputs
from converter.proof.recorder import Recorder
from converter.proof.settings import MOST_RUNS, Setting, Variable, variables
from converter.report.facts import describe_proof
from converter.sources.inputs import describe, dynamic_batch
from patterns.graphs import Graph
from tests.converter.proof.test_verify import changed

Condition = Callable[[Graph], str]


def branching(condition: Condition, *, opset: int = 20) -> ir.Model:
    """y = conv(x, w) where the condition holds, else conv(x, v)."""
    g = Graph("float32", opset=opset, seed=5)
    x = g.input("x", "N", 2, "h", "w")
    for name in ("w", "v"):
        g.weight(3, 2, 1, 1, name=name)
    y = choose(g, condition(g), lambda b: b.op("Conv", x, "w"), lambda b: b.op("Conv", x, "v"))
    g.rename(y, "y")
    g.output("y", shape=["N", 3, "h", "w"])
    return g.model()


def choose(g: Graph, condition: str, then: Any, other: Any) -> str:
    graphs = {}
    for name, build in (("then_branch", then), ("else_branch", other)):
        body = g.body()
        body.output(build(body))
        graphs[name] = body.graph()
    return str(g.op("If", condition, **graphs))


def prove(model: ir.Model, candidate: ir.Model | None = None, **more: Any) -> Proof:
    inputs = describe(model, {"h": 4, "w": 5})
    other = normalize(model) if candidate is None else candidate
    more = {"dynamic_batch": dynamic_batch(model), **more}
    return verify(model, normalize(model), other, inputs, **more)


def mutants(model: ir.Model, *names: str) -> list[ir.Model]:
    return [changed(normalize(model), name, lambda w: -7 * w) for name in names or ("w", "v")]


def scalar(g: Graph, dtype: str = "int64") -> str:
    return g.input("s", dtype=dtype)


CONDITIONS: dict[str, Condition] = {
    "equal": lambda g: g.op("Equal", scalar(g), g.const(16000)),
    "less": lambda g: g.op("Less", scalar(g), g.const(-300)),
    "greater": lambda g: g.op("Greater", scalar(g), g.const(48000)),
    "at most": lambda g: g.op("LessOrEqual", scalar(g), g.const(-1)),
    "not equal": lambda g: g.op("Not", g.op("Equal", g.const(22050), scalar(g))),
    "int32, cast": lambda g: g.op(
        "Equal", g.op("Cast", scalar(g, "int32"), to=7), g.const(16000)
    ),
    "arithmetic": lambda g: g.op(
        "Greater", g.op("Add", g.op("Mul", scalar(g), g.const(-3)), g.const(7)), g.const(4000)
    ),
    "float": lambda g: g.op("Greater", scalar(g, "float32"), g.const(0.75e3)),
    "float, small": lambda g: g.op("Less", g.op("Mul", scalar(g, "float32"), g.const(1e-3)),
                                   g.const(-0.5)),
    "bool": lambda g: scalar(g, "bool"),
    "cast to bool": lambda g: g.op("Cast", scalar(g), to=9),
    "one of a vector": lambda g: g.op(
        "Equal", g.op("Squeeze", g.input("s", 1, dtype="int64")), g.const(8)
    ),
    "the size of an axis": lambda g: g.op(
        "Greater", g.op("Gather", g.op("Shape", "x"), g.const(3)), g.const(77)
    ),
    "sums of sizes": lambda g: g.op(
        "Less",
        g.op("ReduceSum", g.op("Shape", "x"), keepdims=0),
        g.op("Mul", g.op("Gather", g.op("Shape", "x"), g.const(2)), g.const(2)),
    ),
    "the mean": lambda g: g.op("Greater", g.op("ReduceMean", "x", keepdims=0), g.const(25.0)),
    "two": lambda g: g.op(
        "And", g.op("Equal", scalar(g), g.const(16000)), g.input("t", dtype="bool")
    ),
}  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_both_branches_run(condition: Condition) -> None:
    model = branching(condition)
    proof = prove(model)
    assert proof.passed
    assert len(proof.ran) == 2
    assert all(ran.turns for ran in proof.ran), "by inputs, not by force"
    assert not any(ran.forced for ran in proof.ran)
    assert proof.unreached == ()
    assert conclusion(proof) == "Proven: folded equals original."
    for wrong in mutants(model):
        assert prove(model, wrong).verdict == "differs"


def unlikely(g: Graph) -> str:
    """True where a hash of the input says so: no line leads there."""
    s = g.op("Mul", scalar(g), g.const(7919))
    return str(g.op("Equal", g.op("Mod", g.op("Mul", s, s), g.const(10007)), g.const(5003)))


def test_what_no_input_reaches_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.proof.settings.MOST_RUNS", 8)
    model = branching(unlikely)
    proof = prove(model)
    assert proof.passed
    forced = [ran for ran in proof.ran if not ran.turns]
    assert [ran.name.split()[0] for ran in forced] == ["then_branch"]
    assert forced[0].forced
    assert any("forced" in m.inputs for m in proof.measurements)
    for wrong in mutants(model):
        assert prove(model, wrong).verdict == "differs"


def test_nested_branches() -> None:
    g = Graph("float32", seed=2)
    x, s = g.input("x", "N", 3), g.input("s", dtype="int64")
    for name in "abc":
        g.weight(3, 3, name=name)
    large = g.op("Equal", s, g.const(16000))
    t = g.input("t", dtype="int64")
    y = choose(
        g, large,
        lambda b: choose(
            b, b.op("Greater", t, b.const(512)),
            lambda i: i.op("MatMul", x, "a"), lambda i: i.op("MatMul", x, "b"),
        ),
        lambda b: b.op("MatMul", x, "c"),
    )  # fmt: skip
    g.rename(y, "y")
    g.output("y", shape=["N", 3])
    model = g.model()
    proof = prove(model)
    assert proof.passed
    assert [ran.turns for ran in proof.ran] == [1, 1, 1, 1]
    for wrong in mutants(model, "a", "b", "c"):
        assert prove(model, wrong).verdict == "differs"


def looping(turns: Any = None, going: bool = True, start: int | None = None) -> ir.Model:
    """y = x * w, as often as the loop turns; an input says how often unless `turns` does."""
    g = Graph("float32", seed=1)
    x = g.input("x", "N", 3)
    limit = g.const(turns) if turns is not None else g.input("turns", dtype="int64")
    if start is not None:
        limit = g.op("Sub", limit, g.const(start))
    g.weight(3, name="w")
    body = g.body()
    body.input("i", dtype="int64")
    body.input("going", dtype="bool")
    body.input("state", "N", 3)
    body.output(body.op("Identity", "going"), dtype="bool")
    body.output(body.op("Mul", "state", "w"), shape=["N", 3])
    y = g.op("Loop", limit, g.const(np.array(going)), x, body=body.graph())
    g.rename(y, "y")
    g.output("y", shape=["N", 3])
    return g.model()


@pytest.mark.parametrize("start", [None, 40])
def test_a_loop_whose_turns_are_an_input(start: int | None) -> None:
    model = looping(start=start)
    proof = prove(model)
    assert proof.passed
    assert [ran.covered for ran in proof.ran] == [True]
    (wrong,) = mutants(model, "w")
    assert prove(model, wrong).verdict == "differs"


@pytest.mark.parametrize(("turns", "going"), [(0, True), (3, False)])
def test_a_loop_of_no_turns_did_not_run(turns: int, going: bool) -> None:
    model = looping(turns, going)
    proof = prove(model)
    assert [(ran.turns, ran.forced) for ran in proof.ran] == [(0, True)]
    (wrong,) = mutants(model, "w")
    assert prove(model, wrong).verdict == "differs"


def test_turns_are_counted() -> None:
    assert [ran.turns for ran in prove(looping(4)).ran] == [4]


def scanning(length: int | str) -> ir.Model:
    g = Graph("float32", seed=1)
    x = g.input("x", "N", 3)
    series = g.input("series", length, 3)
    g.weight(3, name="w")
    body = g.body()
    body.input("state", "N", 3)
    body.input("row", 3)
    body.output(body.op("Add", body.op("Mul", "state", "w"), "row"), shape=["N", 3])
    body.output(body.op("Mul", "row", "w"), shape=[3])
    y, rows = g.op("Scan", x, series, outputs=2, num_scan_inputs=1, body=body.graph())
    for name in (y, rows):
        g.output(name)
    return g.model()


def test_a_scan_is_recorded() -> None:
    model = scanning(4)
    assert [ran.turns for ran in prove(model, dynamic_batch=False).ran] == [4]
    (wrong,) = mutants(model, "w")
    assert prove(model, wrong, dynamic_batch=False).verdict == "differs"


def test_what_never_ran_is_named() -> None:
    """Forced, its graph fails; alone, it gives something else: so nothing is proven of it."""
    proof = prove(squeezing(2.0), normalize(squeezing(3.0)))
    assert proof.passed
    assert "then_branch of If" in uncovered(proof)
    assert conclusion(proof).startswith("Proven as far as it ran")
    assert uncovered(proof) in conclusion(proof)
    told = describe_proof(proof)["ran"]
    assert [(ran["covered"], ran["turns"]) for ran in told] == [(False, 0), (True, 1)]


def test_a_branch_that_cannot_be_forced_runs_alone() -> None:
    """A Squeeze of an axis that is never 1: behind it, nothing fits."""
    for weight, covered in ((2.0, True), (3.0, False)):
        model = squeezing(2.0)
        proof = prove(model, normalize(squeezing(weight)))
        assert proof.passed
        then, other = proof.ran
        assert (then.turns, other.turns) == (0, 1)
        assert then.alone is covered
        assert not then.forced
        assert then.covered is covered, "alone, a difference says nothing"


def squeezing(weight: float) -> ir.Model:
    g = Graph("float32")
    x = g.input("x", "N", 4)
    size = g.op("Gather", g.op("Shape", x), g.const(0))
    y = choose(
        g, g.op("Less", size, g.const(-5)),
        lambda b: b.op("Mul", b.op("Unsqueeze", x, b.const(np.array([0, 1]))), b.const(weight)),
        lambda b: b.op("Identity", x),
    )  # fmt: skip
    g.output(g.op("MatMul", g.op("Transpose", y, perm=[1, 0]), y), shape=[4, 4])
    return g.model()


def test_a_condition_that_no_input_changes() -> None:
    """As exporters ask for the rank of a tensor: the other branch never runs, whatever comes."""
    model = branching(lambda g: g.op("Equal", g.op("Size", g.op("Shape", "x")), g.const(3)))
    g = model.graph
    recorder = Recorder(model)
    recorder.watch({"x": np.ones((1, 2, 4, 5), np.float32)})
    assert [(recorder.ran(b), recorder.dead(b)) for b in recorder.bodies] == [
        (False, True),
        (True, False),
    ]
    condition = next(iter(bodies(g))).node.inputs[0]
    assert fixed(condition, frozenset(g.inputs))


def test_bodies_of_other_names_are_paired_by_order() -> None:
    one, other = (branching(CONDITIONS["bool"]) for _ in range(2))
    for node in other.graph:
        for value in node.outputs:
            if value.name != "y":
                value.name = f"other_{value.name}"
    found, alone = pairs(list(bodies(one.graph)), list(bodies(other.graph)))
    assert [(a.branch, b.branch) for a, b in found] == [("then_branch",) * 2, ("else_branch",) * 2]
    assert alone == []
    fewer = list(bodies(looping(1).graph))
    found, alone = pairs(list(bodies(one.graph)), fewer)
    assert found == []
    assert len(alone) == 3


def test_inputs_that_run_take_the_place_of_those_that_do_not() -> None:
    """A graph that only runs where s is 16000: as speech models of two rates do."""
    g = Graph("float32")
    x, s = g.input("x", "N", 6), scalar(g)
    rows = g.op("Where", g.op("Equal", s, g.const(16000)), g.const(np.array([2])),
                g.const(np.array([7])))  # fmt: skip
    width = g.op("Concat", rows, g.const(np.array([3])), axis=0)
    y = choose(
        g, g.op("Greater", s, g.const(5)),
        lambda b: b.op("ReduceSum", b.op("Reshape", x, width), b.const(np.array([1]))),
        lambda b: b.op("ReduceSum", b.op("Reshape", x, width), b.const(np.array([1]))),
    )  # fmt: skip
    g.output(y, shape=["a", "b"])
    proof = prove(g.model(), dynamic_batch=False)
    assert proof.failure == ""
    assert all("s = 16000" in m.inputs for m in proof.measurements)


def drawing(op: str, *inputs: Any, **attributes: Any) -> ir.Model:
    g = Graph("float32")
    x = g.input("x", "N", 3)
    noise = g.op(op, *([x] if op.endswith("Like") else inputs), **attributes)
    g.rename(g.op("Add", x, noise), "noisy")
    g.output("noisy", shape=["N", 3])
    g.rename(g.op("Mul", x, g.const(2.0, "two")), "plain")
    g.output("plain", shape=["N", 3])
    return g.model()


@pytest.mark.parametrize(
    "model",
    [
        drawing("RandomNormalLike"),
        drawing("RandomUniformLike", seed=1.0),
        drawing("RandomNormal", shape=[1, 3]),
        drawing("RandomUniform", shape=[1, 3], seed=2.0),
    ],
)
def test_numbers_that_a_graph_draws_itself(model: ir.Model) -> None:
    proof = prove(model)
    assert proof.verdict == "unmeasured"
    assert proof.unmeasured == ("noisy",)
    assert "depends on numbers that the graph draws itself (Random" in conclusion(proof)
    assert len({m.inputs for m in proof.measurements}) == 3, "no other inputs would help"
    wrong = changed(normalize(model), "two", lambda two: two * 3)
    assert prove(model, wrong).verdict == "differs", "the other output is measured"


@pytest.mark.parametrize(("training", "found"), [(True, ["y"]), (False, []), (None, [])])
def test_dropout_draws_while_training(training: bool | None, found: list[str]) -> None:
    g = Graph("float32")
    more = [] if training is None else [g.const(0.5), g.const(np.array(training))]
    g.rename(g.op("Dropout", g.input("x", "N", 3), *more), "y")
    g.output("y", shape=["N", 3])
    assert list(random_outputs(g.model().graph)) == found


def test_variables_and_settings() -> None:
    model = branching(CONDITIONS["two"])
    found = variables(describe(model, {"h": 4, "w": 5}))
    assert [(v.what, v.name) for v in found] == [
        ("value", "s"), ("value", "t"), ("size", "h"), ("size", "w"), ("mean", "x"),
    ]  # fmt: skip
    s, t, h = found[:3]
    setting = Setting().but(s, 16000).but(h, 9).but(s, 8000)
    assert setting.name == "axis h = 9, s = 8000"
    assert setting.sized(describe(model, {"h": 4, "w": 5}))[0].example == (1, 2, 9, 5)
    assert not t.fits(2)
    assert not s.fits(0.5)
    assert Variable("value", "i", least=0, most=9).fits(9)
    assert not Variable("value", "i", least=0, most=9).fits(10)
    assert MOST_RUNS == 96
