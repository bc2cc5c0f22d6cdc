"""Damaged, hostile and unsuitable Keras files: a sentence each, and nothing runs."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_nets import L, keras, stack

from converter import cli
from converter.errors import UserError
from converter.sources import LoadOptions, load

# Keras 3.15 with numpy 2 and torch, when it saves a model or predicts.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

DATA = Path(__file__).parents[2] / "data" / "keras"


def net(*layers: Any) -> Any:
    return stack((4,), L.Dense(3), *layers)


def config_of(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], Path]:
    """A .keras file with its config changed."""

    def write(folder: Path) -> Path:
        plain, path = folder / "plain.keras", folder / "changed.keras"
        net(L.BatchNormalization()).save(plain)
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    change(config)
                    content = json.dumps(config).encode()
                new.writestr(name, content)
        return path

    return write


def with_entry(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "model.keras"
        shutil.copy(DATA / "cnn.keras", path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return path

    return write


def saved(build: Callable[[], Any], name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        build().save(folder / name)
        return folder / name

    return write


def cut(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        content = (DATA / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        return folder / name

    return write


def hdf5(fill: Callable[[Any], None]) -> Callable[[Path], Path]:
    """mlp.h5 with something changed."""

    def write(folder: Path) -> Path:
        path = folder / "model.h5"
        shutil.copy(DATA / "mlp.h5", path)
        with h5py.File(path, "a") as file:
            fill(file)
        return path

    return write


def weights_only(folder: Path) -> Path:
    net().save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


def no_keras(folder: Path) -> Path:
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    return folder / "data.h5"


def tensorflow_op(file: Any) -> None:
    config = json.loads(file.attrs["model_config"])
    op = {"class_name": "TFOpLambda", "config": {"name": "tf.nn.relu", "function": "nn.relu"}}
    config["config"]["layers"].insert(2, op)
    file.attrs["model_config"] = json.dumps(config)


def huge(config: dict[str, Any]) -> None:
    config["config"]["layers"][1]["config"]["units"] = 10**9


def grown(config: dict[str, Any]) -> None:
    """A layer whose weights the file does not have."""
    layer = json.loads(json.dumps(config["config"]["layers"][-2]))
    layer["config"]["name"] = "more"
    layer["build_config"]["input_shape"] = [None, 3]
    config["config"]["layers"].append(layer)


def text(config: dict[str, Any]) -> None:
    layer = {"class_name": "TextVectorization", "config": {"name": "words"}}
    config["config"]["layers"].insert(1, layer | {"module": "keras.layers"})


def unknown(config: dict[str, Any]) -> None:
    config["config"]["layers"][1] |= {"module": "mine", "class_name": "MyDense"}


def system(config: dict[str, Any]) -> None:
    config["config"]["layers"][1] |= {"module": "os", "class_name": "system"}


def linked(file: Any) -> None:
    del file["model_weights"]
    file["model_weights"] = h5py.ExternalLink("/etc/other.h5", "/model_weights")


def elsewhere(file: Any) -> None:
    file.create_dataset("x", (9,), "f4", external=[("/etc/hostname", 0, 36)])


def swollen(file: Any) -> None:
    file.create_dataset("x", (1 << 30,), "f4", chunks=(1 << 20,), compression="gzip")


def headless(file: Any) -> None:
    del file["model_weights"]


def lambda_net() -> Any:
    return net(L.Lambda(lambda x: x * 2, name="double"))


def masked_net() -> Any:
    return stack((5,), L.Embedding(9, 4, mask_zero=True, name="words"), L.LSTM(3))


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "cut .keras": (cut("cnn.keras"), "cut off or damaged"),
    "cut .h5": (cut("mlp.h5"), "damaged HDF5"),
    "path escape": (with_entry("../evil.txt", b"x"), "outside its folder: '../evil.txt'"),
    "path escape below": (with_entry("assets/../../evil.txt", b"x"), "outside its folder"),
    "absolute path": (with_entry("/tmp/evil.txt", b"x"), "outside its folder"),
    "foreign entry": (with_entry("setup.py", b"x"), "model.save() does not write"),
    "zip bomb": (with_entry("assets/a", bytes(80 << 20)), "unpacks to many times its size"),
    "Lambda": (saved(lambda_net, "m.keras"), "Lambda ('double'), which holds Python code"),
    "Lambda in .h5": (saved(lambda_net, "m.h5"), "Lambda ('double'), which holds Python code"),
    "text": (config_of(text), "TextVectorization ('words'), which ONNX cannot hold"),
    "mask": (saved(masked_net, "m.keras"), "the layer Embedding ('words')"),
    "unknown class": (config_of(unknown), "'MyDense', which is not a class of Keras"),
    "a class of os": (config_of(system), "'system', which is not a class of Keras"),
    "a terabyte": (config_of(huge), "many times more weights than it holds"),
    "no weights of a layer": (config_of(grown), "cannot be read by Keras"),
    "no config": (config_of(dict.clear), "does not describe the layers"),
    "TensorFlow's op": (hdf5(tensorflow_op), "'TFOpLambda', which is not a class of Keras"),
    "external link": (hdf5(linked), "asks for weights elsewhere: 'model_weights'"),
    "external data": (hdf5(elsewhere), "asks for weights in other files ('x')"),
    "HDF5 bomb": (hdf5(swollen), "says that it holds 4096 MB of weights"),
    "no weights": (hdf5(headless), "cannot be read by Keras"),
    "weights only": (weights_only, "weights without its layers"),
    "no Keras": (no_keras, "an HDF5 file, but no Keras model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_sentence_and_a_hint(name: str, tmp_path: Path) -> None:
    write, sentence = REFUSED[name]
    path = write(tmp_path)
    with pytest.raises(UserError) as raised:
        load(path)
    assert sentence in raised.value.message
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.hint
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_lambda_of_a_trusted_file_is_loaded(tmp_path: Path) -> None:
    path = saved(lambda_net, "m.keras")(tmp_path)
    loaded = load(path, LoadOptions(trust_pickle=True))
    assert any(node.op_type == "Mul" for node in loaded.model.graph)


def test_a_lambda_runs_nothing_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile() -> Any:
        return net(L.Lambda(lambda x: Path("ran.txt").touch() or x, output_shape=(3,)))

    path = saved(hostile, "m.keras")(tmp_path)
    ran = tmp_path / "ran.txt"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        load(path)
    assert not ran.exists()


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(DATA / "cnn.keras") as old, packed as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert load(path).kind == "a Keras model"


def test_a_saved_model_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(UserError, match="SavedModel") as raised:
        load(tmp_path)
    assert "tf2onnx" in raised.value.hint
    assert ".keras" in raised.value.hint


def test_no_advice_that_a_keras_file_cannot_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    )
    model.save(tmp_path / "fresh.keras")
    assert cli.main(["inspect", str(tmp_path / "fresh.keras")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "never updated (mean 0, variance 1): was the model trained" in said
    assert "recalibrate" not in said
    assert "--arch" not in said
