"""The architectures that a checkpoint may name: a closed table, never an import path.

A checkpoint says `{"architecture": "mnist_cnn", "arguments": {"width": 16}}` and `build` turns
that into a module. Names and arguments come from a file that may be anyone's, so both are
looked up here and bounded before anything is allocated.

Every network takes float32 pixels in [0, 1], shape (N, 1, 28, 28) unless the arguments say
another `input_shape`, and returns logits, shape (N, 10) unless they say other `classes`. No mean
and no std is subtracted: the first batch-norm does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from converter.architectures import libraries
from converter.architectures.rows import ARCHITECTURES, Architecture
from converter.architectures.style import Style, parse_style
from converter.architectures.task import Task, parse_task
from converter.errors import UserError

CLASSES = Task.classes
LARGEST = 1 << 28  # parameters, 1 GiB of float32
COMMON = ("style", "input_shape", "classes")  # arguments of every architecture


def complete(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check `arguments` of the architecture `name`, and return them as a checkpoint keeps them.

    Returns:
        Every size of the architecture, defaults filled in; and of `style`, `input_shape` and
        `classes` what differs from the defaults, as plain values.

    Raises:
        UserError: for an unknown name, an unknown argument, a size that is not an integer
            from 1 to the largest accepted one, or a style or task that cannot be.
    """
    style, task, sizes = _parse(name, arguments)
    found: dict[str, Any] = dict(sizes)
    if changes := style.changes():
        found["style"] = changes
    if task.input_shape != Task().input_shape:
        found["input_shape"] = list(task.input_shape)
    if task.classes != Task.classes:
        found["classes"] = task.classes
    return found


def lookup(name: str) -> Architecture:
    """The row of the table with this name. Raises UserError when there is none."""
    if libraries.is_library(name):
        return Architecture(
            make=libraries.for_task(name),
            arguments={},
            description=name.replace(":", "'s "),
            smallest=libraries.SMALLEST,
        )
    if name not in ARCHITECTURES:
        raise UserError(
            f"unknown architecture {name!r}{_did_you_mean(name, ARCHITECTURES)}",
            "known: "
            + "; ".join(f"{n}: {a.description}" for n, a in ARCHITECTURES.items())
            + "; timm:NAME and torchvision:NAME, where they are installed",
        )
    return ARCHITECTURES[name]


def build(
    name: str,
    /,
    *,
    style: Style | Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    **sizes: Any,
) -> nn.Module:
    """Make the architecture `name`, initialised from torch's global random generator.

    Args:
        name: a key of `ARCHITECTURES`.
        style: a `Style`, or those of its fields that differ from the defaults.
        input_shape: (channels, height, width), MNIST's (1, 28, 28) when None.
        classes: how many logits, 10 when None.
        sizes: integers; those left out take their defaults.

    Returns:
        A module in training mode, float32, on the CPU: (N, C, H, W) -> (N, classes) logits.

    Raises:
        UserError: see `complete`; and for a network of more than `LARGEST` parameters.
    """
    arguments = dict(sizes, style=style, input_shape=input_shape, classes=classes)
    chosen, task, checked = _parse(name, arguments)
    make = lookup(name).make
    count = _count(lambda: make(chosen, task, **checked))
    if count > LARGEST:
        raise UserError(
            f"{name!r} would have {count:,} parameters, more than {LARGEST:,}",
            "give smaller sizes, or smaller images",
        )
    module = make(chosen, task, **checked)
    if chosen.init_scale != 1:
        _scale_weights(module, chosen.init_scale)
    return module


def _count(make: Callable[[], nn.Module]) -> int:
    """How many parameters a network would have; nothing is allocated or drawn at random."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in make().parameters())
    except (RuntimeError, NotImplementedError):  # a library's that reads numbers as it is made
        return 0


def _parse(name: str, arguments: Mapping[str, Any]) -> tuple[Style, Task, dict[str, int]]:
    architecture = lookup(name)
    known = architecture.arguments
    for key, value in arguments.items():
        if key in COMMON:
            continue
        if key not in known:
            raise UserError(
                f"architecture {name!r} takes no argument {key!r}{_did_you_mean(key, known)}",
                "its arguments: "
                + "; ".join(f"{k} (default {s.default}): {s.meaning}" for k, s in known.items()),
            )
        largest = known[key].largest
        if type(value) is not int or not 1 <= value <= largest:  # True is an int, and no size
            raise UserError(
                f"argument {key!r} of architecture {name!r} is {value!r}",
                f"give an integer from 1 to {largest}: {known[key].meaning}",
            )
    style = parse_style(arguments.get("style"))
    task = parse_task(arguments.get("input_shape"), arguments.get("classes"))
    if min(task.height, task.width) < architecture.smallest:
        raise UserError(
            f"images of {task.height} by {task.width} are too small for {name!r}",
            f"it takes images of at least {architecture.smallest} by {architecture.smallest}",
        )
    return style, task, {key: arguments.get(key, size.default) for key, size in known.items()}


def _scale_weights(module: nn.Module, factor: float) -> None:
    """Multiply the weights of every linear op, the parameters of two axes and more."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.mul_(factor)


def _did_you_mean(word: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(str(word), known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""
