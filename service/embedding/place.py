"""Where a model lies, from the path that a program gives.

models/mnist            a model folder: its newest version, which is the highest number
models/mnist/1          a version folder: what model.json says must be its name and number
build/mnist             the same under another name: what model.json says is believed
net.onnx                a file by itself, without a manifest
models/mnist/1/model.onnx, with model.json beside it: its version folder
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.embedding.errors import ModelUnusable
from service.manifest import MANIFEST_FILE, MODEL_FILE
from service.models.bundle import peek
from service.models.folders import NAME, VERSION
from service.store.address import is_address


class Place(NamedTuple):
    """`path`: a version folder, or an ONNX file if `lone`. `name`, `version`: what it must be."""

    path: Path
    name: str
    version: int
    lone: bool = False


def find(given: str | Path) -> Place:
    """The version folder or the file that a path means.

    Raises:
        ModelUnusable: it means none, with what lies there instead.
    """
    if isinstance(given, str) and is_address(given):
        raise ModelUnusable(
            f"{given} is an address. A predictor reads a folder: copy the model to one, or serve "
            f"it: foldserve serve --models {given}."
        )
    path = Path(given).absolute()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ModelUnusable(f"There is no model at {str(given)!r}: no such file or folder.")
    if path.name == MODEL_FILE and (path.parent / MANIFEST_FILE).exists():
        return _version(path.parent)
    if path.suffix.lower() != ".onnx":
        raise ModelUnusable(
            f"{str(given)!r} is not an .onnx file. Other files are folded first: foldserve fold "
            "FILE --publish models/NAME."
        )
    return Place(path, path.stem, 1, lone=True)


def _folder(path: Path) -> Place:
    if (path / MODEL_FILE).exists() or (path / MANIFEST_FILE).exists():
        return _version(path)
    inside = [each for each in sorted(path.iterdir()) if each.is_dir()]
    versions = [int(each.name) for each in inside if VERSION.fullmatch(each.name)]
    if versions:
        return _version(path / str(max(versions)))
    models = [
        each.name
        for each in inside
        if any(VERSION.fullmatch(below.name) for below in each.iterdir() if below.is_dir())
    ]
    if models:
        raise ModelUnusable(
            f"{str(path)!r} holds models, and a predictor has one: name it, for example "
            f"{str(path / models[0])!r}."
        )
    raise ModelUnusable(
        f"{str(path)!r} holds no model: neither {MODEL_FILE} nor folders of versions (1, 2, ...)."
    )


def _version(path: Path) -> Place:
    name, number = path.parent.name, path.name
    if VERSION.fullmatch(number) and NAME.fullmatch(name):
        return Place(path, name, int(number))
    said = peek(path)  # whether it is valid is not looked at here
    try:
        return Place(path, str(said["name"]), int(said["version"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return Place(path, path.name, 1)
