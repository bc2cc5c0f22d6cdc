"""Keras models against what Keras itself predicts, and what folds of them."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras_nets import NETS, L, keras, stack, train

from converter.errors import UserError
from converter.pipeline import fold
from converter.sources import InputShape, Loaded, LoadOptions, load

# Keras 3.15 with numpy 2 and torch, when it saves a model or predicts.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

DATA = Path(__file__).parents[2] / "data" / "keras"


def saved(model: Any, folder: Path, name: str = "model.keras") -> Path:
    model.save(folder / name)
    return folder / name


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    content = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def assert_like_keras(graph: ir.Model, loaded: Loaded, model: Any) -> None:
    """At several batch sizes, by names."""
    random = np.random.default_rng(11)
    for batch in (1, 3):
        feeds = {}
        for given in loaded.inputs:
            shape = (batch, *given.example[1:])
            integer = given.dtype.startswith("int")
            drawn = random.integers(0, given.upper or 2, shape) if integer else random.random(shape)
            feeds[given.name] = drawn.astype(given.dtype)
        expected = model.predict(feeds if len(feeds) > 1 else next(iter(feeds.values())), verbose=0)
        outputs = session(graph).run(None, feeds)
        for mine, theirs in zip(outputs, keras.tree.flatten(expected), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Loaded]]:
    """A net of the table, and what was loaded of its file; each is exported once."""

    @functools.cache
    def built(name: str) -> tuple[Any, Loaded]:
        model = train(NETS[name][0]())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation")
            return model, load(saved(model, tmp_path_factory.mktemp(name)))

    return built


Nets = Callable[[str], tuple[Any, Loaded]]


@pytest.mark.parametrize("name", NETS)
def test_a_net_folds_and_stays_what_keras_predicts(name: str, net: Nets) -> None:
    _, batchnorms, folds = NETS[name]
    model, loaded = net(name)
    assert loaded.kind == "a Keras model"
    assert loaded.dynamic_batch
    assert not loaded.notes
    assert loaded.reference is not None
    assert_like_keras(loaded.model, loaded, model)
    result = fold(loaded)
    assert result.proof.passed
    assert len(result.plan.batchnorms) == batchnorms
    assert sum(d in result.plan.folded for d in result.plan.batchnorms) >= folds
    assert_like_keras(result.model, loaded, model)


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_gammas_of_both_signs_are_never_wrong(name: str, tmp_path: Path) -> None:
    model = train(NETS[name][0](), mixed=True)
    loaded = load(saved(model, tmp_path))
    result = fold(loaded)
    assert result.proof.passed
    assert_like_keras(result.model, loaded, model)


def test_the_names_are_those_of_keras(net: Nets) -> None:
    model, loaded = net("residual")
    assert [given.name for given in loaded.inputs] == ["image"]
    names = {decision.site.name for decision in fold(loaded).plan.batchnorms}
    assert names == {layer.name for layer in model.layers if "batch_norm" in layer.name}
    norm = next(layer.name for layer in model.layers if "batch_norm" in layer.name)
    assert f"{norm}.moving_mean" in loaded.model.graph.initializers


def test_layers_in_models_in_models_get_paths(net: Nets) -> None:
    _, loaded = net("nested")
    names = [decision.site.name for decision in fold(loaded).plan.batchnorms]
    assert [name for name in names if name.startswith("block.deep.norm")] == names[:2]
    assert names[2].startswith("shared_norm")


def test_several_inputs_and_outputs_keep_their_names(net: Nets) -> None:
    _, loaded = net("several")
    assert [given.name for given in loaded.inputs] == ["left", "right"]
    assert [value.name for value in loaded.model.graph.outputs] == ["kind", "size"]


def test_channels_last_leaves_one_transpose_at_each_end(net: Nets) -> None:
    graph = net("cnn")[1].model.graph
    transposes = [node for node in graph if node.op_type == "Transpose"]
    assert len(transposes) == 2
    assert transposes[0].inputs[0] in graph.inputs
    assert not [node for node in graph if node.op_type in {"Shape", "Concat"}]
    assert all(len(node.inputs) == 3 for node in graph if node.op_type == "Conv")


def test_recurrent_layers_are_one_node_each(net: Nets) -> None:
    ops = [node.op_type for node in net("steps")[1].model.graph]
    assert (ops.count("LSTM"), ops.count("GRU")) == (1, 2)


def test_a_recurrent_layer_that_onnx_does_not_have_is_unrolled(tmp_path: Path) -> None:
    model = train(stack((3, 3), L.BatchNormalization(), L.LSTM(3, activation="gelu")))
    loaded = load(saved(model, tmp_path))
    assert not [node for node in loaded.model.graph if node.op_type == "LSTM"]
    assert_like_keras(loaded.model, loaded, model)


@pytest.mark.parametrize(
    ("op", "layers"),
    [
        ("GRU", [L.GRU(4, reset_after=False, return_sequences=True), L.GRU(3, reset_after=False)]),
        ("GRU", [L.Bidirectional(L.GRU(3, reset_after=False, use_bias=False))]),
        ("GRU", [L.GRU(3, activation="relu", recurrent_activation="hard_sigmoid")]),
        ("RNN", [L.SimpleRNN(4, return_sequences=True, go_backwards=True), L.SimpleRNN(3)]),
        ("LSTM", [L.LSTM(3, activation="softsign", recurrent_activation="hard_sigmoid")]),
    ],
)
def test_recurrent_layers_that_torch_does_not_have(
    op: str, layers: list[Any], tmp_path: Path
) -> None:
    """One node each, of any batch and any length."""
    model = train(stack((None, 3), L.BatchNormalization(), *layers))
    loaded = load(saved(model, tmp_path), LoadOptions(input_shapes=(InputShape((5, 3)),)))
    assert loaded.inputs[0].shape == ("batch", "length", 3)
    assert loaded.dynamic_batch
    assert {node.op_type for node in loaded.model.graph} >= {op}
    assert not [node for node in loaded.model.graph if node.op_type in {"Sigmoid", "Tanh"}]
    assert_like_keras(loaded.model, loaded, model)
    assert fold(loaded).proof.passed


def test_a_dict_of_outputs_keeps_its_names(tmp_path: Path) -> None:
    x = keras.Input((6,), name="x")
    y = L.BatchNormalization()(L.Dense(5)(x))
    outputs = {"score": L.Dense(2, name="d1")(y), "label": {"a": L.Dense(1, name="d2")(y)}}
    loaded = load(saved(train(keras.Model(x, outputs)), tmp_path))
    outs = loaded.model.graph.outputs
    assert {v.name: v.shape[-1] for v in outs if v.shape is not None} == {"score": 2, "label_a": 1}
    assert loaded.reference is not None


def test_recurrent_layers_backwards_and_without_bias(tmp_path: Path) -> None:
    model = train(
        stack(
            (4, 3),
            L.LSTM(3, go_backwards=True, return_sequences=True, use_bias=False),
            L.GRU(4, go_backwards=True, use_bias=False),
        )
    )
    loaded = load(saved(model, tmp_path))
    assert_like_keras(loaded.model, loaded, model)


def test_a_shift_that_meets_zero_padding_is_refused_with_the_reason(net: Nets) -> None:
    plan = fold(net("padded")[1]).plan
    (kept,) = [d for d in plan.kept if d.site.name == "before_padding"]
    assert "pads" in str(kept.outcome)


def test_mixed_precision_is_exported_in_float32(tmp_path: Path) -> None:
    policy = "mixed_float16"
    model = train(
        stack(
            (6, 6, 2),
            L.Conv2D(3, 3, dtype=policy),
            L.BatchNormalization(dtype=policy),
            L.Flatten(dtype=policy),
            L.Dense(2, dtype="float32"),
        )
    )
    loaded = load(saved(model, tmp_path))
    assert "mixed precision" in loaded.notes[0]
    types = {value.dtype for node in loaded.model.graph for value in node.outputs}
    assert types == {ir.DataType.FLOAT}
    assert fold(loaded).proof.passed


def test_open_sizes_are_tried_and_can_be_said(tmp_path: Path) -> None:
    def net() -> Any:
        return stack(
            (None, None, 3), L.Conv2D(2, 3), L.BatchNormalization(), L.GlobalMaxPooling2D()
        )

    path = saved(train(net()), tmp_path)
    assert load(path).notes == ["sizes of the example: height=224,width=224,3"]
    said = LoadOptions(input_shapes=(InputShape((16, 20, 3)),))
    loaded = load(path, said)
    assert loaded.inputs[0].example == (1, 16, 20, 3)
    assert loaded.inputs[0].shape == ("batch", "height", "width", 3)  # as the file leaves it
    with pytest.raises(UserError, match=r"does not fit.*\(any, any, 3\)"):
        load(path, LoadOptions(input_shapes=(InputShape((3, 16, 20)),)))


@pytest.mark.parametrize(
    ("file", "batchnorms"), [("cnn.keras", 2), ("mlp.h5", 2), ("keras2.h5", 1)]
)
def test_files_that_were_written_once(file: str, batchnorms: int) -> None:
    """By Keras 3.15; keras2.h5 as tf.keras 2.10 wrote them, with the axis as a list."""
    result = fold(load(DATA / file))
    assert result.proof.passed
    assert len(result.plan.folded) == len(result.plan.batchnorms) == batchnorms


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    for name in ("cnn.keras", "mlp.h5"):
        copy = tmp_path / f"{name}.bin"
        copy.write_bytes((DATA / name).read_bytes())
        assert load(copy).kind.startswith("a Keras model")


def test_without_keras_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UserError, match="needs the package 'keras'") as raised:
        load(DATA / "cnn.keras")
    assert raised.value.hint == 'pip install "foldserve[keras]"'


def test_another_backend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match=r"backend jax") as raised:
        load(DATA / "cnn.keras")
    assert "KERAS_BACKEND=torch" in raised.value.hint


OWN_LAYERS = """
import keras

@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return x * 2.0

class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2.0
"""


def test_custom_objects_are_imported_when_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_keras_layers.py").write_text(OWN_LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_keras_layers as own

    model = train(stack((4,), L.Dense(3), own.Doubled(), L.BatchNormalization(), own.Halved()))
    path = saved(model, tmp_path)
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    try:
        with pytest.raises(UserError, match=r"'Halved'|'Doubled'") as raised:
            load(path)
        assert "--custom-objects" in raised.value.hint
        monkeypatch.delitem(sys.modules, "own_keras_layers")
        loaded = load(path, LoadOptions(custom_objects=("own_keras_layers",)))
    finally:
        registered.clear()
        registered.update(kept)
    assert_like_keras(loaded.model, loaded, model)


def test_custom_objects_that_cannot_be_imported_are_a_users_error() -> None:
    with pytest.raises(UserError, match="no_such_module"):
        load(DATA / "cnn.keras", LoadOptions(custom_objects=("no_such_module",)))
