"""Networks of timm and torchvision by name, for fine-tuning: `timm:resnet18`.

A closed table as well: a name must be one that the library registers for classification, weights
are never downloaded, and nothing but the number of classes and of channels is passed on. Their
norms, activations and initial weights are their own, so that they take no style.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from converter.errors import UserError
from converter.training.architectures.style import Style
from converter.training.architectures.task import Task

SMALLEST = 32  # height and width; few of them survive their poolings with less
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
# In training these give a second, auxiliary output unless they are told not to.
_AUXILIARY: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "googlenet": {"aux_logits": False, "init_weights": True},
        "inception_v3": {"aux_logits": False, "init_weights": True},
    }
)


class Repeated(nn.Module):
    """A network for three channels that gets images of one: each channel is that one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, classes)."""
        y = self.network(x.expand(-1, 3, -1, -1))
        assert isinstance(y, Tensor)
        return y


def is_library(name: str) -> bool:
    """Whether the name has the form LIBRARY:NETWORK of one of the libraries."""
    return name.partition(":")[0] in _MAKERS and ":" in name


def maker(name: str) -> Callable[[Style, Task], nn.Module]:
    """What builds the network `name`, freshly initialised.

    Raises:
        UserError: when the library is not installed, does not fit this torch, or has no such
            network for classification. What is returned raises it for a style, and for images
            that the network cannot take.
    """
    library, _, network = name.partition(":")
    return _MAKERS[library](network)


def _timm(network: str) -> Callable[[Style, Task], nn.Module]:
    timm = _library("timm")
    _require_known("timm", network, timm.list_models())

    def make(style: Style, task: Task) -> nn.Module:
        _require_plain(style)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations within the library
            made: nn.Module = timm.create_model(
                network, pretrained=False, num_classes=task.classes, in_chans=task.channels
            )
        return made

    return make


def _torchvision(network: str) -> Callable[[Style, Task], nn.Module]:
    models = _library("torchvision").models
    _require_known("torchvision", network, models.list_models(module=models))

    def make(style: Style, task: Task) -> nn.Module:
        _require_plain(style)
        if task.channels not in {1, 3}:
            raise UserError(
                f"torchvision's networks take images of three channels, not {task.channels}",
                f"timm's take any number: timm:{network}",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = models.get_model(
                network, weights=None, num_classes=task.classes, **_AUXILIARY.get(network, {})
            )
        return made if task.channels == 3 else Repeated(made)

    return make


_MAKERS: Mapping[str, Callable[[str], Callable[[Style, Task], nn.Module]]] = MappingProxyType(
    {"timm": _timm, "torchvision": _torchvision}
)


def _library(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{name} is not installed", f"pip install {name}, of the version for your torch"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:  # its compiled operators are for another
        raise UserError(
            f"{name} cannot be imported: {error}",
            "it and torch must be builds for each other: install both from the same index",
        ) from error


def _require_known(library: str, network: str, known: list[str]) -> None:
    """timm itself would take `hf-hub:` names and look them up on the internet."""
    if network in known and _NAME.fullmatch(network):
        return
    near = get_close_matches(network, known, n=3)
    raise UserError(
        f"{library} has no network {network!r} for classification",
        "did you mean " + ", ".join(near) + "?" if near else f"it has {len(known)} others",
    )


def _require_plain(style: Style) -> None:
    if changes := style.changes():
        raise UserError(
            f"a network of a library takes no style, {', '.join(changes)} was given",
            "its norms and activations are its own",
        )
