"""Files named inside model.onnx: found wherever they hide, refused wherever they lead."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from repository import linear

from service.models.external import Unreadable, check, locations


def external(location: str, name: str = "W") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(tensor: TensorProto, where: str = "initializer") -> onnx.ModelProto:
    """A model with the tensor in one of the places that a tensor can be in."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])
    inner = helper.make_graph([], "inner", [], [], [tensor])
    deep = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=inner)], "d", [], [])
    sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
    nodes = {
        "constant": helper.make_node("Constant", [], ["c"], value=tensor),
        "subgraph": helper.make_node("If", ["c"], [], then_branch=inner),
        "deep": helper.make_node("Loop", [], [], body=deep),
        "tensors": helper.make_node("Foo", [], [], values=[tensor, tensor]),
        "graphs": helper.make_node("Foo", [], [], values=[inner]),
        "sparse": helper.make_node("Constant", [], ["c"], sparse_value=sparse),
    }
    graph = helper.make_graph([nodes[where]] if where in nodes else [], "g", [x], [x])
    made = helper.make_model(graph)
    if where == "initializer":
        made.graph.initializer.append(tensor)
    if where == "sparse initializer":
        made.graph.sparse_initializer.append(sparse)
    if where == "function":
        made.functions.add(name="f").node.append(nodes["constant"])
    if where == "training":
        made.training_info.add().algorithm.CopyFrom(inner)
    return made


PLACES = [
    "initializer", "constant", "subgraph", "deep", "tensors", "graphs", "sparse",
    "sparse initializer", "function", "training",
]  # fmt: skip


def write(folder: Path, made: onnx.ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


@pytest.mark.parametrize("where", PLACES)
def test_a_location_is_found_wherever_it_hides(tmp_path: Path, where: str):
    assert locations(write(tmp_path, model(external("w.bin"), where))) == {"w.bin"}


def test_a_model_without_external_data_has_none(tmp_path: Path):
    path = write(tmp_path, linear())
    assert locations(path) == set()
    check(path)


def test_the_word_alone_is_no_location(tmp_path: Path):
    made = linear()
    made.metadata_props.add(key="location", value="/etc/passwd")
    made.graph.node[0].name = "location"
    assert locations(write(tmp_path, made)) == set()


def test_weights_beside_the_model_are_fine(tmp_path: Path):
    (tmp_path / "w.bin").write_bytes(b"x" * 16)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "w.bin").write_bytes(b"x" * 16)
    (tmp_path / "link.bin").symlink_to("w.bin")
    for location in ("w.bin", "./w.bin", "in/w.bin", "link.bin"):
        check(write(tmp_path, model(external(location))))


@pytest.mark.parametrize(
    "location",
    [
        "../w.bin", "/etc/passwd", "in/../../w.bin", "..", ".", "", "out.bin", "gone.bin",
        "..\\w.bin", "C:\\w.bin", "file:///etc/passwd", "w\0.bin", "a" * 5000, "in", "pipe",
        "folder_out/w.bin",
    ],
)  # fmt: skip
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str):
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "in").mkdir()
    (tmp_path / "w.bin").write_bytes(b"x" * 16)
    (folder / "out.bin").symlink_to(tmp_path / "w.bin")
    (folder / "folder_out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    with pytest.raises(Unreadable) as caught:
        check(write(folder, model(external(location))))
    assert str(tmp_path) not in str(caught.value)
    assert "passwd" not in str(caught.value)


def test_the_second_of_two_locations_counts_too(tmp_path: Path):
    (tmp_path / "w.bin").write_bytes(b"x" * 16)
    tensor = external("w.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(Unreadable, match="outside"):
        check(write(tmp_path, model(tensor)))


def test_damage_is_a_sentence(tmp_path: Path):
    whole = model(external("w.bin")).SerializeToString()
    for content in (
        b"", b"\xff" * 40, b"\x0b", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3a\x7f", whole[:-1], b"\x3a\x80",
    ):  # fmt: skip
        with pytest.raises(Unreadable):
            locations(write(tmp_path, content))


def test_a_graph_in_a_graph_in_a_graph(tmp_path: Path):
    content = b""
    for _ in range(5000):
        # attribute.g = graph, node.attribute = that, graph.node = that
        for key in (0x32, 0x2A, 0x0A):
            content = bytes([key]) + _length(len(content)) + content
    with pytest.raises(Unreadable, match="nested"):
        locations(write(tmp_path, b"\x3a" + _length(len(content)) + content))


def _length(size: int) -> bytes:
    out = b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size])


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_make_it_fail_otherwise(tmp_path_factory, junk: bytes, at: int, byte: int):
    folder = tmp_path_factory.mktemp("x")
    whole = bytearray(model(external("w.bin"), "deep").SerializeToString())
    whole[at % len(whole)] = byte
    for content in (junk, bytes(whole), bytes(whole) + junk):
        with contextlib.suppress(Unreadable):
            locations(write(folder, content))


def test_large_weights_are_stepped_over(tmp_path: Path):
    tensor = onnx.numpy_helper.from_array(np.frombuffer(b"\x6a\x10location" * 100_000, np.uint8))
    assert locations(write(tmp_path, model(tensor))) == set()
