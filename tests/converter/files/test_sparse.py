"""Sparse weights, wherever they are, are weights; and no file asks for a size that it does not
have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter import load
from converter.errors import UserError
from converter.evaluation.normalize import normalize
from converter.folding import fold_graph
from patterns.graphs import batchnorms, ort_run

WEIGHT = np.array([[0, 2, 0, 0], [0, 0, 0, -1], [3, 0, 0, 0], [0, 0.5, 0, 4]], np.float32)


def sparse(
    name: str = "w",
    values: Any = None,
    indices: Any = None,
    dims: tuple[int, ...] = (4, 4),
    *,
    flat: bool = True,
) -> onnx.SparseTensorProto:
    places = np.flatnonzero(WEIGHT) if flat else np.argwhere(WEIGHT)
    values = WEIGHT.ravel()[np.flatnonzero(WEIGHT)] if values is None else values
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.asarray(values, np.float32), name),
        numpy_helper.from_array(np.asarray(places if indices is None else indices), "i"),
        dims,
    )


def saved(folder: Path, *tensors: onnx.SparseTensorProto, constant: Any = None) -> Path:
    """x w, normalised."""
    parts = [numpy_helper.from_array(np.full(4, v, np.float32), f"p{v}") for v in (1, 2, 3, 4)]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", *(p.name for p in parts)], ["y"]),
    ]
    if constant is not None:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=constant))
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], parts, sparse_initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "sparse.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_a_sparse_weight_is_a_weight(tmp_path: Path, flat: bool, place: str) -> None:
    tensor = sparse(flat=flat)
    path = saved(tmp_path, tensor) if place == "initializer" else saved(tmp_path, constant=tensor)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    loaded = load(path)
    folded = fold_graph(normalize(loaded.model)).model
    assert batchnorms(folded) == 0
    for model in (loaded.model, folded):
        np.testing.assert_allclose(ort_run(model, {"x": x})[0], expected, rtol=1e-5)


def test_a_sparse_weight_of_a_body(tmp_path: Path) -> None:
    bodies = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [name])],
            "body",
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])],
            sparse_initializer=[sparse()],
        )
        for name in ("b1", "b2")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy"]
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph([node], "g", [io[0], condition], io[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "body.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.eye(4, dtype=np.float32)
    (found,) = ort_run(load(path).model, {"x": x, "c": np.array(True)})
    np.testing.assert_array_equal(found, WEIGHT)


@pytest.mark.parametrize("dims", [(4, 2**40), (2**20, 2**20), (2**14, 2**13)])
def test_a_size_that_only_the_file_claims(tmp_path: Path, dims: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="too large to be made dense"):
        load(saved(tmp_path, sparse(dims=dims)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"indices": [0, 1, 2, 3, 16]},
        {"indices": [-1, 1, 2, 3, 4]},
        {"indices": [0, 1, 2, 3]},
        {"indices": [0, 1, 2, 3, 3]},
        {"indices": [[0, 0], [0, 1], [0, 2], [0, 3], [4, 0]]},
        {"indices": [[0], [1], [2], [3], [4]]},
        {"values": [[1.0, 2, 3, 4, 5]]},
        {"dims": (4, -4)},
    ],
)
def test_what_is_no_sparse_weight(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"not a sparse weight|too large"):
        load(saved(tmp_path, sparse(**wrong)))


def test_a_second_weight_of_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two weights are named 'p1'"):
        load(saved(tmp_path, sparse(), sparse("p1", [1.0], [0], (4,))))


def test_a_sparse_weight_in_another_file(tmp_path: Path) -> None:
    tensor = sparse()
    tensor.values.data_location = TensorProto.EXTERNAL
    with pytest.raises(UserError, match="sparse weight 'w' in another file"):
        load(saved(tmp_path, tensor))
