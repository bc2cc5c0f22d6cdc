"""Check Keras files before Keras loads them: they hold only data, of the size that they state.

A .keras file is a zip of config.json (the layers), metadata.json, the weights in HDF5 (or .npz)
and perhaps assets; a .h5 file is HDF5 with the layers in its attribute `model_config`. Keras
itself (safe_mode=True) refuses Lambda layers and HDF5 links; these rules say so in a sentence,
and also refuse what would fill the memory, reads other files, or does not compute with numbers.

Source: keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import UserError

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = ("model.weights.h5", "model.weights.npz")
MAX_CONFIG = 64 << 20  # bytes; EfficientNetB7's has about 1 MB
# Small data sets may be padded with zeros; of larger ones, most bytes must be in the file.
FLOOR = 64 << 20
MAX_EXPANSION = 100

_ENTRIES = re.compile(r"config\.json|metadata\.json|model\.weights\.(h5|npz)|assets/.*")
_WEIGHTS_ONLY = {"layers", "_layer_checkpoint_dependencies"}  # groups of Keras 3 and 2.12
_COPY = "copy or download the file again"
_TRUST = (
    "where the model was made, replace it by keras.ops or a registered layer and save again; "
    "--trust-pickle only if you trust whoever made the file"
)

# Class -> why it is refused unless the file is trusted: these run what the file says.
_CODE = {
    "Lambda": "holds Python code, which loading it would run",
    "__lambda__": "holds Python code, which loading it would run",
    "TorchModuleWrapper": "holds a pickled torch module, which loading it would run",
    "TFSMLayer": "runs a TensorFlow SavedModel from another folder",
    "JaxLayer": "runs JAX code",
    "FlaxLayer": "runs JAX code",
}
# Class -> what to do instead: it does not compute with numbers, so it has no ONNX graph.
_OUTSIDE = {
    name: f"{what} stays outside the exported model: save the model behind that layer, for example "
    "keras.Model(model.layers[1].output, model.outputs)"
    for what, names in {
        "text processing": ("TextVectorization", "StringLookup", "Tokenizer"),
        "looking up categories": ("IntegerLookup", "Hashing", "HashedCrossing", "FeatureSpace"),
    }.items()
    for name in names
}
_MASKS = (
    "ONNX has no masks: pad in front of the model, and build it with mask_zero=False and without "
    "Masking layers, which its weights do not depend on"
)


@dataclass(frozen=True)
class Vetted:
    """The layers as JSON describes them, and how many bytes of weights the file has.

    Attributes:
        version: of the Keras that saved it, "" where the file does not say.
        backend: the backend that it used then, in an .h5 file.
    """

    config: dict[str, Any]
    weights: int
    version: str = ""
    backend: str = ""


def archive(path: Path, trusted: bool) -> Vetted:
    """Check a .keras file.

    Raises:
        UserError: when it is damaged, oversized, holds other files, or code and is not trusted.
    """
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
            for info in infos:
                _check_entry(path, info)
            if file.getinfo(CONFIG).file_size > MAX_CONFIG:
                raise UserError(f"{path} describes its layers in more than {MAX_CONFIG >> 20} MB")
            config = _json(path, file.read(CONFIG))
            version = _version_in(file)
            stored = [info for info in infos if info.filename in WEIGHTS]
            for info in stored:
                if info.filename.endswith(".h5"):
                    # Seeking back in a compressed entry would unpack it again each time.
                    plain = info.compress_type == zipfile.ZIP_STORED
                    with file.open(info) if plain else io.BytesIO(file.read(info)) as weights:
                        hdf5(path, weights, info.file_size)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, NotImplementedError) as error:
        raise UserError(f"{path} is a damaged .keras file: {error}", _COPY) from error
    _check_config(path, config, trusted=trusted)
    return Vetted(config, sum(info.file_size for info in stored), version)


def _version_in(file: zipfile.ZipFile) -> str:
    """The `keras_version` of metadata.json; "" where there is none."""
    try:
        if file.getinfo(METADATA).file_size > MAX_CONFIG:
            return ""
        metadata = json.loads(file.read(METADATA))
    except (KeyError, ValueError, RecursionError):
        return ""
    return str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""


def legacy(path: Path, trusted: bool) -> Vetted:
    """Check a .h5 file.

    Raises:
        UserError: as `archive`, and when it is not a Keras model or only a model's weights.
    """
    import h5py

    hdf5(path, str(path), path.stat().st_size)
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            said = [_text(file.attrs.get(key, "")) for key in ("keras_version", "backend")]
            weights_only = "layer_names" in file.attrs or bool(_WEIGHTS_ONLY & set(file))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is a damaged HDF5 file: {error}", _COPY) from error
    if text is None and weights_only:
        raise UserError(
            f"{path} holds a Keras model's weights without its layers",
            "where the model was made: build it, model.load_weights(FILE), then "
            'model.save("model.keras"), and fold that',
        )
    if text is None:
        raise UserError(f"{path} is an HDF5 file, but no Keras model", "give the model's file")
    config = _json(path, _text(text).encode())
    _check_config(path, config, trusted=trusted)
    return Vetted(config, path.stat().st_size, *said)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def hdf5(path: Path, file: Any, size: int) -> None:
    """Check the datasets of HDF5: in the file itself, and no larger than what is stored.

    Args:
        path: for messages.
        file: its name, or a stream of it.
        size: how many bytes it has.
    """
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            declared = sum(_check_datasets(path, opened, h5py))
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} holds damaged HDF5 weights: {error}", _COPY) from error
    if declared > FLOOR and declared > MAX_EXPANSION * size:
        raise UserError(
            f"{path} says that it holds {declared >> 20} MB of weights, but stores {size >> 20} MB",
            "such a file may be an attack; save the model again without compression",
        )


def _check_datasets(path: Path, group: Any, h5py: Any) -> Iterator[int]:
    """The bytes of each dataset below a group."""
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UserError(
                f"{path} asks for weights elsewhere: {name!r} is a link",
                "such a file may be an attack; save the model again",
            )
        child = group[name]
        if isinstance(child, h5py.Dataset):
            if child.external or child.is_virtual:
                raise UserError(
                    f"{path} asks for weights in other files ({name!r})",
                    "such a file may be an attack; save the model again",
                )
            yield math.prod(child.shape or ()) * child.dtype.itemsize
        elif isinstance(child, h5py.Group):
            yield from _check_datasets(path, child, h5py)


def _check_entry(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise UserError(
            f"{path} holds a file that would be written outside its folder: {name!r}",
            "such a file may be an attack; save the model again with model.save()",
        )
    if not _ENTRIES.fullmatch(name):
        raise UserError(
            f"{path} holds {name!r}, which model.save() does not write",
            "save the model again with model.save()",
        )
    if info.file_size > FLOOR and info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
        raise UserError(
            f"{path} would unpack to {info.file_size >> 20} MB from "
            f"{info.compress_size >> 20} MB ({name})",
            "such a file may be an attack; save the model again with model.save()",
        )


def _json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} describes its layers in broken JSON: {error}", _COPY) from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise UserError(f"{path} does not describe the layers of a Keras model", _COPY)
    return config


def _check_config(path: Path, config: dict[str, Any], *, trusted: bool) -> None:
    for name, layer in objects(config):
        where = f"{path} has a layer {name}" + (f" ({layer!r})" if layer else "")
        if name in _OUTSIDE:
            raise UserError(f"{where}, which ONNX cannot hold", _OUTSIDE[name])
        if name in _CODE and not trusted:
            raise UserError(f"{where}, which {_CODE[name]}", _TRUST)
    for name, layer in masking(config):
        raise UserError(f"{path} uses masks: the layer {name} ({layer!r}) makes one", _MASKS)


def objects(config: Any) -> Iterator[tuple[str, str]]:
    """(class, layer name) of everything that the config would build."""
    for part in dicts(config):
        inner = part.get("config")
        label = inner.get("name") if isinstance(inner, dict) else part.get("name")
        if isinstance(part.get("class_name"), str):
            yield part["class_name"], label if isinstance(label, str) else ""


def masking(config: Any) -> Iterator[tuple[str, str]]:
    """(class, layer name) of layers that tell later ones to skip steps."""
    for part in dicts(config):
        inner = part.get("config")
        if isinstance(inner, dict) and (
            part.get("class_name") == "Masking" or inner.get("mask_zero") is True
        ):
            yield str(part.get("class_name")), str(inner.get("name"))


def dicts(config: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object of the config, without recursion: JSON nests deeper than Python."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(reversed(list(part.values())))
        elif isinstance(part, list):
            waiting.extend(reversed(part))
