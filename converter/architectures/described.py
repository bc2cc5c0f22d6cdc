"""The network that a checkpoint describes: an architecture by name, and the heads put on it.

Everything here comes from a file that may be anyone's. An architecture is one of our own table,
or a name in timm or torchvision, which build it without weights; never an import path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from converter.architectures import libraries, table
from converter.architectures.modules import evaluating
from converter.architectures.rows import ARCHITECTURES
from converter.errors import UserError, gist

# Arguments of timm and torchvision that a checkpoint may give: whole numbers, bounded.
LIBRARY_ARGUMENTS = {"num_classes": 100_000, "in_chans": 16, "img_size": 1024}
LARGEST_HIDDEN = 1 << 14
LARGEST_CLASSES = 100_000
MOST_HEADS = 8


@dataclass(frozen=True)
class Head:
    """What replaces the last dense layer.

    Attributes:
        at: the name of the layer that is replaced, an nn.Linear of F features.
        hidden: H of dense F-H, batch-norm, ReLU, dense H-classes; 0 for a single dense layer.
        classes: how many logits.
    """

    at: str
    hidden: int
    classes: int

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def build(architecture: str, arguments: Mapping[str, Any], heads: Sequence[Any] = ()) -> nn.Module:
    """The network with fresh weights, on the CPU, in training mode.

    Args:
        architecture: a name of `rows.ARCHITECTURES`, `timm:NAME` or `torchvision:NAME`.
        arguments: of the architecture.
        heads: dictionaries of the fields of `Head`, put on one after the other.

    Raises:
        UserError: an unknown name or argument, or a head that does not fit.
    """
    library, colon, name = architecture.partition(":")
    # `train` says of a library's network what its data is, `finetune` what the library takes.
    if not colon or arguments.keys() & {"input_shape", "classes"}:
        module = table.build(architecture, **table.complete(architecture, arguments))
    elif libraries.is_library(architecture):
        with libraries.refusals(architecture, arguments):
            module = libraries.build(library, name, _bounded(architecture, arguments))
    else:
        raise UserError(
            f"architecture {architecture!r} is not a name that a checkpoint may give",
            "known: " + ", ".join([*ARCHITECTURES, "timm:NAME", "torchvision:NAME"]),
        )
    if len(heads) > MOST_HEADS:
        raise UserError(f"the checkpoint puts {len(heads)} heads on its network")
    for head in heads:
        attach(module, parse_head(head))
    return module


def parse_head(content: Any) -> Head:
    """A head from plain values. Raises UserError."""
    if not isinstance(content, Mapping) or content.keys() != {"at", "hidden", "classes"}:
        raise UserError("a head of the checkpoint is not described by at, hidden and classes")
    for key, smallest, largest in (
        ("hidden", 0, LARGEST_HIDDEN),
        ("classes", 2, LARGEST_CLASSES),
    ):
        value = content[key]
        if type(value) is not int or not smallest <= value <= largest:
            raise UserError(
                f"a head's {key!r} is {value!r}", f"give an integer from {smallest} to {largest}"
            )
    if type(content["at"]) is not str or not content["at"]:
        raise UserError(f"a head's 'at' is {content['at']!r}", "give the name of a dense layer")
    return Head(**content)


def attach(module: nn.Module, head: Head) -> nn.Module:
    """Replace the dense layer `head.at` of `module` by a new head, and return that.

    The new layers are called dense, bn, relu and out, or it is a single dense layer. The first
    dense has no bias: the batch-norm behind it would subtract it again.

    Raises:
        UserError: there is no such layer, or it is not dense.
    """
    try:
        old = module.get_submodule(head.at)
    except AttributeError as error:
        raise UserError(f"the network has no layer {head.at!r} to put a head on") from error
    if type(old) is not nn.Linear:
        raise UserError(
            f"{head.at!r} is a {type(old).__name__}, and a head replaces a dense layer (Linear)",
            "name one with --head-at",
        )
    new = _layers(old.in_features, head)
    owner, _, name = head.at.rpartition(".")
    setattr(module.get_submodule(owner), name, new)
    return new


def _layers(features: int, head: Head) -> nn.Module:
    if not head.hidden:
        return nn.Linear(features, head.classes)
    return nn.Sequential(
        OrderedDict(
            dense=nn.Linear(features, head.hidden, bias=False),
            bn=nn.BatchNorm1d(head.hidden),
            relu=nn.ReLU(),
            out=nn.Linear(head.hidden, head.classes),
        )
    )


def classifier(module: nn.Module, x: Tensor) -> str:
    """The name of the dense layer whose result is the network's.

    Raises:
        UserError: the last thing that the network does is something else, or it does not run.
    """
    results: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, y, name=name: results.append((name, y)))
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear
    ]
    try:
        with evaluating(module):
            output = module(x)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UserError(
            f"the network does not run on images {tuple(x.shape[1:])}: {gist(error)}",
            "give an architecture for such images (timm: --arch-arg in_chans=1 for gray ones), or "
            "images of the size that it was made for",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    found = next((name for name, y in reversed(results) if y is output), None)
    if found is None:
        raise UserError(
            "the network's result is not that of a dense layer (Linear)",
            "say which layer a new head replaces: --head-at NAME",
        )
    return found


def _bounded(architecture: str, arguments: Mapping[str, Any]) -> dict[str, int]:
    for key, value in arguments.items():
        largest = LIBRARY_ARGUMENTS.get(key)
        if largest is None or type(value) is not int or not 1 <= value <= largest:
            raise UserError(
                f"argument {key!r} of {architecture!r} is {value!r}",
                "a checkpoint may give "
                + ", ".join(f"{k} up to {n:,}" for k, n in LIBRARY_ARGUMENTS.items()),
            )
    return dict(arguments)
