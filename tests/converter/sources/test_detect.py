"""A file is told by its content; every kind that is not read gets a sentence that helps."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from converter.errors import UserError
from converter.sources import load
from converter.sources.detect import format_of
from converter.system.quiet import torch_quiet


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"), io.BytesIO())
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def onnx_bytes() -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph).SerializeToString()


def torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(64, 64)}, buffer)
    return buffer.getvalue()


REFUSED = {
    "empty": (b"", "an empty file", "again"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a git-lfs pointer",
        "git lfs pull",
    ),
    "html": (b"\n <!DOCTYPE html><html><body>404</body></html>", "a web page", "download link"),
    "html-bom": (b"\xef\xbb\xbf<HTML lang='en'>", "a web page", "download link"),
    "keras": (zip_of("metadata.json", "config.json", "model.weights.h5"), "broken JSON", "again"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "damaged HDF5", "again"),
    "mar": (zip_of("MAR-INF/MANIFEST.json", "model.pt"), "a TorchServe archive", "unpack"),
    "aoti": (zip_of("m/archive_format", "m/data/aotinductor/model/a.so"), "AOTInductor", "save"),
    "old-pt2": (zip_of("version", "serialized_exported_program.json"), "older torch", "again"),
    "zip": (zip_of("readme.txt"), "a zip archive", "unpack"),
    "zip-cut": (torch_bytes()[:900], "a zip archive that was cut off", "again"),
    "gzip": (gzip.compress(b"model"), "a compressed file", "unpack"),
    "tar": (tar_bytes(), "a tar archive", "unpack"),
    "npy": (npy_bytes(), "an .npy array", "model"),
    "pickle": (b"\x80\x04\x95\x00\x00", "a plain pickle", "state_dict"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(32), "a TensorFlow Lite model", "convert"),
    "ort": (b"\x1c\x00\x00\x00ORTM" + bytes(32), "an onnxruntime .ort model", ".onnx"),
    "onnx-cut": (onnx_bytes()[:-4], "an ONNX model that was cut off", "again"),
    "random": (random.Random(1).randbytes(4096), "not a model file", "readable are"),
    "text": (b"hello, this is a note\n", "not a model file", "readable are"),
    "zeros": (bytes(4096), "not a model file", "readable are"),
    "two-bytes": (b"\x08\x07", "not a model file", "readable are"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("extension", [".pt", ".onnx"])
def test_refused_with_a_sentence_and_a_hint(tmp_path: Path, name: str, extension: str) -> None:
    content, sentence, hint = REFUSED[name]
    path = tmp_path / f"model{extension}"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load(path)
    assert sentence in raised.value.message
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert hint in raised.value.hint


def write_torch(path: Path) -> None:
    path.write_bytes(torch_bytes())


def write_legacy(path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def write_script(path: Path) -> None:
    with torch_quiet():
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


def write_exported(path: Path) -> None:
    with torch_quiet(), path.open("wb") as file:
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), file)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("write", "loader"),
    [
        (write_torch, "torch_"),
        (write_legacy, "torch_"),
        (write_script, "torchscript"),
        (write_exported, "exported"),
        (lambda path: save_file({"w": torch.zeros(2)}, path), "safetensors_"),
        (lambda path: path.write_bytes(onnx_bytes()), "onnx_"),
        (write_npz, "numpy_"),
    ],
)
@pytest.mark.parametrize("extension", [".bin", ".onnx", ".h5", ""])
def test_the_extension_is_never_asked(tmp_path: Path, write, loader: str, extension: str) -> None:
    path = tmp_path / f"model{extension}"
    write(path)
    assert format_of(path).loader == loader


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"it holds model\.safetensors"):
        load(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(UserError, match="TensorFlow SavedModel"):
        load(tmp_path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load(tmp_path / "nothing.pt")


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    path.touch()

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        load(path)


def test_every_truncation_of_an_onnx_file_is_a_user_error(tmp_path: Path) -> None:
    content = onnx_bytes()
    path = tmp_path / "model.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            load(path)


def test_a_model_that_only_looks_like_onnx_is_a_user_error(tmp_path: Path) -> None:
    content = bytearray(onnx_bytes())
    graph = onnx.load_from_string(bytes(content)).graph.SerializeToString()
    at = bytes(content).index(graph)
    content[at : at + len(graph)] = b"\xff" * len(graph)
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged ONNX"):
        load(path)


def test_loading_onnx_does_not_import_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes())
    code = (
        "import sys; from converter.sources import load; "
        f"load({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["net/data.pkl", "net/data/0", "config.json", "anything"])
def test_an_archive_that_unpacks_to_many_times_its_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/version", "3")
        with archive.open(name, "w") as entry:
            for _ in range(80):
                entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="unpacks to many times its size") as error:
        format_of(path)
    assert "attack" in error.value.hint


def test_a_compressed_archive_is_fine(tmp_path: Path) -> None:
    """As some tools pack: small, or hardly compressed."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", bytes(1 << 20))
    assert format_of(path).loader == "torch_"
