"""Outputs that no protocol carries are left out, and said to be; the others are served."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import repository
import tritonclient.grpc as triton_grpc
from onnx import ModelProto, TensorProto, helper, numpy_helper

from service import device
from service.errors import UnknownOutput
from service.models import model
from service.models.bundle import Rejected
from service.models.registry import Registry

LOADER = partial(model.load, choice=device.choose("cpu"), threads=1, capacity_samples=8)
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
MAPS = "it is a sequence of maps, seq(map(int64,tensor(float)))"


def zipmap(*, labels: bool = True) -> ModelProto:
    """The label of the largest of three scores, and all of them by label, as skl2onnx writes it."""
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    kind = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(kind))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "W"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
            helper.make_node(
                "ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
            ),
        ],
        "g",
        [repository.value("x", TensorProto.FLOAT, ["batch", 4])],
        [repository.value("label", TensorProto.INT64, ["batch"])] * labels + [maps],
        [numpy_helper.from_array(weights, "W")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def sequence() -> ModelProto:
    """y = -x, and x cut into rows."""
    rows = helper.make_tensor_sequence_value_info("rows", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Neg", ["x"], ["y"]),
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0),
    ]
    x, y = (repository.value(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    return repository.graph(nodes, [x], [y, rows])


def first_of() -> ModelProto:
    """The first tensor of a sequence."""
    given = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    node = helper.make_node("SequenceAt", ["s", "first"], ["y"])
    y = repository.value("y", TensorProto.FLOAT, ["n"])
    return repository.graph([node], [given], [y], {"first": np.array(0, np.int64)})


@pytest.mark.parametrize(
    ("graph", "name", "other", "why"),
    [
        (zipmap(), "maps", "label", MAPS),
        (sequence(), "rows", "y", "it is a sequence, seq(tensor(float))"),
    ],
    ids=["maps", "sequence"],
)
def test_the_other_outputs_are_served(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    graph: ModelProto,
    name: str,
    other: str,
    why: str,
):
    repository.bare(tmp_path, "m", graph)
    registry = Registry(tmp_path, LOADER)
    with caplog.at_level(logging.INFO, "foldserve.registry"):
        registry.load()
    assert f"model m version 1: output {name!r} is left out: {why}" in caplog.text
    served = registry.find("m")
    shown = served.describe()
    assert [spec["name"] for spec in shown["outputs"]] == [other]
    assert list(shown["left_out"]) == [name]
    assert shown["left_out"][name].startswith(why)
    got = repository.answer(served, {"x": X})
    assert list(got) == [other]
    np.testing.assert_array_equal(got[other], repository.reference(graph, {"x": X})[other])
    error = served.signature.unknown_output(name)
    assert isinstance(error, UnknownOutput)
    assert f"The model's output {name!r} is not served: {why}" in error.message
    assert error.hint == f"Ask for {other!r}."
    assert registry.close(60)


def test_with_a_manifest_it_is_no_matter_whether_it_names_them(tmp_path: Path):
    label = {"name": "label", "dtype": "int64", "shape": ["batch"]}
    for version, changes in enumerate(({}, {"left_out": {"maps": "of my own words"}}), 1):
        folder = repository.bare(tmp_path, "m", zipmap(), version)
        repository.seal(folder, outputs=[label], dynamic_batch=True, **changes)
        served = LOADER(folder, "m", version)
        assert list(served.signature.outputs) == ["label"]
        (why,) = served.signature.left_out.values()
        assert why.startswith(MAPS if version == 1 else "of my own words")
        assert served.batcher.close(60)


def test_an_output_that_could_be_served_may_be_left_out(tmp_path: Path):
    folder = repository.bare(tmp_path, "m", repository.pair())
    y = {"name": "y", "dtype": "float32", "shape": ["batch", 2]}
    repository.seal(folder, outputs=[y], left_out={"positive": "nobody needs it"})
    served = LOADER(folder, "m", 1)
    assert list(repository.answer(served, {"a": X[:, :2], "b": X[:, :2]})) == ["y"]
    assert served.signature.left_out == {"positive": "nobody needs it"}
    assert served.batcher.close(60)
    repository.seal(folder, outputs=[y])
    with pytest.raises(Rejected, match="disagree about the outputs"):
        LOADER(folder, "m", 1)


def test_a_model_without_any_other_output_is_refused(tmp_path: Path):
    folder = repository.bare(tmp_path, "m", zipmap(labels=False))
    with pytest.raises(Rejected, match="no output that can be served: 'maps' is left out, as it"):
        LOADER(folder, "m", 1)


def test_a_model_that_takes_a_sequence_is_refused(tmp_path: Path):
    folder = repository.bare(tmp_path, "m", first_of())
    expected = r"input 's' has the type seq\(tensor\(float\)\), which cannot be served: a request"
    with pytest.raises(Rejected, match=expected):
        LOADER(folder, "m", 1)


def test_who_asks_for_it_is_told(start, tmp_path: Path):
    repository.bare(tmp_path, "m", zipmap())
    served = start(tmp_path, "--grpc-port", "0")
    ask = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 4], "data": X.tolist()}],
        "outputs": [{"name": "maps"}],
    }
    with served.client() as client:
        answer = client.post("/v2/models/m/infer", json=ask)
        assert answer.status_code == 400
        assert f"output 'maps' is not served: {MAPS}" in answer.json()["error"]
        assert "Ask for 'label'." in answer.json()["error"]
        metadata = client.get("/v2/models/m").json()
        assert [output["name"] for output in metadata["outputs"]] == ["label"]
        assert MAPS in client.get("/models/m").text
        answer = client.post(
            "/models/m/predict?output=maps",
            json={"inputs": X.tolist()},
            headers={"Accept": "application/x-npy"},
        )
        assert MAPS in answer.json()["message"]
        del ask["outputs"]
        (label,) = client.post("/v2/models/m/infer", json=ask).json()["outputs"]
    expected = repository.reference(zipmap(), {"x": X})["label"]
    assert label["data"] == expected.tolist()
    channel = re.search(r"^  grpc +(\S+)$", served.out, re.MULTILINE)[1]
    with triton_grpc.InferenceServerClient(channel) as triton:
        given = triton_grpc.InferInput("x", [3, 4], "FP32")
        given.set_data_from_numpy(X)
        wanted = [triton_grpc.InferRequestedOutput("maps")]
        with pytest.raises(Exception, match="output 'maps' is not served"):
            triton.infer("m", [given], outputs=wanted)
        assert triton.infer("m", [given]).as_numpy("label").tolist() == expected.tolist()
    assert served.stop() == 0
