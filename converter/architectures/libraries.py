"""Networks of timm and torchvision by name, built with random weights: `timm:resnet18`.

A name must be one that the library registers, and weights are never downloaded. As architectures
to train (`for_task`) they are told nothing but the number of classes and of channels; their
norms, activations and initial weights are their own, so that they take no style.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from converter.architectures.style import Style
from converter.architectures.task import Task
from converter.errors import UserError, gist

SMALLEST = 32  # height and width; few of them survive their poolings with less
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
    library, colon, _ = name.partition(":")
    return bool(colon) and library in BUILDERS


def build(library: str, network: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of any purpose with random weights, as the library makes it.

    Raises:
        UserError: the library is not installed, does not fit this torch or has no such network,
            or an argument would load weights. What the library itself raises is passed on: see
            `refusals`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations within the library
        return BUILDERS[library](network, arguments)


def for_task(name: str) -> Callable[[Style, Task], nn.Module]:
    """What builds the network `name` for classification.

    Raises:
        UserError: see `build`. What is returned raises it for a style, and for images that the
            network cannot take.
    """
    library, _, network = name.partition(":")
    found = imported(library)
    known = found.list_models() if library == "timm" else found.models.list_models(found.models)
    if network not in known:  # timm itself would look `hf-hub:` names up on the internet
        raise unknown(network, library, known)
    return partial(_for_task, library, network)


def _for_task(library: str, network: str, style: Style, task: Task) -> nn.Module:
    if changes := style.changes():
        raise UserError(
            f"a network of a library takes no style, {', '.join(changes)} was given",
            "its norms and activations are its own",
        )
    arguments: dict[str, Any] = {"num_classes": task.classes}
    if library == "timm":
        return build(library, network, arguments | {"in_chans": task.channels})
    if task.channels not in {1, 3}:
        raise UserError(
            f"torchvision's networks take images of three channels, not {task.channels}",
            f"timm's take any number: timm:{network}",
        )
    made = build(library, network, arguments | _AUXILIARY.get(network, {}))
    return made if task.channels == 3 else Repeated(made)


def _timm(network: str, arguments: Mapping[str, Any]) -> nn.Module:
    timm = imported("timm")
    _never_download("timm", arguments, "pretrained", "pretrained_cfg", "checkpoint_path")
    if not timm.is_model(network):
        raise unknown(network, "timm", timm.list_models())
    made: nn.Module = timm.create_model(network, pretrained=False, **arguments)
    return made


def _torchvision(network: str, arguments: Mapping[str, Any]) -> nn.Module:
    models = imported("torchvision").models
    _never_download("torchvision", arguments, "weights", "weights_backbone", "pretrained")
    if network not in models.list_models():
        raise unknown(network, "torchvision", models.list_models())
    accepted = inspect.signature(models.get_model_builder(network)).parameters
    # Without these, a segmentation network would download its backbone.
    off = {key: None for key in ("weights", "weights_backbone") if key in accepted}
    made: nn.Module = models.get_model(network, **off | dict(arguments))
    return made


BUILDERS: Mapping[str, Callable[[str, Mapping[str, Any]], nn.Module]] = MappingProxyType(
    {"timm": _timm, "torchvision": _torchvision}
)


def imported(name: str) -> Any:
    """The library of that name. Raises UserError when it is missing or does not import."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{name} is not installed", f"pip install {name}") from error
    except Exception as error:  # importing runs code
        raise UserError(
            f"{name} cannot be imported: {gist(error)}",
            # timm imports torchvision, whose compiled operators are for one build of torch.
            "it and torch must be builds for each other: install both from the same index",
        ) from error


def unknown(network: str, library: str, known: list[str]) -> UserError:
    """The error for a name that a library does not have."""
    near = get_close_matches(network, known, n=3)
    return UserError(
        f"{library} has no model {network!r}",
        f"did you mean {', '.join(near)}?" if near else f"see {library}'s list of models",
    )


@contextmanager
def refusals(what: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Whatever a library raises while it builds a network becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(
            f"{what} cannot be built with ({given}): {type(error).__name__}: {error}",
            "its arguments are given as --arch-arg name=value",
        ) from error


def _never_download(library: str, arguments: Mapping[str, Any], *keys: str) -> None:
    if asked := [key for key in keys if arguments.get(key)]:
        raise UserError(
            f"--arch-arg {asked[0]} would load other weights than those of the file",
            f"leave it out: {library} only builds the network here",
        )
