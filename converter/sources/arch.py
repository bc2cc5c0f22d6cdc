"""`--arch`: which network the weights belong to, and how it is built, without any download."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from converter.architectures import libraries
from converter.errors import UserError, gist
from converter.sources import hub_config
from converter.sources.loaded import Known
from converter.system.quiet import torch_quiet


@dataclass(frozen=True)
class Built:
    """A network with random weights, and the input shape that its library states."""

    module: nn.Module
    known: Known | None = None


def build(arch: str, arguments: Mapping[str, Any], folder: Path | None = None) -> Built:
    """Build `timm:NAME`, `torchvision:NAME`, `transformers:CLASS` or `package.module:factory`.

    Args:
        folder: the folder of the weights; its config.json describes a transformers network.

    Raises:
        UserError: when the library is missing, the name is unknown, or building fails.
    """
    library, colon, name = arch.partition(":")
    if not colon or not library or not name:
        raise UserError(
            f"--arch {arch!r} is not of a form that is known",
            "timm:resnet50, torchvision:resnet18, transformers:CLASS or package.module:factory",
        )
    with torch_quiet(), libraries.refusals(f"--arch {arch}", arguments):
        if library == "transformers":
            return _from_transformers(name, dict(arguments), folder)
        if library not in libraries.BUILDERS:
            return Built(_from_factory(library, name, arguments))
        module = libraries.build(library, name, arguments)
        known = _of_timm(module, arguments) if library == "timm" else _of_torchvision(name)
        return Built(module, known)


def _of_timm(module: nn.Module, arguments: Mapping[str, Any]) -> Known | None:
    """The input shape that timm states for a network."""
    config: Any = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not config or not config.get("input_size"):
        return None
    channels, height, width = config["input_size"]
    side = arguments.get("img_size")
    if isinstance(side, int):
        height = width = side
    return Known((arguments.get("in_chans", channels), height, width), "timm")


def _of_torchvision(name: str) -> Known | None:
    """The input shape that the published weights were evaluated with.

    torchvision states it as partial(ImageClassification, crop_size=224); for detection there is
    a plain class, without a size.
    """
    try:
        transforms = (
            libraries.imported("torchvision").models.get_model_weights(name).DEFAULT.transforms
        )
    except (AttributeError, ValueError):
        return None
    side = getattr(transforms, "keywords", {}).get("crop_size")
    if not isinstance(side, int) or transforms.func.__name__ != "ImageClassification":
        return None
    return Known((3, side, side), "torchvision")


def _from_transformers(name: str, arguments: dict[str, Any], folder: Path | None) -> Built:
    """A class of transformers, built from the folder's config.json with random weights."""
    if folder is None or not (folder / hub_config.CONFIG).is_file():
        raise UserError(
            f"--arch transformers:{name} is built from the config.json beside the weights, and "
            f"there is none{f' in {folder}' if folder else ''}",
            "give the folder that save_pretrained wrote",
        )
    hub_config.config_of(folder)  # checks that it is JSON, and lies in this folder
    with hub_config.offline():
        transformers = libraries.imported("transformers")
        kind = getattr(transformers, name, None)
        if kind is None:
            raise libraries.unknown(
                name, "transformers", [n for n in dir(transformers) if "Model" in n]
            )
        # Without these arguments, parts of the network or its code would come from elsewhere.
        safe = {"local_files_only": True, "trust_remote_code": False}
        config = transformers.AutoConfig.from_pretrained(str(folder), **safe, **arguments)
        if getattr(config, "use_pretrained_backbone", False):
            config.use_pretrained_backbone = False
        make = kind.from_config if hasattr(kind, "from_config") else kind
        return Built(make(config), hub_config.known_input(folder))


def _from_factory(package: str, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """`package.module:factory`: a class or function that returns a module, or a module."""
    found: Any = _import(package)
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            raise UserError(
                f"--arch {package}:{name}: {package} has no {part!r}",
                f"did you mean {close[0]!r}?" if close else "name a class or function in it",
            )
        found = getattr(found, part)
    module = found if isinstance(found, nn.Module) and not arguments else found(**arguments)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"--arch {package}:{name} gives a {type(module).__name__}, not an nn.Module"
        )
    return module


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--arch needs the package {error.name!r}, which is not here",
            "run in the folder that holds it",
        ) from error
    except Exception as error:  # importing runs code
        raise UserError(
            f"--arch needs {name}, which cannot be imported: {gist(error)}",
            f"`python -c 'import {name}'` shows the whole error",
        ) from error


@contextlib.contextmanager
def importable_here() -> Iterator[None]:
    """Let imports find modules of the current folder, as `python -m` does."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
