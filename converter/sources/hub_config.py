"""What the config.json of a model folder says: the network, its arguments, its input."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.errors import UserError
from converter.sources import beside
from converter.sources.folders import LARGEST_JSON
from converter.sources.loaded import Known

CONFIG = "config.json"


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError when it is too large, or not a JSON object."""
    try:
        if path.stat().st_size > largest:
            raise UserError(f"{path} is too large for a description of a model")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}", "download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object", "download it again")
    return content


def config_of(folder: Path) -> dict[str, Any] | None:
    """The folder's config.json; None when it has none."""
    path = folder / CONFIG
    return read_json(beside.find(path, CONFIG)) if path.is_file() else None


def architecture(folder: Path) -> tuple[str, dict[str, Any]]:
    """The architecture that config.json names, as `--arch` takes it, and its arguments.

    Raises:
        UserError: it names none, or its library is not installed.
    """
    said = named(folder)
    if said is None:
        raise UserError(
            f"{folder} does not say what network its weights are of: it has no {CONFIG} that "
            "names one",
            "say it: --arch timm:NAME, --arch transformers:AutoModelForImageClassification or "
            "--arch package.module:factory",
        )
    arch, arguments = said
    library = arch.partition(":")[0]
    if importlib.util.find_spec(library) is None:
        raise UserError(
            f"{folder / CONFIG} says that the network is {arch}, and {library} is not installed",
            f"pip install {library}, or give the network as --arch package.module:factory",
        )
    return arch, arguments


def named(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The network that config.json names, installed or not: timm's "architecture", transformers'
    class."""
    config = config_of(folder)
    if config is None:
        return None
    timm, classes = config.get("architecture"), config.get("architectures")
    if isinstance(timm, str):
        arguments = config.get("model_args")
        arguments = dict(arguments) if isinstance(arguments, dict) else {}
        if isinstance(config.get("num_classes"), int):
            arguments.setdefault("num_classes", config["num_classes"])
        return f"timm:{timm}", arguments
    if isinstance(classes, list) and classes and isinstance(classes[0], str):
        return f"transformers:{classes[0]}", {}
    return None


def known_input(folder: Path) -> Known | None:
    """The shape of an image, without the batch axis, where the folder states it."""
    config = config_of(folder) or {}
    path = folder / "preprocessor_config.json"
    before = read_json(beside.find(path, path.name)) if path.is_file() else {}
    pretrained = config.get("pretrained_cfg")
    if isinstance(pretrained, dict) and _are_sizes(pretrained.get("input_size"), 3):
        return Known(tuple(pretrained["input_size"]), CONFIG)
    channels = config.get("num_channels", config.get("in_channels", 3))
    for side, source in (
        (config.get("image_size"), CONFIG),
        (before.get("crop_size"), path.name),
        (before.get("size"), path.name),
    ):
        sizes = _square(side)
        if sizes and isinstance(channels, int):
            return Known((channels, *sizes), source)
    return None


def _square(side: Any) -> tuple[int, int] | None:
    """224, [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(side, dict):
        edge = side.get("shortest_edge")
        side = [side.get("height", edge), side.get("width", edge)]
    if isinstance(side, int):
        side = [side, side]
    return (side[0], side[1]) if _are_sizes(side, 2) else None


def _are_sizes(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(type(size) is int and 0 < size < 1 << 16 for size in value)
    )


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within this block, transformers and huggingface_hub do not use the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    constants: Any = None
    with contextlib.suppress(ImportError):
        constants = importlib.import_module("huggingface_hub.constants")
    was = getattr(constants, "HF_HUB_OFFLINE", None)
    if constants is not None:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if constants is not None:
            constants.HF_HUB_OFFLINE = was
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
