"""Writing a model: the same graph, the same bytes every time, whole files or none."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from converter.errors import UserError
from converter.files import atomic, onnx_file
from converter.files.onnx_file import (
    encode,
    encoded_size,
    parameter_count,
    weight_bytes,
    write_onnx,
)
from patterns.graphs import Graph, feeds

TENSORS = {
    "float64": np.linspace(0, 1, 6).reshape(2, 3),
    "float16": np.linspace(0, 1, 6, dtype=np.float16),
    "bfloat16": np.linspace(0, 1, 6).astype(ml_dtypes.bfloat16),
    "float8": np.linspace(0, 1, 6).astype(ml_dtypes.float8_e4m3fn),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "uint64": np.array([2**63 + 1], dtype=np.uint64),
    "bool": np.array([True, False, True]),
    "int4": np.arange(-3, 4).astype(ml_dtypes.int4),
    "uint4": np.arange(7).astype(ml_dtypes.uint4),
    "scalar": np.array(3.5, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "strided": np.arange(12, dtype=np.float32).reshape(3, 4).T,
}


def small(seed: int = 0) -> Graph:
    """Two weights of 4 KB and one of 12 bytes, one of the large ones inside a body."""
    g = Graph("float32", seed=seed)
    y = g.op("MatMul", g.input("x", "N", 32), g.weight(32, 32, name="outer"))
    a, b = g.body(), g.body()
    inner = a.weight(32, 32, name="inner")
    a.output(a.op("MatMul", y, inner), shape=["N", 32])
    b.output(b.op("Neg", y), shape=["N", 32])
    c = g.input("c", dtype="bool")
    y = g.op("If", c, then_branch=a.graph(), else_branch=b.graph())
    g.output(g.op("Add", y, g.const(np.ones(1))), shape=["N", 32])
    return g


def with_tensors() -> ir.Model:
    g = small()
    model = g.model()
    for name, array in TENSORS.items():
        _attach(model, ir.tensor(array, name=name))
    _attach(model, ir.StringTensor([b"one", b"zwei"], shape=ir.Shape([2]), name="string"))
    return model


def _attach(model: ir.Model, tensor: ir.TensorProtocol) -> None:
    value = ir.Value(name=tensor.name, shape=tensor.shape, const_value=tensor)  # type: ignore[arg-type]
    value.type = ir.TensorType(tensor.dtype)
    model.graph.register_initializer(value)


def test_the_same_graph(tmp_path: Path) -> None:
    model = with_tensors()
    model.metadata_props["key"] = "value"
    assert write_onnx(model, tmp_path / "m.onnx") == [tmp_path / "m.onnx"]
    found = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(found, full_check=True)
    again = ir.from_proto(found)
    for name, array in TENSORS.items():
        tensor = again.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(np.asarray(tensor.numpy()), array)
        assert tensor.numpy().dtype == array.dtype
    (string,) = (t for t in found.graph.initializer if t.name == "string")
    assert list(string.string_data) == [b"one", b"zwei"]
    expected = ir.to_proto(model)
    names = {tensor.name for tensor in expected.graph.initializer}
    assert {tensor.name for tensor in found.graph.initializer} == names
    for proto in (expected, found):
        del proto.graph.initializer[:]
    kept = [info for info in expected.graph.value_info if info.name not in names]
    expected.graph.ClearField("value_info")
    expected.graph.value_info.extend(kept)
    assert found == expected


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_onnx(with_tensors(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_model_is_not_changed() -> None:
    model = with_tensors()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    list(encode(model))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_functions_are_written(tmp_path: Path) -> None:
    source = """
        <ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        net (float[N] x) => (float[N] y) { y = own.twice (x) }
        <domain: "own", opset_import: ["" : 20]>
        twice (a) => (b) { b = Add (a, a) }
        """
    proto = onnx.parser.parse_model(source)
    write_onnx(ir.from_proto(proto), tmp_path / "m.onnx")
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones(2, np.float32)})[0].tolist() == [2.0, 2.0]


def test_counting() -> None:
    model = small().model()
    assert parameter_count(model) == 2 * 1024 + 1
    assert weight_bytes(model) == 4 * parameter_count(model)
    content = b"".join(bytes(part) for part in encode(with_tensors()))
    assert len(content) == encoded_size(with_tensors())
    assert len(content) > weight_bytes(with_tensors()) > weight_bytes(model)


@pytest.fixture
def external(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 1 KB were more than a protobuf message can hold."""
    monkeypatch.setattr(onnx_file, "LARGEST_MESSAGE", 1024)


def data_of(path: Path) -> Path:
    """The file beside a model that holds its weights, named for its content."""
    (data,) = path.parent.glob(f"{path.name}.*.data")
    assert data.name.split(".")[-2] == hashlib.sha256(data.read_bytes()).hexdigest()[:16]
    return data


@pytest.mark.usefixtures("external")
def test_large_weights_lie_beside_the_model(tmp_path: Path) -> None:
    model = small().model()
    given = feeds(model) | {"c": np.array(True)}
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, given)[0]
    files = write_onnx(model, tmp_path / "m.onnx")
    assert files == [tmp_path / "m.onnx", data_of(tmp_path / "m.onnx")]
    assert set(tmp_path.iterdir()) == set(files)
    assert b".part" not in files[0].read_bytes(), "the name of a temporary file"
    onnx.checker.check_model(files[0])
    session = ort.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, given)[0], expected)


@pytest.mark.usefixtures("external")
def test_large_weights_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files = write_onnx(small().model(), tmp_path / name / "m")
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]


@pytest.mark.usefixtures("external")
def test_writing_large_weights_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = small().model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    write_onnx(model, tmp_path / "m.onnx")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.usefixtures("external")
def test_the_weights_are_there_before_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_onnx(small().model(), tmp_path / "m.onnx")
    assert order == [data_of(tmp_path / "m.onnx").name, "m.onnx"]


KILLED = """
import os, sys
from pathlib import Path
from converter.files import onnx_file
from converter.sources import load
onnx_file.LARGEST_MESSAGE = 1024
source, target, calls = Path(sys.argv[1]), Path(sys.argv[2]), []
real = getattr(Path, sys.argv[3])
def killed(*arguments, **keywords):
    calls.append(1)
    if len(calls) == int(sys.argv[4]):
        os._exit(9)
    return real(*arguments, **keywords)
setattr(Path, sys.argv[3], killed)
onnx_file.write_onnx(load(source).model, target)
"""


def answer(path: Path) -> list[float]:
    """What the model at `path` gives for ones, in onnxruntime."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {"x": np.ones((1, 32), np.float32), "c": np.array(True)}
    return session.run(None, given)[0].ravel().tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("method", "call", "replaced", "left"),
    [
        ("replace", 1, False, 3),  # the weights are not at their place yet: a .part of them
        ("replace", 2, False, 4),  # both are written, the model is not at its place yet
        ("unlink", 3, True, 3),  # the old weights are not removed yet
    ],
)
def test_a_killed_writer_leaves_a_whole_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    call: int,
    replaced: bool,
    left: int,
) -> None:
    """No handler runs when a process is killed: what lies there must do as it is."""
    other = tmp_path / "source" / "other.onnx"
    other.parent.mkdir()
    write_onnx(small(seed=1).model(), other)
    path = tmp_path / "target" / "m.onnx"
    path.parent.mkdir()
    monkeypatch.setattr(onnx_file, "LARGEST_MESSAGE", 1024)
    write_onnx(small().model(), path)
    was, will_be = answer(path), answer(other)
    assert was != will_be
    code = [sys.executable, "-c", KILLED, str(other), str(path), method, str(call)]
    assert subprocess.run(code, check=False, capture_output=True).returncode == 9
    assert answer(path) == (will_be if replaced else was)
    assert len(list(path.parent.iterdir())) == left
    write_onnx(small(seed=1).model(), path)
    assert answer(path) == will_be
    day_later(path.parent)
    write_onnx(small(seed=1).model(), path)
    assert not list(path.parent.glob("*.part"))
    assert answer(path) == will_be


def day_later(folder: Path) -> None:
    for file in folder.iterdir():
        os.utime(file, (0, time.time() - 25 * 3600))


@pytest.mark.usefixtures("external")
def test_weights_that_nothing_reads_any_more_go(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for seed in (0, 1):
        write_onnx(small(seed=seed).model(), path)
    assert set(tmp_path.iterdir()) == {path, data_of(path)}


@pytest.mark.usefixtures("external")
def test_weights_that_a_copy_of_the_model_reads_stay(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(small().model(), path)
    was, before = answer(path), set(tmp_path.iterdir())
    (tmp_path / "copy.onnx").write_bytes(path.read_bytes())
    write_onnx(small(seed=1).model(), path)
    assert before <= set(tmp_path.iterdir())
    assert answer(tmp_path / "copy.onnx") == was != answer(path)


@pytest.mark.parametrize("name", ["m.onnx.data", "weights.bin", "m.onnx.0123456789abcdef.dat"])
def test_weights_of_others_stay(tmp_path: Path, name: str) -> None:
    model = small().model()
    path = tmp_path / "m.onnx"
    ir.save(model, path, external_data=name, size_threshold_bytes=1024)
    write_onnx(model, path)
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", name}


def test_only_old_leftovers_of_ours_go(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    names = [".m.onnx.abcd1234.part", ".other.onnx.abcd1234.part", "m.onnx.part", ".m.onnx.a.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    write_onnx(small().model(), path)
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", *names}
    day_later(tmp_path)
    write_onnx(small().model(), path)
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", *names[1:]}


class CrashError(Exception):
    pass


def crash(*_: object, **__: object) -> None:
    raise CrashError


def test_a_crash_while_encoding_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second weight cannot be read: the first is already in the file."""
    real, calls = onnx_file._raw, []

    def second(tensor: ir.TensorProtocol) -> memoryview:
        calls.append(tensor)
        return real(tensor) if len(calls) == 1 else crash()  # type: ignore[return-value]

    monkeypatch.setattr(onnx_file, "_raw", second)
    with pytest.raises(CrashError):
        write_onnx(small().model(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_a_crash_anywhere_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, large: bool
) -> None:
    if large:
        monkeypatch.setattr(onnx_file, "LARGEST_MESSAGE", 1024)
    path = tmp_path / "m.onnx"
    write_onnx(small().model(), path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = small()
    other.output(other.op("Neg", "x"), shape=["N", 32])
    monkeypatch.setattr(where, crash)
    with pytest.raises(CrashError):
        write_onnx(other.model(), path)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_was_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    write_onnx(small().model(), path)
    onnx.checker.check_model(path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_others_may_read_it(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_onnx(small().model(), tmp_path / "m.onnx")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "m.onnx").stat().st_mode) == 0o644


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("place", ["missing/m.onnx", "file/m.onnx", "folder"])
def test_places_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, large: bool
) -> None:
    if large:
        monkeypatch.setattr(onnx_file, "LARGEST_MESSAGE", 1024)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write") as error:
        write_onnx(small().model(), tmp_path / place)
    assert "--output" in error.value.hint
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["file", "folder", "inside"]


def test_write_bytes_is_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    atomic.write_bytes(path, b"first")
    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(CrashError):
        atomic.write_bytes(path, b"second")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("report.json", b"first")]
