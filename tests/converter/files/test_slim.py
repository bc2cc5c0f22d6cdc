"""Weights that stay in their file: the same graph, less memory, and lies about sizes refused."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter import load
from converter.errors import UserError
from converter.files import slim
from converter.files.on_disk import LARGE, OpenFile, tensor_in
from patterns.graphs import Graph, assert_equal, fold

DTYPES = [
    np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    np.int8, np.int64, np.uint16, np.bool_, np.complex64,
]  # fmt: skip


def model(*tensors: TensorProto) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y], [*tensors])
    return helper.make_model(graph, ir_version=10)


def save(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def large(name: str = "w", dtype: Any = np.float32, seed: int = 0) -> TensorProto:
    count = LARGE // np.dtype(dtype).itemsize + 3
    array = np.random.default_rng(seed).integers(0, 2, (count, 1)).astype(dtype)
    proto = TensorProto(name=name, dims=array.shape, raw_data=array.tobytes())
    proto.data_type = int(ir.DataType.from_numpy(array.dtype))
    return proto


def constant(found: ir.Model, name: str = "w") -> ir.TensorProtocol:
    tensor = found.graph.initializers[name].const_value
    assert tensor is not None
    return tensor


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_weights_stay_in_the_file(tmp_path: Path, dtype: Any) -> None:
    proto = large(dtype=dtype)
    tensor = constant(slim.read(save(tmp_path, model(proto))))
    assert isinstance(tensor, ir.LazyTensor)
    assert tensor.dtype == ir.DataType.from_numpy(np.dtype(dtype))
    assert tensor.shape == ir.Shape(list(proto.dims))
    assert tensor.nbytes == len(proto.raw_data)
    for _ in range(2):
        assert tensor.numpy().dtype == dtype
        assert tensor.tobytes() == proto.raw_data


def test_the_graph_is_the_same(tmp_path: Path) -> None:
    """Several large weights between small ones, in every order, and fields on both sides."""
    rng = np.random.default_rng(0)
    small = [numpy_helper.from_array(rng.normal(size=3).astype("f"), f"s{i}") for i in range(3)]
    strings = helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"b"])
    proto = model(large("a"), small[0], large("b", seed=1), large("c", seed=2), *small[1:], strings)
    proto.graph.doc_string, proto.doc_string = "inner", "outer"
    proto.graph.initializer[0].doc_string = "of a weight"
    found = slim.read(save(tmp_path, proto))
    expected = ir.from_proto(proto)
    assert list(found.graph.initializers) == list(expected.graph.initializers)
    for name in expected.graph.initializers:
        np.testing.assert_array_equal(constant(found, name), constant(expected, name))
    for each in (found, expected):
        for value in each.graph.initializers.values():
            value.const_value = None
        each.graph.initializers.clear()
    assert ir.to_proto(found) == ir.to_proto(expected)


def test_weights_in_other_fields_are_read_as_before(tmp_path: Path) -> None:
    numbers = np.arange(LARGE // 4, dtype=np.float32)
    proto = helper.make_tensor("w", TensorProto.FLOAT, numbers.shape, numbers)
    assert not proto.HasField("raw_data")
    np.testing.assert_array_equal(constant(slim.read(save(tmp_path, model(proto)))), numbers)


def test_two_weights_of_one_name(tmp_path: Path) -> None:
    """Readers differ in which of them they take."""
    path = save(tmp_path, model(large(), large(seed=1)))
    with pytest.raises(UserError, match="two weights are named 'w'"):
        load(path)


def test_a_file_that_is_replaced_is_no_matter(tmp_path: Path) -> None:
    proto = large()
    path = save(tmp_path, model(proto))
    tensor = constant(slim.read(path))
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "other").replace(path)
    assert tensor.tobytes() == proto.raw_data


@pytest.mark.parametrize("how", ["cut", "written"])
def test_a_file_that_changes_is_told(tmp_path: Path, how: str) -> None:
    path = save(tmp_path, model(large()))
    tensor = constant(slim.read(path))
    if how == "cut":
        os.truncate(path, 1000)
    else:
        with path.open("r+b") as file:
            file.write(b"\x08")
        os.utime(path, (0, 0))
    with pytest.raises(UserError, match="was changed while it was being read"):
        tensor.numpy()


def test_files_are_closed(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no list of open files here")
    path = save(tmp_path, model(large()))
    gc.collect()  # what other tests left open
    before = len(list(folder.iterdir()))
    found = slim.read(path)
    assert len(list(folder.iterdir())) == before + 1
    del found
    gc.collect()
    assert len(list(folder.iterdir())) == before


def test_reading_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One read of the system gives at most 2 GB, and may give less."""
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: real(fd, [into[0][:1000]], at))
    (tmp_path / "w").write_bytes(content := np.random.default_rng(0).bytes(4096 + 8))
    tensor = tensor_in(OpenFile(tmp_path / "w"), 8, ir.DataType.FLOAT, ir.Shape([512, 2]), "w")
    assert tensor.tobytes() == content[8:]


def test_the_other_byte_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    (tmp_path / "w").write_bytes(b"\x00\x01")
    tensor = tensor_in(OpenFile(tmp_path / "w"), 0, ir.DataType.INT16, ir.Shape([1]), "w")
    assert np.asarray(tensor.numpy())[0] == 1


# --- sizes that are only claimed ----------------------------------------------------------


def claimed(field: str, value: Any, dims: list[int], dtype: int = TensorProto.FLOAT) -> TensorProto:
    proto = TensorProto(name="w", data_type=dtype, dims=dims)
    if field == "raw_data":
        proto.raw_data = value
    else:
        getattr(proto, field).extend(value)
    return proto


BOMBS = [
    ("raw_data", b"", [10**12]),
    ("raw_data", b"", [10**12, 10**12, 10**12]),
    ("raw_data", bytes(16), [2, 10**12]),
    ("raw_data", bytes(LARGE), [10**12]),
    ("raw_data", bytes(LARGE), [LARGE]),
    ("raw_data", bytes(LARGE), [LARGE // 4, -1]),
    ("raw_data", bytes(LARGE), [-1, -LARGE // 4]),
    ("raw_data", bytes(8), [1]),
    ("float_data", [1.0], [10**12]),
    ("float_data", [], [10**12]),
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: f"{bomb[0]}-{len(bomb[1])}-{bomb[2]}")
@pytest.mark.parametrize("where", ["weight", "constant", "body"])
def test_a_tensor_that_claims_more_than_it_has(tmp_path: Path, bomb: Any, where: str) -> None:
    tensor = claimed(*bomb)
    proto = model(*([tensor] if where == "weight" else []))
    if where == "constant":
        proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    if where == "body":
        out = helper.make_tensor_value_info("w", TensorProto.FLOAT, None)
        body = helper.make_graph([], "body", [], [out], [tensor])
        node = helper.make_node("If", ["x"], ["z"], then_branch=body, else_branch=body)
        proto.graph.node.append(node)
    with pytest.raises(UserError, match=r"weight 'w' of shape .* has \d+ bytes or numbers, not"):
        load(save(tmp_path, proto))


@pytest.mark.parametrize(
    ("dtype", "dims", "field", "value"),
    [
        (TensorProto.INT4, [3], "int32_data", [0x21, 0x03]),
        (TensorProto.INT4, [3], "raw_data", b"\x21\x03"),
        (TensorProto.FLOAT16, [2], "int32_data", [0, 15360]),
        (TensorProto.COMPLEX64, [1], "float_data", [1.0, 2.0]),
        (TensorProto.UINT64, [1], "uint64_data", [7]),
        (TensorProto.FLOAT, [0, 3], "raw_data", b""),
        (TensorProto.FLOAT, [], "float_data", [1.0]),
        (TensorProto.STRING, [1], "string_data", [b"x"]),
    ],
)
def test_every_way_to_store_numbers_is_counted_right(
    tmp_path: Path, dtype: int, dims: list[int], field: str, value: Any
) -> None:
    assert slim.read(save(tmp_path, model(claimed(field, value, dims, dtype)))).graph.initializers


def external(folder: Path, dims: list[int], **entries: str) -> Path:
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", **entries}.items():
        entry = proto.external_data.add()
        entry.key, entry.value = key, value
    (folder / "weights.bin").write_bytes(bytes(64))
    return save(folder, model(proto))


@pytest.mark.parametrize(
    ("dims", "entries", "says"),
    [
        ([10**12], {}, "end before 'w'"),
        ([10**12], {"length": "64"}, r"has 64 bytes in 'weights\.bin', not 4000000000000"),
        ([16], {"length": "32"}, "has 32 bytes"),
        ([16], {"offset": "1"}, "end before 'w'"),
        ([-16], {}, "end before 'w'"),
        ([-4, -4], {"length": "64"}, "end before 'w'"),
    ],
)
def test_weights_beside_that_are_not_as_large_as_claimed(
    tmp_path: Path, dims: list[int], entries: dict[str, str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        load(external(tmp_path, dims, **entries))


def test_weights_beside_without_a_length_are_those_of_the_shape(tmp_path: Path) -> None:
    assert constant(load(external(tmp_path, [16])).model).numpy().shape == (16,)


def test_weights_with_a_second_name_are_refused(tmp_path: Path) -> None:
    """A hard link looks like a file of the folder, whatever it is a link to."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, [16])
    os.link(folder / "weights.bin", tmp_path / "secret")
    with pytest.raises(UserError, match="hard link"):
        load(path)


def test_a_pipe_is_no_file_of_weights(tmp_path: Path) -> None:
    path = external(tmp_path, [16])
    (tmp_path / "weights.bin").unlink()
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(UserError, match="which is not there"):
        load(path)


def test_a_model_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, model(large(), large("v", seed=1)))
    whole = path.read_bytes()
    for length in np.linspace(1, len(whole) - 1, 50, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load(path)


def test_folding_reads_from_the_disk(tmp_path: Path) -> None:
    g = Graph("float32", seed=3)
    y = g.op("Conv", g.input("x", "N", 64, 4, 4), g.weight(64, 64, 3, 3, name="w"))
    g.output(g.bn(y, 64))
    path = save(tmp_path, g.proto())
    found = load(path).model
    assert isinstance(constant(found), ir.LazyTensor)
    after = fold(found).model
    assert len(after.graph.initializers) == 2
    assert_equal(g.model(), after, rtol=1e-5)
