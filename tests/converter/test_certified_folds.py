"""`fold` certifies what it writes, beside measuring it; what cannot be certified still folds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converter.certificate import Certified, NotCertified, certify
from converter.cli import main
from converter.files import onnx_file
from converter.folding import FoldOptions
from converter.pipeline import FoldResult, fold
from converter.publishing.versions import publish
from converter.sources import LoadOptions, load, onnx_
from converter.system import memory
from patterns.graphs import Graph
from tests.converter.published import graph, loaded


def small() -> Graph:
    """Conv, batch-norm, Relu, a batch-norm that stays."""
    return graph()


def branched() -> Graph:
    """A batch-norm in each branch of an If, and one in front of both."""
    g = Graph("float32")
    x = g.input("x", "N", 3, 6, 6)
    y = g.bn(g.op("Conv", x, g.weight(4, 3, 3, 3)), 4)
    bodies = []
    for kernel in (1, 3):
        b = g.body()
        z = b.op("Conv", y, b.weight(4, 4, kernel, kernel), pads=[kernel // 2] * 4)
        b.output(b.bn(z, 4), shape=["N", 4, 4, 4])
        bodies.append(b.graph())
    many = g.op("Greater", g.op("ReduceMax", x, keepdims=0), g.const(2.0))
    chosen = g.op("If", many, then_branch=bodies[0], else_branch=bodies[1])
    g.output(g.op("Relu", chosen), shape=["N", 4, 4, 4])
    return g


def misdeclared() -> Graph:
    """Its output is said to have sizes that it does not have: publishing tells the right ones."""
    g = Graph("float32")
    x = g.input("x", "N", 3, 6, 6)
    g.output(g.bn(g.op("Conv", x, g.weight(4, 3, 3, 3)), 4), shape=["N", 4, 9, 9])
    return g


def old() -> Graph:
    """Before version 4 of the format each weight was listed among the inputs."""
    g = Graph("float32", opset=8, ir_version=3)
    x = g.input("x", -1, 3, 6, 6)
    g.output(g.bn(g.op("Conv", x, g.weight(4, 3, 3, 3)), 4), shape=[-1, 4, 4, 4])
    for tensor in g.initializers:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        g.inputs.append(value)
    return g


def half() -> Graph:
    g = Graph("float16")
    x = g.input("x", "N", 3, 6, 6)
    g.output(g.bn(g.op("Conv", x, g.weight(4, 3, 3, 3)), 4), shape=["N", 4, 4, 4])
    return g


def saved(g: Graph | onnx.ModelProto, folder: Path) -> Path:
    path = folder / "a.onnx"
    onnx.save(g.proto() if isinstance(g, Graph) else g, path)
    return path


def folded(path: Path, **options: Any) -> FoldResult:
    return fold(load(path, LoadOptions(**options)))


GRAPHS = [small, branched, misdeclared, old, half]


@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize("beside", [False, True], ids=["in one file", "weights beside"])
def test_what_is_written_is_what_was_certified(
    make: Callable[[], Graph], beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files, the user's and the written ones, have the very certificate of the fold."""
    a = saved(make(), tmp_path)
    done = folded(a)
    found = done.certificate
    assert isinstance(found, Certified), str(found)
    assert done.proof.certificate is found
    assert 0 < found.largest_move <= found.roundings
    if beside:
        monkeypatch.setattr(onnx_file, "LARGEST_MESSAGE", 1)
        monkeypatch.setattr(onnx_file, "_SMALLEST_BESIDE", 1)
    b = tmp_path / "b.onnx"
    assert len(onnx_file.write_onnx(done.model, b)) == 1 + beside
    version = Path(publish(done, tmp_path / "models" / "m").path)
    for written in (b, version / "model.onnx"):
        again = certify(onnx_.read(a)[0], onnx_.read(written)[0])
        assert isinstance(again, Certified), str(again)
        assert replace(again, seconds=0.0) == replace(found, seconds=0.0)


def test_publishing_told_the_sizes_of_the_misdeclared_output(tmp_path: Path) -> None:
    """Of the test above: there the published graph is another one than that of the fold."""
    done = folded(saved(misdeclared(), tmp_path))
    version = Path(publish(done, tmp_path / "models" / "m").path)
    (output,) = onnx.load(version / "model.onnx").graph.output
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim][1:] == [4, 4, 4]
    assert list(done.model.graph.outputs[0].shape or ())[1:] == [4, 9, 9]


def test_the_commands_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = saved(small(), tmp_path), tmp_path / "b.onnx"
    reports = [tmp_path / f"{name}.json" for name in ("fold", "verify")]
    assert main(["fold", str(a), "-o", str(b), "--json", str(reports[0])]) == 0
    out = capsys.readouterr().out
    assert main(["verify", str(a), str(b), "--certify", "--json", str(reports[1])]) == 0
    assert "Proven: B equals A, for every input and as measured." in capsys.readouterr().out
    one, other = (json.loads(path.read_text())["certificate"] for path in reports)
    assert one["sentence"].startswith("Certified for every input: 2 of 2 batch-norms (1 kept); ")
    assert f"{one['sentence'][:-1]}; " in out, "and the time, which a report has as a number"
    assert one["sentence"] == other["sentence"].replace("batch-norms;", "batch-norms (1 kept);")
    assert "Proven: folded equals original, for every input and as measured." in out
    assert one["figures"] == other["figures"]
    assert one["figures"]["batchnorms"] == 2
    assert other["where"] is one["where"] is None


def test_batchnorms_of_several_nodes_are_counted(tmp_path: Path) -> None:
    """As Keras writes them; the plan knows them, the certificate alone does not."""
    g = Graph("float32")
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 3, 3))
    y = g.op("Mul", g.op("Sub", y, g.weight(1, 4, 1, 1)), g.weight(1, 4, 1, 1))
    g.output(g.op("Add", y, g.weight(1, 4, 1, 1)), shape=["N", 4, 4, 4])
    a, report = saved(g, tmp_path), tmp_path / "r.json"
    assert main(["fold", str(a), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    count = found["plan"]["batchnorms"]
    assert found["certificate"]["figures"]["batchnorms"] == count
    assert (f"{count} of {count} batch-norms" in found["certificate"]["sentence"]) == (count > 0)


def test_what_is_not_certified_rests_on_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doubt = NotCertified("'picked', a Mystery, has no equal.", "picked", "Mystery")
    monkeypatch.setattr("converter.pipeline.certify", lambda *_: doubt)
    a, report = saved(small(), tmp_path), tmp_path / "r.json"
    assert main(["fold", str(a), "--json", str(report)]) == 0
    out = capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["written"]
    assert not found["certificate"]["certified"]
    assert found["certificate"]["figures"] is None
    assert found["certificate"]["where"]["value"] == "picked"
    assert found["proof"]["rests_on"] == ["measurement"]
    assert "Not certified: 'picked', a Mystery, has no equal.\n" in out
    assert "Proven by the measurement alone: folded equals original." in out


def test_nothing_is_certified_of_outputs_that_are_left_out(tmp_path: Path) -> None:
    proto = misdeclared().proto()
    proto.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["many"]))
    proto.graph.output.append(
        helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, ["N", 3, 6, 6])
    )
    a = saved(proto, tmp_path)
    done = folded(a)
    assert done.proof.passed
    assert isinstance(done.certificate, NotCertified)
    assert "nothing is known of the output 'many'" in done.certificate.reason
    onnx_file.write_onnx(done.model, tmp_path / "b.onnx")
    assert main(["verify", str(a), str(tmp_path / "b.onnx"), "--certify=only"]) == 3


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep"), ValueError("odd")])
def test_a_checker_that_fails_breaks_no_fold(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("converter.certificate.Walk", fail)
    done = fold(loaded())
    assert done.proof.passed
    assert isinstance(done.certificate, NotCertified)
    said = "not enough memory" if isinstance(error, MemoryError) else "the check failed"
    assert said in done.certificate.reason


def test_a_checker_without_memory(tmp_path: Path) -> None:
    """Under the limit that the command line sets, the allocation fails, and that is the result."""
    g = Graph("float32")
    y = g.op("Gemm", g.input("x", "N", 3000), g.weight(3000, 3000))
    g.output(g.bn(y, 3000), shape=["N", 3000])
    pair = tmp_path / "once.onnx", tmp_path / "folded.onnx"
    for model, path in zip((g.model(), fold(loaded(g)).model), pair, strict=True):
        onnx_file.write_onnx(model, path)
    assert certify(*pair)
    # In a process of its own: one that has freed much before has room below any limit.
    run = [sys.executable, "-c", _BOUNDED, *map(str, pair)]
    said = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said.startswith("Not certified: ")
    assert "not enough memory" in said


_BOUNDED = """
import sys
from pathlib import Path
from converter.certificate import certify
from converter.system import memory

with memory.bounded(memory._held()[0] + 2**20):
    found = certify(*map(Path, sys.argv[1:]))
print(found)
"""


def test_a_checker_that_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit, half of what is free is what it may take."""
    g = graph()
    done = partial(certify, g.model(), fold(loaded(g)).model)
    start = memory.held()
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    for taken, certified in ((2**29 - 2**20, True), (2**29 + 2**20, False)):
        numbers = iter((start,))
        monkeypatch.setattr(memory, "held", lambda n=numbers, t=taken: next(n, start + t))
        found = done()
        assert bool(found) is certified, str(found)
    assert isinstance(found, NotCertified)
    assert "not enough memory" in found.reason
    monkeypatch.setattr(memory, "available", lambda: None)
    assert done(), "where it is not known, nothing is bounded"


def test_other_folds_are_certified_too() -> None:
    g = Graph("float32")
    y = g.op("Relu", g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 3, 3)))
    g.output(g.op("Tanh", g.bn(y, 4)), shape=["N", 4, 4, 4])
    done = fold(loaded(g), FoldOptions(through_relu=True))
    assert len(done.plan.folded) == 1
    assert done.certificate
    kept = fold(loaded(g), FoldOptions(skip=["bn*"]))
    assert kept.certificate, "nothing was folded, and so nothing moved"
    assert isinstance(kept.certificate, Certified)
    assert kept.certificate.largest_move < 1e-5
    assert np.isfinite(kept.certificate.seconds)
