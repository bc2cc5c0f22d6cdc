"""Outputs that are no tensors are left out of what is folded, with what only they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.cli import main
from converter.errors import UserError
from converter.files.only_tensors import kind_of
from converter.pipeline import fold
from converter.publishing.versions import publish
from converter.sources import LoadOptions, load
from service.manifest import Manifest

FLOAT = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
MAPS = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, FLOAT))
KINDS = {
    "seq(map(string,tensor(float)))": MAPS,
    "map(int64,tensor(float))": helper.make_map_type_proto(TensorProto.INT64, FLOAT),
    "seq(tensor(float))": helper.make_sequence_type_proto(FLOAT),
    "optional(tensor(float))": helper.make_optional_type_proto(FLOAT),
    "tensor(float)": FLOAT,
}


def classifier(
    kind: onnx.TypeProto = MAPS, *, labels: bool = True, named: bool = False
) -> onnx.ModelProto:
    """As skl2onnx ends a classifier: its label, and what a ZipMap makes of its scores.

    `named`: the labels are strings.
    """
    names = {"classlabels_strings": ["ant", "bee", "wasp"]}
    kinds = names if named else {"classlabels_ints": [3, 5, 7]}
    graph = helper.make_graph(
        [
            helper.make_node(
                "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
                coefficients=np.random.default_rng(0).standard_normal(12).tolist(),
                intercepts=[0.1, 0.2, 0.3], multi_class=1, post_transform="SOFTMAX", **kinds,
            ),
            helper.make_node("Identity", ["scores"], ["kept"]),
            helper.make_node("ZipMap", ["kept"], ["maps"], domain="ai.onnx.ml", **names),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [
            helper.make_tensor_value_info(
                "label", TensorProto.STRING if named else TensorProto.INT64, [None]
            )
        ] * labels
        + [helper.make_value_info("maps", kind)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("name", KINDS)
def test_types_are_written_as_onnxruntime_does(name: str) -> None:
    assert kind_of(KINDS[name]) == name


@pytest.mark.parametrize("name", [name for name in KINDS if name != "tensor(float)"])
def test_an_output_that_is_no_tensor_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier(KINDS[name]).SerializeToString())
    loaded = load(tmp_path / "m.onnx", LoadOptions())
    assert [value.name for value in loaded.model.graph.outputs] == ["label"]
    assert list(loaded.left_out) == ["maps"]
    assert name in loaded.left_out["maps"]
    assert any("output 'maps' is left out" in note for note in loaded.notes)
    assert [node.op_type for node in loaded.model.graph] == ["LinearClassifier"]


@pytest.mark.parametrize("named", [False, True])
def test_it_is_published_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier(named=named).SerializeToString())
    assert main(["fold", str(tmp_path / "m.onnx"), "--publish", str(tmp_path / "net")]) == 0
    assert "Output 'maps' is not served: it is a sequence of maps" in capsys.readouterr().out
    text = (tmp_path / "net" / "1" / "model.json").read_bytes()
    manifest = Manifest.model_validate_json(text)
    assert [(o.name, o.dtype) for o in manifest.outputs] == [
        ("label", "string" if named else "int64")
    ]
    assert list(manifest.left_out) == ["maps"]
    assert manifest.batch_invariant


def test_without_such_outputs_nothing_is_said(tmp_path: Path) -> None:
    """Services from before there was such a key take the file."""
    model = classifier()
    del model.graph.output[1]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    result = fold(load(tmp_path / "m.onnx", LoadOptions()))
    path = Path(publish(result, tmp_path / "net").path)
    assert b"left_out" not in (path / "model.json").read_bytes()


def test_a_model_with_no_other_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier(labels=False).SerializeToString())
    with pytest.raises(UserError, match="has no output that is a tensor: 'maps' is left out"):
        load(tmp_path / "m.onnx", LoadOptions())


@pytest.mark.parametrize("name", [name for name in KINDS if name != "tensor(float)"])
def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path, name: str) -> None:
    model = classifier()
    model.graph.input.append(helper.make_value_info("maps_in", KINDS[name]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="input 'maps_in' is not a tensor of numbers but ") as error:
        load(tmp_path / "m.onnx", LoadOptions())
    assert name in str(error.value)


def test_a_body_keeps_what_it_reads(tmp_path: Path) -> None:
    """`used` is read by a branch only, and must not be taken for dead."""
    then = helper.make_graph(
        [helper.make_node("Neg", ["used"], ["t"])], "t", [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])], "e", [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = classifier()
    model.graph.node.extend([
        helper.make_node("Abs", ["x"], ["used"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "m.onnx", LoadOptions())
    assert [node.op_type for node in loaded.model.graph] == ["LinearClassifier", "Abs", "If"]
