"""From a loaded model to a proven one: what `fold` returns, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from converter.errors import UserError
from converter.files.onnx_file import write_onnx
from converter.folding import FoldOptions, Plan
from converter.graph.tidy import TidyPass
from converter.pipeline import fold, plan, size_of
from patterns.graphs import Graph, assert_equal, batchnorms
from patterns.graphs import fold as fold_only
from tests.converter.files.test_onnx_file import with_tensors
from tests.converter.published import graph, loaded


def test_it_folds_proves_and_counts() -> None:
    done = fold(loaded())
    assert done.proof.passed
    assert [d.site.name for d in done.plan.folded] == ["bn1"]
    assert [d.site.name for d in done.plan.kept] == ["bn2"]
    assert batchnorms(done.model) == 1
    assert (done.before.batchnorms, done.after.batchnorms) == (2, 1)
    assert done.after.nodes == done.before.nodes - 1
    # bn1's four vectors of 4 go, a bias of 4 comes.
    assert done.before.parameters - done.after.parameters == 4 * 4 - 4
    assert done.after.bytes < done.before.bytes
    assert_equal(done.loaded.model, done.model, rtol=1e-5)


def test_the_loaded_model_is_not_changed() -> None:
    source = loaded()
    before = ir.to_proto(source.model).SerializeToString(deterministic=True)
    fold(source)
    plan(source)
    assert ir.to_proto(source.model).SerializeToString(deterministic=True) == before


def test_the_plan_alone_is_the_same() -> None:
    def told(made: Plan) -> list[tuple[str, bool, str]]:
        return [(d.site.name, d.folded, getattr(d.outcome, "code", "")) for d in made.decisions]

    source = loaded()
    assert told(plan(source)) == told(fold(source).plan)
    assert told(plan(source)) == [("bn1", True, ""), ("bn2", False, "not-linear")]


def test_only_and_skip() -> None:
    assert [d.site.name for d in fold(loaded(), FoldOptions(only=["bn2"])).plan.kept] == [
        "bn1",
        "bn2",
    ]
    assert [d.site.name for d in fold(loaded(), FoldOptions(only=["bn*"])).plan.folded] == ["bn1"]
    skipped = fold(loaded(), FoldOptions(skip=["bn1"]))
    assert skipped.plan.folded == ()
    assert skipped.proof.passed


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_pattern_that_matches_nothing(option: str) -> None:
    for call in (fold, plan):
        with pytest.raises(UserError, match=r"no batch-norm is named like 'layer9\.\*'"):
            call(loaded(), FoldOptions(**{option: ["layer9.*"]}))


def test_a_model_without_batchnorms() -> None:
    g = Graph("float32")
    g.output(g.op("Relu", g.input("x", "N", 3)), shape=["N", 3])
    done = fold(loaded(g))
    assert done.plan.decisions == ()
    assert done.proof.passed


def test_a_fixed_batch() -> None:
    done = fold(loaded(graph(batch=2)))
    assert done.proof.passed
    assert done.proof.sample["image"].shape[0] == 2


def test_the_data_is_measured() -> None:
    data = {"image": np.zeros((7, 3, 6, 6), np.float32)}
    proof = fold(loaded(), data=data).proof
    assert proof.passed
    assert "your data, 7 rows" in [m.inputs for m in proof.measurements]


def test_what_the_file_says_of_untouched_statistics_is_passed_on() -> None:
    g = Graph("float32")
    y = g.op("Conv", g.input("x", "N", 3, 5), g.weight(4, 3, 1))
    fresh = g.statistics(4, "bn1", mean=np.zeros(4), var=np.ones(4))
    g.output(g.op("BatchNormalization", y, *fresh), shape=["N", 4, 5])
    for call in (lambda source: fold(source).plan, plan):
        (decision,) = call(loaded(g, untracked=frozenset({"bn1"}))).decisions
        assert "num_batches_tracked 0" in str(decision.site.warnings[0])


def test_progress_is_told_in_order() -> None:
    said: list[str] = []
    fold(loaded(), progress=said.append)
    assert said[:2] == ["normalize", "fold"]
    assert said[-1] == "batch invariance"


@pytest.mark.parametrize("kind", ["plain", "body", "odd types"])
def test_the_size_is_that_of_the_file(tmp_path: Path, kind: str) -> None:
    model = {"plain": graph().model, "body": _with_body, "odd types": with_tensors}[kind]()
    write_onnx(model, tmp_path / "m.onnx")
    assert size_of(model, 0).bytes == (tmp_path / "m.onnx").stat().st_size


def _with_body() -> ir.Model:
    g = Graph("float32")
    x = g.input("x", "N", 4)
    a, b = g.body(), g.body()
    inner = a.weight(4, 4)
    a.output(a.op("MatMul", x, inner), shape=["N", 4])
    b.output(b.op("Neg", x), shape=["N", 4])
    c = g.input("c", dtype="bool")
    g.output(g.op("If", c, then_branch=a.graph(), else_branch=b.graph()))
    return g.model()


def traced() -> ir.Model:
    """A model with what torch's exporter leaves everywhere: names, stack traces, paths."""
    model = graph().model()
    secret = 'File "/home/someone/net.py", line 3'
    noise = {"pkg.torch.onnx.stack_trace": secret, "pkg.torch.onnx.fx_node": "%bn1"}
    values = [v for node in model.graph for v in node.outputs]
    values += [*model.graph.inputs, *model.graph.initializers.values()]
    for thing in (model.graph, *model.graph, *values):
        thing.metadata_props.update(noise)
        thing.doc_string = secret
    model.metadata_props.update(noise)
    return model


def test_nothing_of_the_machine_is_written(tmp_path: Path) -> None:
    source = loaded()
    source.model = traced()
    source.model.metadata_props["license"] = "Apache-2.0"
    done = fold(source)
    write_onnx(done.model, tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    for word in (b"/home/someone", b"pkg.torch", b"stack_trace"):
        assert word not in content
    assert done.model.metadata_props == {
        "license": "Apache-2.0",
        "foldserve.batchnorms_folded": "1",
        "foldserve.batchnorms_kept": "1",
    }
    assert done.model.producer_name == "foldserve"


def test_tidying_leaves_the_original_alone() -> None:
    model = traced()
    folded = fold_only(model)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    tidy = TidyPass(folded=len(folded.plan.folded), kept=len(folded.plan.kept))
    assert tidy(folded.model).modified
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_onnx(fold(loaded()).model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
