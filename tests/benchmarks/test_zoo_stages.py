"""What is measured of one architecture, on two tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks.zoo import judging, names, networks, stages
from converter.proof import Measurement, Proof
from converter.sources import InputShape

pytestmark = pytest.mark.slow

SHAPES = (InputShape((3, 8, 8)),)


def foldable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )


def stubborn() -> nn.Module:
    """Nothing linear stands before its batch-norm, and padding behind it."""
    return nn.Sequential(
        nn.Sigmoid(), nn.BatchNorm2d(3), nn.Sigmoid(), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten()
    )


def exported(
    module: nn.Module,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    exporter: str = names.EXPORTERS[0],
) -> dict[str, Any]:
    torch.manual_seed(0)
    module.eval().requires_grad_(False)
    networks.randomize(module)
    settled = networks.settle(module, SHAPES)
    made = networks.Network(module, SHAPES, settled)
    monkeypatch.setattr(networks, "network", lambda _: made)
    row = stages.export("test:tiny", folder, exporter)
    (folder / names.EXPORT).write_text(json.dumps(row))
    return row


def test_a_net_that_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = exported(foldable(), tmp_path, monkeypatch)
    assert (row["batchnorms"], row["input"], row["exporter"]) == (1, [[3, 8, 8]], "dynamo")
    assert row["sensitivity"] > 0.01
    found = stages.fold("test:tiny", tmp_path)
    assert (found["left"], found["verdict"], found["reasons"]) == (0, "proven", {})
    assert found["left_through_relu"] == 0
    assert found["exact"] < 1e-12
    assert (found["certified"], found["certified_weights"]) == (True, 828)
    assert found["certificate"].startswith("Certified for every input: 1 of 1 batch-norms; 828")
    again = stages.certify("test:tiny", tmp_path)
    assert {key: found[key] for key in again if key != "certify_seconds"} == {
        key: value for key, value in again.items() if key != "certify_seconds"
    }
    monkeypatch.setattr(stages, "RIVAL_NAMES", ("onnxruntime",))
    (peer,) = stages.peers("test:tiny", tmp_path)["peers"].values()
    assert (peer["left"], peer["right"]) == (0, True)


def behind_relu() -> nn.Module:
    """Reads a Relu that something else reads, too: its first batch-norm goes with an option."""
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
    )


@pytest.mark.parametrize("exporter", names.EXPORTERS)
def test_the_algebra_is_looked_at_in_the_same_way_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exporter: str
) -> None:
    exported(behind_relu(), tmp_path, monkeypatch, exporter)
    loaded = stages._users("test:tiny", tmp_path)
    left = [judging.exact(loaded, through_relu=way)[1] for way in (False, True, True)]
    assert left == [1, 0, 0]
    assert all(
        value.dtype != ir.DataType.DOUBLE for node in loaded.model.graph for value in node.outputs
    )


def test_the_quick_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = exported(foldable(), tmp_path, monkeypatch, "TorchScript")
    assert (row["batchnorms"], row["exporter"], row["dynamic_batch"]) == (1, "TorchScript", True)
    found = stages.fold("test:tiny", tmp_path)  # with what torch computes, too
    assert (found["left"], found["verdict"]) == (0, "proven")
    assert (tmp_path / names.REFERENCE).is_file()


@pytest.mark.slow
def test_the_other_exporter_is_tried_where_the_quick_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("converter.sources.export.script", fails)
    row = exported(foldable(), tmp_path, monkeypatch, "TorchScript")
    assert row["exporter"] == "dynamo"


def test_a_net_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(stubborn(), tmp_path, monkeypatch)
    found = stages.fold("test:tiny", tmp_path)
    assert (found["left"], found["verdict"]) == (1, "proven")
    ((count, sample),) = found["reasons"].values()
    assert count == 1
    assert sample.startswith("1: ")


def test_a_peer_that_is_wrong_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(foldable(), tmp_path, monkeypatch)
    wrong = """
import onnx
model = onnx.load(source)
weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
array = onnx.numpy_helper.to_array(weight) * 1.001
weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
onnx.save(model, target)
"""
    crash = "raise ValueError('no idea')"
    tools = {
        "wrong": peers.Peer("wrong", "onnx", wrong),
        "crash": peers.Peer("crash", "onnx", crash),
    }
    monkeypatch.setattr(stages, "PEERS", tools)
    monkeypatch.setattr(stages, "RIVAL_NAMES", tuple(tools))
    found = stages.peers("test:tiny", tmp_path)["peers"]
    assert not found["wrong"]["right"]
    assert found["wrong"]["error_ratio"] > stages.LENIENCY
    assert "no idea" in found["crash"]["error"]


def test_a_failure_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(name: str) -> networks.Network:
        raise RuntimeError("the wrapper") from KeyError("inside")

    monkeypatch.setattr(networks, "network", fails)
    stages.main(["export", "test:tiny", str(tmp_path)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["error"] == {"class": "KeyError", "sentence": "the wrapper"}


def measurement(error: float, problem: str = "", *, unmeasured: bool = False) -> Measurement:
    return Measurement("y", "batch 1", 1.0, 1e-7, error, 2e-7, problem, unmeasured=unmeasured)


AWAY = measurement(0.0, "the original itself is 2% away", unmeasured=True)


@pytest.mark.parametrize(
    ("proof", "verdict"),
    [
        (Proof((measurement(1e-7),)), "proven"),
        (Proof((measurement(1e-3),)), "wrong"),
        (Proof((AWAY,), unmeasured=("y",)), "not proven"),
        (Proof((measurement(1e-7), AWAY)), "proven"),
        (Proof((measurement(1e-7),), (measurement(1e-3),)), "wrong"),
        (Proof((measurement(0.0, "the folded model gives NaN"),)), "wrong"),
        (Proof((measurement(1e-7),), (), (measurement(1e-3),)), "not proven"),
        (Proof(failure="there is no float64 oracle"), "not proven"),
        (Proof(failure="onnxruntime: it does not load", failed="differs"), "wrong"),
        (Proof(), "not proven"),
    ],
)
def test_verdicts(proof: Proof, verdict: str) -> None:
    assert judging.judge(proof)[0] == verdict


def test_statistics_follow_what_reaches_a_batchnorm() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(
        *(nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU()) for _ in range(40))
    ).eval()
    networks.randomize(deep)
    assert networks.settle(deep, (InputShape((16,)),))
    with torch.no_grad():
        y = deep(torch.randn(64, 16))
    assert 0.1 < y.std() < 10
    norm = deep[3][1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert (norm.weight < 0).any()
    assert (norm.weight > 0).any()


def test_constant_parameters_become_random() -> None:
    module = nn.Module()
    module.scale = nn.Parameter(torch.full((50,), 1e-6))
    module.bias = nn.Parameter(torch.zeros(50))
    module.weight = nn.Parameter(torch.arange(50.0))
    networks.randomize(module)
    assert (module.scale.abs() >= 0.3).all()
    assert module.scale.min() < 0 < module.scale.max()
    assert module.bias.std() > 0.01
    assert torch.equal(module.weight, torch.arange(50.0))


def test_batchnorms_are_counted_in_bodies_too(tmp_path: Path) -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 2] x, float[2] w, bool c) => (float[N, 2] z) {
            y = BatchNormalization (x, w, w, w, w)
            z = If (c) <
                then_branch = a () => (float[N, 2] p) { p = BatchNormalization (y, w, w, w, w) },
                else_branch = b () => (float[N, 2] q) { q = Identity (y) }
            >
        }
    """
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert peers.batchnorms_in(path) == 2


def test_arrays_survive_the_disk(tmp_path: Path) -> None:
    inputs, outputs = {"x 1": np.ones(2)}, {"y": np.zeros((0, 3))}
    stages._save(tmp_path / "a.npz", inputs, outputs)
    got = stages._load(tmp_path / "a.npz")
    assert [list(part) for part in got] == [["x 1"], ["y"]]
    assert got[1]["y"].shape == (0, 3)
