"""A graph in which nothing was folded is proven by being the same, whatever its ops are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.cli import main
from converter.folding import FoldOptions
from converter.pipeline import fold
from converter.proof.unchanged import same_graph
from converter.publishing.versions import publish
from converter.sources import LoadOptions, load
from service.manifest import Manifest

WEIGHTS = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
BIAS = np.array([0.1, -0.2, 0.3, 0.4], np.float32)


def microsoft(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """x (N, 8) to y (N, 4), with ops of onnxruntime's own domain."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(array, name)
            for name, array in {"W": WEIGHTS, "b": BIAS, **weights}.items()
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def own(op: str, inputs: list[str], output: str = "y", **how: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], domain="com.microsoft", **how)


PRODUCT = helper.make_node("MatMul", ["x", "W"], ["a"])
MODELS = {
    "FusedMatMul": microsoft(own("FusedMatMul", ["x", "W"], alpha=0.5)),
    "BiasGelu": microsoft(PRODUCT, own("BiasGelu", ["a", "b"])),
    "FusedGemm": microsoft(own("FusedGemm", ["x", "W", "b"], activation="Relu")),
}


def loaded(model: onnx.ModelProto, folder: Path):  # type: ignore[no-untyped-def]
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return load(folder / "m.onnx", LoadOptions())


@pytest.mark.parametrize("name", MODELS)
def test_ops_of_onnxruntime_are_published_as_they_are(tmp_path: Path, name: str) -> None:
    result = fold(loaded(MODELS[name], tmp_path))
    assert result.proof.passed
    assert "bit for bit" in result.proof.unchanged
    assert result.proof.batch_invariant
    path = Path(publish(result, tmp_path / "net").path)
    manifest = Manifest.model_validate_json((path / "model.json").read_bytes())
    assert manifest.dynamic_batch
    assert "bit for bit" in manifest.provenance["proof"]["unchanged"]


def test_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(MODELS["BiasGelu"].SerializeToString())
    assert main(["fold", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "out.onnx")]) == 0
    said = capsys.readouterr().out
    assert "Nothing was folded: the graph has the nodes and weights of the original" in said
    assert "against float64" not in said


def test_where_something_was_folded_it_is_no_proof(tmp_path: Path) -> None:
    """The batch-norm goes into the product: without an oracle nobody knows whether it is right."""
    names = ["gamma", "beta", "mean", "var"]
    norm = helper.make_node("BatchNormalization", ["a", *names], ["n"])
    values = [np.array([2, 1, 0.5, 1], np.float32), BIAS, BIAS, np.ones(4, np.float32)]
    weights = dict(zip(names, values, strict=True))
    result = fold(
        loaded(microsoft(PRODUCT, norm, own("BiasGelu", ["n", "b"]), **weights), tmp_path)
    )
    assert result.plan.folded
    assert not result.proof.passed
    assert not result.proof.unchanged
    kept = fold(loaded(microsoft(PRODUCT, norm, own("BiasGelu", ["n", "b"]), **weights), tmp_path),
                FoldOptions(skip=["*"]))  # fmt: skip
    assert kept.proof.passed
    assert kept.proof.unchanged


def test_numbers_that_the_graph_draws_are_no_proof(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["a"], ["r"])
    result = fold(loaded(microsoft(PRODUCT, noise, own("BiasGelu", ["r", "b"])), tmp_path))
    assert not result.proof.passed


def _edited(edit) -> onnx.ModelProto:  # type: ignore[no-untyped-def]
    model = onnx.ModelProto.FromString(MODELS["BiasGelu"].SerializeToString())
    edit(model.graph)
    return model


@pytest.mark.parametrize(
    "edit",
    [
        lambda g: g.node[1].MergeFrom(onnx.NodeProto(op_type="FastGelu")),
        lambda g: g.node[1].ClearField("domain"),
        lambda g: g.node[1].input.__setitem__(1, "W"),
        lambda g: g.node[0].attribute.append(helper.make_attribute("alpha", 2.0)),
        lambda g: g.node.append(helper.make_node("Abs", ["y"], ["z"])),
        lambda g: g.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS * 1.0000001, "W")),
        lambda g: g.initializer[1].CopyFrom(numpy_helper.from_array(BIAS[:3], "b")),
        lambda g: g.initializer.append(numpy_helper.from_array(BIAS, "c")),
    ],
    ids=["op", "domain", "input", "attribute", "node", "weight", "shape", "another weight"],
)
def test_what_is_another_graph(edit) -> None:  # type: ignore[no-untyped-def]
    one = ir.from_proto(MODELS["BiasGelu"])
    assert same_graph(one, ir.from_proto(_edited(lambda _: None)))
    assert not same_graph(one, ir.from_proto(_edited(edit)))
