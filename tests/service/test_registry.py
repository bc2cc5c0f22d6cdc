"""What of a repository is served, what is not, and the reason for it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import repository
from onnx import TensorProto, helper
from repository import bare, elementwise, linear, pair, publish, seal

from service import device, errors
from service.models import model
from service.models.bundle import Rejected
from service.models.folders import scan
from service.models.registry import Registry

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
CPU = device.choose("cpu")
LOADER = partial(model.load, choice=CPU, threads=1, capacity_samples=8)


@pytest.fixture
def load(tmp_path: Path) -> Iterator:
    made: list[Registry] = []

    def make(default_model: str | None = None) -> Registry:
        registry = Registry(tmp_path, LOADER, default_model)
        made.append(registry)
        registry.load()
        return registry

    yield make
    for registry in made:
        assert registry.close(timeout_s=30)


def reason(registry: Registry, name: str = "m", version: int = 1) -> str:
    return registry.entries[name].rejected[version]


def keep_weights_in(folder: Path, file: str) -> None:
    """Move the weights of a version into a file beside its model."""
    proto = onnx.load(folder / "model.onnx")
    onnx.save_model(
        proto, folder / "model.onnx", save_as_external_data=True, location=file, size_threshold=0
    )


def test_a_good_version_serves_what_onnxruntime_says(tmp_path: Path, load):
    publish(tmp_path, "m", linear(), test={"x": X})
    served = load().find("m")
    assert (served.name, served.version, served.provider) == ("m", 1, "CPUExecutionProvider")
    assert served.self_test_errors is not None
    assert served.self_test_errors["scores"] < 1e-5
    assert served.warm_up_ms is not None
    got = repository.answer(served, {"x": X})
    np.testing.assert_allclose(
        got["scores"], repository.reference(linear(), {"x": X})["scores"], rtol=1e-5
    )


def test_the_latest_good_version_wins(tmp_path: Path, load):
    for version in (1, 2, 9, 10):  # 10 > 9 as a number, not as text
        publish(tmp_path, "m", linear(seed=version), version)
    publish(tmp_path, "m", linear(), 11, test={"x": X}, off_by=1.0)
    registry = load()
    entry = registry.entries["m"]
    assert registry.find("m").version == 10
    assert list(entry.rejected) == [11]
    assert entry.older == [9, 2, 1]
    assert registry.find("m", "10").version == 10
    for version in ("11", "9", "1", "010", "x", ""):
        with pytest.raises(errors.UnknownVersion):
            registry.find("m", version)
    with pytest.raises(errors.UnknownVersion, match="self-test failed"):
        registry.find("m", "11")


ODD = (".git", ".publish-abcd1234", ".fetch-abcd1234", "__pycache__", "m~", "a b", "ü", "_x", "-x")


def test_stray_things_are_left_alone(tmp_path: Path, load, caplog: pytest.LogCaptureFixture):
    publish(tmp_path, "m", linear())
    for name in (*ODD, "n" * 129):
        publish(tmp_path, name, linear())
    inside = (".2", "tmp3", "4.tmp", "v5", "0", "-6", "07", "8x", "٣", "1" * 19)
    for name in inside:
        (tmp_path / "m" / name).mkdir()
    (tmp_path / "m" / "9").write_text("a file, not a folder")
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with caplog.at_level("INFO", "foldserve.registry"):
        found = list(scan(tmp_path))
    assert found == [("m", {1: tmp_path / "m" / "1"})]
    for name in (*ODD, *(f"m/{each}" for each in inside)):
        (said,) = [r for r in caplog.records if f"folder {name!r} is ignored: " in r.getMessage()]
        assert ("it is hidden" in said.getMessage()) == name.rpartition("/")[2].startswith(".")
        assert said.levelname == ("WARNING" if name in ODD and name[0] != "." else "INFO")
    registry = load()
    assert list(registry.entries) == ["m"]
    assert registry.entries["m"].rejected == {}


@pytest.mark.parametrize(
    "name",
    ["temperature", "tmpnet", "temp_forecast", "tmp-speech", "tmp", "temp.x", "model.bak", "x.swp",
     "resnet.part", "up.tmp", "a.partial", "a..b", "1", "n" * 128],
)  # fmt: skip
def test_every_name_that_a_model_can_have_is_served(tmp_path: Path, load, name: str):
    """Whoever may be published may not be taken for something left over."""
    publish(tmp_path, name, linear(), test={"x": X})
    assert load().find(name).name == name


def test_a_copy_under_another_name_is_told_apart(tmp_path: Path, load):
    publish(tmp_path, "m", linear(), test={"x": X})
    shutil.copytree(tmp_path / "m", tmp_path / "m.bak")
    registry = load("m")
    assert "lies in the folder of 'm.bak'" in reason(registry, "m.bak")
    assert registry.find(None).name == "m"


def test_a_changed_byte_is_noticed(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    data = bytearray((folder / "model.onnx").read_bytes())
    data[-20] ^= 1
    (folder / "model.onnx").write_bytes(data)
    assert "sha256 of model.onnx" in reason(load())


@pytest.mark.parametrize("digit", [0, 11, 12, 13, 31, 32, 62, 63])
def test_every_digit_of_a_hash_counts(tmp_path: Path, load, digit: int):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    manifest = json.loads((folder / "model.json").read_text())
    said = manifest["files"]["model.onnx"]["sha256"]
    other = "0" if said[digit] != "0" else "1"
    manifest["files"]["model.onnx"]["sha256"] = said[:digit] + other + said[digit + 1 :]
    (folder / "model.json").write_text(json.dumps(manifest))
    assert "sha256 of model.onnx" in reason(load())


def test_a_changed_size_is_noticed(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    with (folder / "selftest.npz").open("ab") as file:
        file.write(b"x")
    assert "selftest.npz has" in reason(load())


def test_a_missing_file_is_noticed(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    (folder / "selftest.npz").unlink()
    assert reason(load()) == "selftest.npz is missing or cannot be read"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "model.json is not valid"),
        ("{", "model.json is not valid"),
        ("[]", "model.json is not valid"),
        ("{}", "name: Field required"),
        (b"\xff\xfe", "model.json is not valid"),
    ],
)
def test_a_broken_manifest(tmp_path: Path, load, text: str | bytes, expected: str):
    folder = publish(tmp_path, "m", linear())
    (folder / "model.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert expected in reason(load())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "other"}, "says 'other' version 1, but lies in the folder of 'm' version 1"),
        ({"version": 2}, "says 'm' version 2"),
        ({"format": "foldserve.model/2"}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"files": {"../model.onnx": {"sha256": "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {}}, "files"),
        ({"inputs": []}, "inputs"),
        ({"classification": {"output": "nope", "labels": ["a"]}}, "is not an output"),
        ({"classification": {"output": "scores", "labels": ["a"]}}, "shape (batch, 1)"),
        (
            {"inputs": [{"name": "z", "dtype": "float32", "shape": ["batch", 4]}]},
            "disagree about the inputs",
        ),
        (
            {"inputs": [{"name": "x", "dtype": "float64", "shape": ["batch", 4]}]},
            "float64 (batch, 4) in model.json, but float32",
        ),
        (
            {"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 5]}]},
            "(batch, 5) in model.json",
        ),
        (
            {"inputs": [{"name": "x", "dtype": "float32", "shape": [4]}]},
            "float32 (4,) in model.json",
        ),
        (
            {"outputs": [{"name": "scores", "dtype": "int64", "shape": ["batch", 3]}]},
            "output 'scores' is int64",
        ),
        (
            {"inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4]}]},
            "no open batch axis",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, load, changes, expected: str):
    seal(bare(tmp_path, "m", linear()), **changes)
    assert expected in reason(load())


def test_a_name_with_a_path_in_it_never_opens_a_file(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear())
    manifest = json.loads((folder / "model.json").read_text())
    (tmp_path / "secret").write_text("secret")
    for name in ("../../secret", "/etc/hostname", "a/b", "..", "a\\b"):
        manifest["files"][name] = manifest["files"]["model.onnx"]
        (folder / "model.json").write_text(json.dumps(manifest))
        assert "not a plain file name" in reason(load())
        del manifest["files"][name]


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "selftest.npz"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, load, name: str):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    outside = tmp_path / f"outside-{name}"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    assert reason(load()) == f"{name} is a link out of the version folder"


def test_a_link_inside_the_folder_is_fine(tmp_path: Path, load):
    """Kubernetes mounts a volume as links into a hidden folder beside them."""
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    (folder / "..data").mkdir()
    for name in ("model.onnx", "model.json", "selftest.npz"):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(Path("..data") / name)
    assert load().find("m").version == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["model.onnx", "model.json", "selftest.npz"])
def test_a_pipe_does_not_block_the_start(tmp_path: Path, load, name: str):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert reason(load()) == f"{name} is not a regular file"


def test_weights_beside_the_model_must_be_listed(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear())
    keep_weights_in(folder, "model.onnx.data")
    seal(folder)
    assert load().find("m").version == 1
    manifest = json.loads((folder / "model.json").read_text())
    del manifest["files"]["model.onnx.data"]
    (folder / "model.json").write_text(json.dumps(manifest))
    assert "mentions 'model.onnx.data', which model.json does not list" in reason(load())


def test_other_files_beside_the_model_are_no_matter(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear())
    (folder / "README.md").write_text("how it was trained")
    (folder / "empty").touch()
    assert load().find("m").version == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "is empty"), (b"garbage", "is damaged"), (b"\x08\x09", "onnxruntime cannot load it")],
)
def test_a_broken_model_file(tmp_path: Path, load, content: bytes, expected: str):
    folder = publish(tmp_path, "m", linear())
    (folder / "model.onnx").write_bytes(content)
    (folder / "model.json").unlink()
    why = reason(load())
    assert expected in why
    assert str(tmp_path) not in why


def test_reasons_hold_no_path(tmp_path: Path, load):
    folder = publish(tmp_path, "m", linear())
    keep_weights_in(folder, "w.bin")
    (folder / "w.bin").unlink()
    (folder / "model.json").unlink()
    why = reason(load())
    assert why == "the weights 'w.bin' are missing"
    assert str(tmp_path) not in why


# --- the self-test ----------------------------------------------------------------------


@pytest.mark.parametrize("off_by", [1e-3, np.nan, np.inf])
def test_a_failed_self_test(tmp_path: Path, load, off_by: float):
    publish(tmp_path, "m", linear(), test={"x": X}, off_by=off_by)
    assert "off by" in reason(load()) or "proves nothing" in reason(load())


def test_a_difference_within_the_tolerance_is_fine_and_shown(tmp_path: Path, load):
    publish(tmp_path, "m", linear(), test={"x": X}, off_by=1e-3, atol=2e-3)
    assert load().find("m").self_test_errors["scores"] == pytest.approx(1e-3, rel=0.01)


def test_other_dtypes_must_be_equal(tmp_path: Path, load):
    folder = publish(tmp_path, "m", pair(), test={"a": X[:, :2], "b": X[:, :2]})
    assert load().find("m").self_test_errors["positive"] == 0
    arrays = dict(np.load(folder / "selftest.npz"))
    arrays["output:positive"] = ~arrays["output:positive"]
    np.savez(folder / "selftest.npz", **arrays)
    seal(folder, self_test={"atol": {"y": 1e-5}})
    assert reason(load()) == "self-test failed: output 'positive' differs"


def _edit(folder: Path, edit, atol=None) -> None:
    arrays = dict(np.load(folder / "selftest.npz"))
    edit(arrays)
    np.savez(folder / "selftest.npz", **arrays)
    seal(folder, self_test={"atol": {"scores": 1e-5} if atol is None else atol})


@pytest.mark.parametrize(
    ("edit", "atol", "expected"),
    [
        (lambda a: a.pop("input:x"), None, "does not suit the model"),
        (lambda a: a.pop("output:scores"), None, "do not name"),
        (lambda a: a.update({"output:nope": X}), None, "do not name"),
        (lambda a: a.update({"stray": X}), None, "neither"),
        (lambda a: a.update({"input:x": X.astype(np.float64)}), None, "float64"),
        (lambda a: a.update({"input:x": X[:, :2]}), None, "expected shape (batch, 4)"),
        (lambda a: a.update({"output:scores": a["output:scores"][:1]}), None, "has shape"),
        (lambda _: None, {}, "no tolerance"),
        (lambda _: None, {"nope": 1.0}, "do not name"),
    ],
)
def test_a_self_test_that_does_not_fit(tmp_path: Path, load, edit, atol, expected: str):
    _edit(publish(tmp_path, "m", linear(), test={"x": X}), edit, atol)
    assert expected in reason(load())


def test_a_pickle_in_the_self_test_is_never_opened(tmp_path: Path, load):
    class Boom:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    _edit(
        publish(tmp_path, "m", linear(), test={"x": X}),
        lambda a: a.update({"output:scores": np.array([Boom()], dtype=object)}),
    )
    assert reason(load()) == "selftest.npz cannot be read: ValueError"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_an_unreadable_self_test(tmp_path: Path, load, content: bytes):
    folder = publish(tmp_path, "m", linear(), test={"x": X})
    (folder / "selftest.npz").write_bytes(content)
    seal(folder, self_test={"atol": {"scores": 1e-5}})
    assert "selftest.npz" in reason(load())


def test_a_model_that_cannot_run_its_self_test(tmp_path: Path, load):
    indices = np.array([0, 1], np.int64)
    folder = publish(tmp_path, "m", repository.embedding(), test={"index": indices})
    arrays = dict(np.load(folder / "selftest.npz"))
    arrays["input:index"] = np.array([7, 1], np.int64)
    np.savez(folder / "selftest.npz", **arrays)
    seal(folder, self_test={"atol": {"row": 1e-5}})
    assert "failed" in reason(load())
    assert "Gather" in reason(load())


def test_a_rejected_version_leaves_no_thread_behind(tmp_path: Path, load):
    publish(tmp_path, "m", linear(), test={"x": X}, off_by=1.0)
    before = set(threading.enumerate())
    load()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert set(threading.enumerate()) <= before


# --- bare models ------------------------------------------------------------------------


def test_a_bare_model_is_served_with_what_its_graph_declares(tmp_path: Path, load):
    bare(tmp_path, "m", pair(), 3)
    served = load().find(None)
    assert (served.version, served.declared, served.self_test_errors) == (3, False, None)
    assert served.warm_up_ms is not None
    assert served.signature.batched
    shown = served.describe()
    assert shown["inputs"] == [
        {"name": "a", "dtype": "float32", "shape": ["batch", 2]},
        {"name": "b", "dtype": "float32", "shape": ["batch", 2]},
    ]
    assert [spec["dtype"] for spec in shown["outputs"]] == ["float32", "bool"]
    json.dumps(shown)


def test_a_bare_model_with_a_fixed_batch_and_one_with_unnamed_sizes(tmp_path: Path, load):
    bare(tmp_path, "fixed", linear(batch=20))
    open_sizes = elementwise("Neg", TensorProto.FLOAT)
    for value in (*open_sizes.graph.input, *open_sizes.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    bare(tmp_path, "open", open_sizes)
    registry = load()
    fixed = registry.find("fixed")
    assert not fixed.signature.batched
    fixed.batcher.check_room(20)  # more than the 8 of the settings: else it never could run
    assert registry.find("open").signature.inputs["x"].shape == ["batch", "x.1"]


def test_a_bare_model_that_no_guess_fits_is_served_cold(tmp_path: Path, load):
    """Elevens are made of none of the sizes tried for the warm-up."""
    reshape = repository.graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [repository.value("x", TensorProto.FLOAT, ["batch", "time"])],
        [repository.value("y", TensorProto.FLOAT, ["batch", 11])],
        {"s": np.array([-1, 11], np.int64)},
    )
    bare(tmp_path, "m", reshape)
    served = load().find("m")
    assert served.warm_up_ms is None
    assert served.example is None
    assert repository.answer(served, {"x": np.zeros((2, 11), np.float32)})["y"].shape == (2, 11)


def test_an_element_type_that_cannot_be_served(tmp_path: Path, load):
    bare(tmp_path, "m", elementwise("Identity", TensorProto.BFLOAT16))
    assert "which cannot be served" in reason(load())


def test_a_manifest_of_bfloat16_is_refused(tmp_path: Path, load):
    publish(tmp_path, "m", elementwise("Identity", TensorProto.BFLOAT16))
    assert "bfloat16" in reason(load())


def test_a_version_folder_without_a_model(tmp_path: Path, load):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    registry = load()
    assert reason(registry) == "model.onnx is missing or cannot be read"
    with pytest.raises(errors.ModelUnavailable, match="no version folder"):
        registry.find("none")


# --- finding ----------------------------------------------------------------------------


def test_the_default_model(tmp_path: Path, load):
    publish(tmp_path, "a", linear())
    assert load().find(None).name == "a"
    publish(tmp_path, "b", linear())
    with pytest.raises(errors.ModelNotChosen, match="'a', 'b'"):
        load().find(None)
    assert load("b").find(None).name == "b"
    with pytest.raises(errors.UnknownModel, match="'c'"):
        load("c").find(None)


def test_an_empty_repository(tmp_path: Path, load):
    with pytest.raises(errors.ModelUnavailable, match="no model"):
        load().find(None)
    with pytest.raises(errors.UnknownModel):
        load().find("m")


def test_while_loading(tmp_path: Path):
    publish(tmp_path, "a", linear())
    registry = Registry(tmp_path, LOADER)
    for name in (None, "a", "b"):
        with pytest.raises(errors.ModelLoading) as caught:
            registry.find(name)
        assert caught.value.retry_after_s == 1


def test_one_odd_folder_does_not_keep_the_others_from_loading(tmp_path: Path):
    publish(tmp_path, "a", linear())
    publish(tmp_path, "b", linear())

    def loader(folder: Path, name: str, version: int) -> model.ServedModel:
        if name == "a":
            raise KeyError("a defect")
        return LOADER(folder, name, version)

    registry = Registry(tmp_path, loader)
    registry.load()
    assert reason(registry, "a") == "unexpected KeyError, see the log"
    assert registry.find("b").version == 1
    assert registry.close(30)


def test_no_cuda_is_not_a_rejected_version(tmp_path: Path):
    publish(tmp_path, "a", linear())

    def loader(*_) -> model.ServedModel:
        raise device.DeviceUnavailable("no CUDA")

    registry = Registry(tmp_path, loader)
    with pytest.raises(device.DeviceUnavailable):
        registry.load()
    assert not registry.loading


def test_rejected_is_what_a_loader_raises(tmp_path: Path):
    with pytest.raises(Rejected, match="missing"):
        LOADER(tmp_path, "m", 1)
