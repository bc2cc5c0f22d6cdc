"""What .h5 files of Keras 2 say in a way that Keras 3 does not accept, or reads as something else.

Such a file often cannot be saved again: the Keras that made it is gone. So its description of the
layers is translated as data, before Keras reads it; the file stays as it is. Every row of the
tables keeps the network the same: what Keras 3 would compute differently is set explicitly as it
was, or refused.

Source: `get_config` of the layers in Keras 2.0 to 2.15, `preprocess_weights_for_loading` in
keras/saving/hdf5_format.py of 2.4, and keras/src/legacy/saving of Keras 3.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from converter.errors import UserError
from converter.sources.keras_vet import dicts

_ANYTHING = object()

# Class (a pattern) -> key that Keras 3 does not have -> the value at which it does the same.
NEEDLESS: tuple[tuple[str, str, Any], ...] = (
    # How the loop over time was run, not what it computes.
    (r"(SimpleRNN|GRU|LSTM|ConvLSTM\dD)(Cell)?", "implementation", _ANYTHING),
    (r"RNN|SimpleRNN|GRU|LSTM|ConvLSTM\dD", "time_major", False),
    # The base class of convolutions wrote its own arguments for these classes as well.
    (r"DepthwiseConv\dD|SeparableConv\dD|Conv\dDTranspose", "groups", 1),
    (r"DepthwiseConv\dD", "filters", None),
    (r"BatchNormalization", "mode", 0),
    (r"BatchNormalization", "fused", _ANYTHING),
    (r"BatchNormalization", "renorm", False),
    (r"BatchNormalization", "virtual_batch_size", None),
    (r"BatchNormalization", "synchronized", _ANYTHING),
    # Nothing is dropped in inference.
    (r"SpatialDropout\dD", "noise_shape", _ANYTHING),
    (r"Embedding", "sparse", False),
    (r"Embedding", "input_length", _ANYTHING),
    # The first layer has these for the input in front of it, which `_opened` adds.
    (r"(?!InputLayer).*", "batch_input_shape", _ANYTHING),
    (r".*", "dynamic", _ANYTHING),
)
# Only training needs these; the weights that they were for come from the file. Some name
# classes or arguments that no longer exist (`dtype` of an initializer, `distribution: "normal"`).
_FOR_TRAINING = re.compile(r"\w+_(initializer|regularizer|constraint)")
# Keys under which layers hold layers. Keras 3 needs their module, which Keras 2 did not name.
_INNER = ("layer", "forward_layer", "backward_layer", "cell", "cells")
_MODELS = {"Sequential", "Functional", "Model"}
# Class -> what it is called now.
RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
# Class -> what was meant where the file says nothing: today's default is another value.
UNSAID: dict[str, dict[str, Any]] = {
    "GRU": {"reset_after": False},  # the argument came with Keras 2.1
    "GRUCell": {"reset_after": False},
}
# Theano convolves, the others correlate: its kernels are stored mirrored.
_MIRRORED = re.compile(r"Conv\dD|Conv2DTranspose|ConvLSTM2D")


def translated(
    config: Mapping[str, Any], path: Path, known: Callable[[str], bool], custom: frozenset[str]
) -> dict[str, Any]:
    """The same layers as Keras 3 describes them; equal to `config` where nothing changed.

    Args:
        config: what the file has; it is not changed.
        path: for messages.
        known: whether Keras has a class of this name.
        custom: names of the user's own classes, whose configs are left alone.

    Raises:
        UserError: when Keras 3 would read another network out of it.
    """
    said: dict[str, Any] = copy.deepcopy(dict(config))
    for part in dicts(said):
        name = part.get("class_name")
        if not isinstance(name, str) or name in custom:
            continue
        name = part["class_name"] = RENAMED.get(name, name)
        if name == "Sequential" and isinstance(part.get("config"), list):
            # Until Keras 2.2 a Sequential was the list of its layers.
            part["config"] = {"name": "sequential", "layers": part["config"]}
        inner = part.get("config")
        if not isinstance(inner, dict):
            continue
        if name == "Sequential" and isinstance(inner.get("layers"), list):
            inner["layers"] = _opened(inner["layers"])
        for key in _INNER:
            for held in inner[key] if isinstance(inner.get(key), list) else [inner.get(key)]:
                if isinstance(held, dict) and "module" not in held:
                    _place(held, known)
        if known(name):
            part["config"] = dict(_layer(name, inner, path))
    _rename(said)
    return said


def _opened(layers: list[Any]) -> list[Any]:
    """The layers behind an input layer; in Keras 2 the first layer could state the input's shape.

    Keras 3 takes that for the shape without the batch axis, which it then has twice.
    """
    first = layers[0] if layers and isinstance(layers[0], dict) else {}
    inner = first.get("config")
    if first.get("class_name") == "InputLayer" or not isinstance(inner, dict):
        return layers
    shape = inner.pop("batch_input_shape", None)
    if shape is None:
        return layers
    # Indices are whole numbers, whatever type the file states.
    kind = "int32" if first.get("class_name") == "Embedding" else "float32"
    said = {"batch_shape": shape, "dtype": kind, "name": f"{inner.get('name', 'layer')}_input"}
    return [{"class_name": "InputLayer", "config": said}, *layers]


def _place(layer: dict[str, Any], known: Callable[[str], bool]) -> None:
    """Name the module of a layer that another holds."""
    name = layer.get("class_name")
    name = RENAMED.get(name, name) if isinstance(name, str) else ""
    if name in _MODELS:
        layer["module"] = "keras"
    elif known(name):
        layer["module"] = "keras.layers"


def _layer(name: str, config: dict[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """The arguments of a layer."""
    yield from ((k, v) for k, v in UNSAID.get(name, {}).items() if k not in config)
    for key, value in config.items():
        if _FOR_TRAINING.fullmatch(key) or any(
            key == row and (said is _ANYTHING or said == value) and re.fullmatch(classes, name)
            for classes, row, said in NEEDLESS
        ):
            continue
        if key == "axis" and isinstance(value, list):
            if len(value) != 1:
                raise UserError(
                    f"{path}: the layer {name} ({config.get('name')!r}) works along several axes "
                    f"at once, {value}, which Keras 3 forgets when it reads an .h5 file",
                    'where the model was made, save it with model.save("model.keras")',
                )
            value = value[0]
        if isinstance(value, dict):
            if value.get("type") == "ndarray":  # a number, as numpy's
                value = value.get("value")
            elif key == "dtype" and str(value.get("class_name")).startswith("Policy"):
                inner = value.get("config")
                value = inner.get("name", "float32") if isinstance(inner, dict) else value
        yield key, value


def _rename(config: dict[str, Any]) -> None:
    """Layers may no longer be called `conv1/bn`. Weights are matched by order, not by name."""
    for part in dicts(config):
        layers = part.get("layers")
        if not isinstance(layers, list):
            continue
        names = [_named(layer) for layer in layers if isinstance(layer, dict)]
        taken, new = {name for name in names if "/" not in name}, {}
        for name in dict.fromkeys(names):
            if "/" in name:
                plain = name.replace("/", "_")
                tries = itertools.chain([plain], (f"{plain}_{n}" for n in itertools.count(1)))
                new[name] = next(text for text in tries if text not in taken)
                taken.add(new[name])
        if not new:
            continue
        for layer in layers:
            for holder in (layer, layer.get("config")):
                if isinstance(holder, dict) and holder.get("name") in new:
                    holder["name"] = new[holder["name"]]
            if "inbound_nodes" in layer:
                layer["inbound_nodes"] = _pointed(layer["inbound_nodes"], new)
        for key in ("input_layers", "output_layers"):
            if key in part:
                part[key] = _pointed(part[key], new)


def _named(layer: dict[str, Any]) -> str:
    inner = layer.get("config")
    return str(layer.get("name") or (inner.get("name") if isinstance(inner, dict) else "") or "")


def _pointed(value: Any, new: Mapping[str, str]) -> Any:
    """Rename in references [name, node, tensor, ...], at any depth of lists and dicts."""
    if isinstance(value, list):
        if len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int):
            first = new.get(value[0], value[0])
            return [first, *(_pointed(v, new) for v in value[1:])]
        return [_pointed(v, new) for v in value]
    if isinstance(value, dict):
        return {key: _pointed(v, new) for key, v in value.items()}
    return value


def refuse_mirrored(path: Path, config: Mapping[str, Any], version: str, backend: str) -> None:
    """Raises UserError for weights whose form Keras 3 would misread."""
    classes = {part.get("class_name") for part in dicts(config)}
    if version.startswith("1."):
        raise UserError(
            f"{path} was saved by Keras {version}, whose layers have other arguments and weights",
            "load it with Keras 2.2 and save it there; that file can be folded",
        )
    if backend == "theano" and (
        found := sorted(str(c) for c in classes if _MIRRORED.fullmatch(str(c)))
    ):
        raise UserError(
            f"{path} was saved on Theano, whose convolutions ({', '.join(found)}) have their "
            "kernels stored mirrored",
            "load it with Keras 2 on TensorFlow, which turns them, and save it there",
        )


@contextlib.contextmanager
def functions_of(version: str) -> Iterator[None]:
    """Within this block, Keras finds functions by name as they were in that version.

    Until Keras 3 a hard sigmoid was min(max(0.2 x + 0.5, 0), 1); now its slope is 1/6.
    """
    keras = importlib.import_module("keras")
    table = importlib.import_module("keras.src.activations").ALL_OBJECTS_DICT

    def hard_sigmoid(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    # Layers that hold layers copy them by the names of functions, so the function needs it too.
    hard_sigmoid.stated_as = "hard_sigmoid_2"  # type: ignore[attr-defined]
    now = table["hard_sigmoid"]
    if version.partition(".")[0] in {"1", "2"}:
        table["hard_sigmoid"] = hard_sigmoid
    try:
        yield
    finally:
        table["hard_sigmoid"] = now
