"""Files of Keras 2, in the forms that Keras 3 does not take or takes for something else."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras_nets import L, keras, stack, train

from converter.errors import UserError
from converter.sources import Loaded, load

# Keras 3.15 with numpy 2 and torch, when it saves a model or predicts.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

Config = dict[str, Any]
RNG = np.random.default_rng(5)


def run(loaded: Loaded, x: Any) -> Any:
    content = ir.to_proto(loaded.model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def written(path: Path, config: Config, weights: dict[str, list[Any]], version: str) -> Path:
    """A model's .h5 file as Keras wrote it since 1.2: config, and weights in order."""
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {"model_config": json.dumps(config), "keras_version": version, "backend": "tensorflow"}
        )
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"w{index}".encode() for index in range(len(arrays))]
            for index, array in enumerate(arrays):
                inner[f"w{index}"] = array.astype(np.float32)
    return path


def gru_of_keras_2(x: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
    """h~ = tanh(x W + (r*h) R + b), with the hard sigmoid 0.2 x + 0.5."""
    units = len(recurrent)
    h, found = np.zeros((len(x), units)), []
    for step in range(x.shape[1]):
        gates = x[:, step] @ kernel + bias
        zr = np.clip(0.2 * (gates[:, : 2 * units] + h @ recurrent[:, : 2 * units]) + 0.5, 0, 1)
        z, r = zr[:, :units], zr[:, units:]
        h = z * h + (1 - z) * np.tanh(gates[:, 2 * units :] + (r * h) @ recurrent[:, 2 * units :])
        found.append(h)
    return np.stack(found, 1)


def test_a_bidirectional_network_of_2017(tmp_path: Path) -> None:
    """The list of layers is the config, the shape stands in the first layer, and so on."""
    init = {"class_name": "VarianceScaling", "config": {"distribution": "normal", "seed": None}}
    gru = {
        "name": "gru_1", "units": 3, "implementation": 1, "activation": "tanh", "dropout": 0.2,
        "recurrent_activation": "hard_sigmoid", "return_sequences": True, "stateful": False,
        "kernel_initializer": init, "use_bias": True,
    }  # fmt: skip
    config: Config = {"class_name": "Sequential", "config": [
        {"class_name": "Embedding", "config": {
            "name": "embedding_1", "input_dim": 9, "output_dim": 4, "input_length": 6,
            "batch_input_shape": [None, 6], "dtype": "float32", "mask_zero": False}},
        {"class_name": "Bidirectional", "config": {
            "name": "both", "merge_mode": "concat", "trainable": True,
            "layer": {"class_name": "GRU", "config": gru}}},
        {"class_name": "Dense", "config": {
            "name": "dense_1", "units": 2, "activation": "linear", "kernel_initializer": init}},
    ]}  # fmt: skip
    table = RNG.normal(size=(9, 4))
    ways = [[RNG.normal(size=size) for size in ((4, 9), (3, 9), (9,))] for _ in range(2)]
    dense = [RNG.normal(size=(6, 2)), RNG.normal(size=2)]
    weights = {"embedding_1": [table], "both": [*ways[0], *ways[1]], "dense_1": dense}
    loaded = load(written(tmp_path / "old.h5", config, weights, "2.0.8"))
    x = RNG.integers(0, 9, (3, 6))
    there = gru_of_keras_2(table[x], *ways[0])
    back = gru_of_keras_2(table[x][:, ::-1], *ways[1])[:, ::-1]
    expected = np.concatenate([there, back], -1) @ dense[0] + dense[1]
    assert loaded.inputs[0].name == "embedding_1_input"
    assert loaded.inputs[0].shape == ("batch", 6)
    np.testing.assert_allclose(run(loaded, x.astype(np.int32)), expected, atol=1e-5)


def old(path: Path, change: Callable[[Config], None], version: str = "2.4.0") -> Path:
    """An .h5 file with the config as an older Keras had it."""
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version
    return path


def unchanged(_: Config) -> None:
    """Only its version is older."""


def last(config: Config) -> Config:
    layer = config["config"]["layers"][-1]
    assert isinstance(layer, dict)
    return layer


def says(**more: Any) -> Callable[[Config], None]:
    return lambda config: last(config)["config"].update(more)


def called(name: str, **more: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        last(config)["class_name"] = name
        last(config)["config"].update(more)

    return change


def bare(config: Config) -> None:
    """The whole and what is wrapped in it are lists of layers, which name no modules."""
    held = last(config)["config"]["layer"]
    del held["module"]
    held["config"] = [layer for layer in held["config"]["layers"] if "Input" not in str(layer)]
    config["config"] = config["config"]["layers"]


def first(config: Config) -> None:
    """No input layer: the first layer says the shape."""
    entry, layer = config["config"]["layers"]
    layer["config"]["batch_input_shape"] = entry["config"]["batch_shape"]
    del config["config"]["layers"][0]


IMAGE = (7, 7, 4)
NUMPY = {"type": "ndarray", "value": 0.25}
INIT = {"class_name": "GlorotUniform", "config": {"seed": None, "dtype": "float32"}}
GONE = {"class_name": "L1L2Gone", "config": {}}
POLICY = {"class_name": "Policy", "config": {"name": "float32"}}
inner = [keras.Input((4,)), L.Dense(3, activation="relu"), L.Dense(2)]
FORMS: dict[str, tuple[tuple[int, ...], Any, Callable[[Config], None]]] = {
    "depthwise": (IMAGE, lambda: L.DepthwiseConv2D(3), says(groups=1, filters=None)),
    "separable": (IMAGE, lambda: L.SeparableConv2D(3, 3), says(groups=1, kernel_initializer=INIT)),
    "transposed": (IMAGE, lambda: L.Conv2DTranspose(3, 3), says(groups=1)),
    "initializer": ((4,), lambda: L.Dense(3), says(kernel_initializer=INIT, dynamic=False)),
    "regularizer": ((4,), lambda: L.Dense(3), says(kernel_regularizer=GONE)),
    "policy": ((4,), lambda: L.Dense(3), says(dtype=POLICY)),
    "time_major": ((5, 4), lambda: L.LSTM(3), says(time_major=False, implementation=2)),
    "a number of numpy's": ((4,), lambda: L.LeakyReLU(0.25), says(negative_slope=NUMPY)),
    "fused": (IMAGE, L.BatchNormalization, called("BatchNormalizationV1", axis=[3], fused=True)),
    "synchronized": (IMAGE, L.BatchNormalization, called("SyncBatchNormalization", axis=[3])),
    "wrapped list": ((5, 4), lambda: L.TimeDistributed(keras.Sequential(inner)), bare),
    "no input layer": ((4,), lambda: L.Dense(3), first),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_old_form_is_the_same_network(form: str, tmp_path: Path) -> None:
    shape, build, change = FORMS[form]
    model = train(stack(shape, build()))
    model.save(tmp_path / "model.h5")
    x = RNG.normal(size=(2, *shape)).astype(np.float32)
    loaded = load(old(tmp_path / "model.h5", change))
    expected = np.asarray(model.predict(x, verbose=0))
    np.testing.assert_allclose(run(loaded, x), expected, atol=1e-5)


def test_names_with_slashes(tmp_path: Path) -> None:
    """DenseNet's conv1/bn; conv1_bn is there already."""
    entry = keras.Input((4,), name="entry")
    one = L.Dense(3, name="conv1_bn")(entry)
    two = L.Dense(3, name="conv1_other")(entry)
    model = keras.Model(entry, L.Subtract(name="out")([one, two]))
    model.save(tmp_path / "model.h5")

    def change(config: Config) -> None:
        text = json.dumps(config).replace("conv1_other", "conv1/bn")
        config.clear()
        config.update(json.loads(text))

    x = RNG.normal(size=(2, 4)).astype(np.float32)
    loaded = load(old(tmp_path / "model.h5", change))
    np.testing.assert_allclose(run(loaded, x), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize(("version", "slope"), [("2.15.0", 0.2), ("3.4.0", 1 / 6)])
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_hard_sigmoid_is_that_of_its_time(
    version: str, slope: float, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{suffix}"
    model = stack((5,), L.Activation("hard_sigmoid"))
    model.save(path)
    if suffix == "h5":
        old(path, unchanged, version)
    else:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        metadata = json.loads(parts["metadata.json"]) | {"keras_version": version}
        parts["metadata.json"] = json.dumps(metadata).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, content in parts.items():
                file.writestr(name, content)
    x = np.array([[-4, -1, 0, 1, 4]], np.float32)
    np.testing.assert_allclose(run(load(path), x), np.clip(slope * x + 0.5, 0, 1), atol=1e-6)
    after = keras.activations.get("hard_sigmoid")(keras.ops.ones(1))
    assert float(after[0]) == pytest.approx(1 / 6 + 0.5)


def conv(folder: Path) -> Path:
    stack(IMAGE, L.Conv2D(3, 3)).save(folder / "model.h5")
    return folder / "model.h5"


def test_mirrored_kernels_are_refused(tmp_path: Path) -> None:
    path = old(conv(tmp_path), unchanged)
    with h5py.File(path, "a") as file:
        file.attrs["backend"] = "theano"
    with pytest.raises(UserError, match="kernels stored mirrored"):
        load(path)


def test_keras_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"saved by Keras 1\.2\.2") as raised:
        load(old(conv(tmp_path), unchanged, "1.2.2"))
    assert "Keras 2" in raised.value.hint


def test_axes_that_keras_3_forgets_are_refused(tmp_path: Path) -> None:
    stack((3, 4), L.Softmax(axis=-1)).save(tmp_path / "model.h5")
    with pytest.raises(UserError, match=r"several axes at once, \[1, 2\]"):
        load(old(tmp_path / "model.h5", says(axis=[1, 2])))


def test_time_major_is_no_detail(tmp_path: Path) -> None:
    stack((3, 4), L.LSTM(2)).save(tmp_path / "model.h5")
    with pytest.raises(UserError, match="time_major"):
        load(old(tmp_path / "model.h5", says(time_major=True)))


def test_code_in_an_old_form_is_not_run(tmp_path: Path) -> None:
    """A Lambda of Keras 2 inside a wrapper, in a bare list."""
    code = {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEA", None, None]}}
    wrapped = {"class_name": "TimeDistributed", "config": {"name": "each", "layer": code}}
    config = {"class_name": "Sequential", "config": [wrapped]}
    with pytest.raises(UserError, match=r"Lambda \('evil'\), which holds Python code"):
        load(written(tmp_path / "old.h5", config, {}, "2.0.8"))


def test_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = old(conv(tmp_path), says(dynamic=False))
    before = path.read_bytes()
    load(path)
    assert path.read_bytes() == before
