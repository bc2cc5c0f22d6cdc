"""Weights without their network: find them in the file, build `--arch`, and fit one to the other.

`weight_sets` finds which sets of weights a file holds, `choosing` decides which of them is meant,
and `fitting` turns its names and forms into those of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from converter.errors import UserError
from converter.sources import arch, choosing, hub_config, mismatch, weight_sets
from converter.sources.fitting import COUNTER
from converter.sources.loaded import Known, Loaded, LoadOptions
from converter.sources.module import from_module
from converter.sources.weight_sets import WeightSet


@dataclass(frozen=True)
class Rebuilt:
    """`--arch` with the file's weights, the input that its library states, and what was done."""

    module: nn.Module
    known: Known | None
    uncounted: frozenset[str]
    notes: list[str]


def load(path: Path, content: Any, options: LoadOptions, kind: str) -> Loaded:
    """Build the architecture that the user named and give it the file's weights.

    Raises:
        UserError: when there are no weights, no `--arch`, or they do not fit.
    """
    with arch.importable_here():
        rebuilt = rebuild(path, content, options)
        loaded = from_module(
            rebuilt.module,
            path=path,
            kind=f"{kind} with weights of {options.arch}",
            options=options,
            known=rebuilt.known,
            uncounted=rebuilt.uncounted,
        )
    loaded.notes[:0] = rebuilt.notes
    return loaded


def rebuild(path: Path, content: Any, options: LoadOptions) -> Rebuilt:
    """The network itself. Call it in `arch.importable_here()`; raises as `load` does."""
    sets = find(content, path)
    if not options.arch:
        raise _no_network(path, sets, options.weights)
    folder = path if path.is_dir() else path.parent
    built = arch.build(options.arch, options.arch_args, folder)
    chosen = choosing.choose(sets, built.module, path, options.arch, options.weights)
    uncounted = fill(built.module, chosen.tensors, str(path), options.arch)
    return Rebuilt(built.module, built.known, uncounted, chosen.notes)


def find(content: Any, path: Path) -> list[WeightSet]:
    """The sets of weights in what a file held.

    Raises:
        UserError: when there are none.
    """
    sets = weight_sets.find(content)
    if not sets:
        what = (
            f"its keys are {', '.join(map(repr, list(content)[:8]))}"
            if isinstance(content, Mapping)
            else f"it is a {type(content).__name__}"
        )
        raise UserError(
            f"{path} holds no weights where they are looked for: {what}",
            "save the model's state_dict() alone: torch.save(model.state_dict(), path)",
        )
    return sets


def _no_network(path: Path, sets: list[WeightSet], key: str | None) -> UserError:
    """The refusal of a file that does not say what network its weights belong to."""
    if key is not None:
        sets = choosing.under(sets, key, path)
    chosen = choosing.preferred(sets)
    if chosen is None:
        return UserError(
            f"{path} holds the weights of several networks: {weight_sets.listed(sets)}",
            "say one of them: --arch timm:resnet50 or --arch package.module:factory",
        )
    others = [weights for weights in sets if weights is not chosen]
    also = f"; beside them {weight_sets.listed(others)}" if others else ""
    said = hub_config.named(path.parent)
    return UserError(
        f"{path} is a state_dict: {describe(chosen.tensors)}. It holds weights, not the "
        f"network{also}",
        f"config.json beside it says: --arch {said[0]}, or give the folder"
        if said
        else "say which network: --arch timm:resnet50, --arch torchvision:resnet18 or "
        "--arch package.module:factory, with --arch-arg name=value for its arguments",
    )


def describe(tensors: Mapping[str, Tensor]) -> str:
    """ "62 tensors (conv1.weight, bn1.weight, ...), 20 batch-norms"."""
    norms = sum(name.endswith("running_mean") for name in tensors)
    first = ", ".join(list(tensors)[:3])
    return f"{len(tensors)} tensors ({first}, ...), {norms} batch-norms"


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str, what: str) -> frozenset[str]:
    """Copy the tensors into the module. Every name and every shape must fit.

    Returns:
        The batch-norms whose counter the file does not have, as old files do not.

    Raises:
        UserError: listing what is missing, left over, or of another shape.
    """
    wanted = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    mismatch.check(tensors, wanted, where, what)
    absent = [k for k in wanted if k.endswith(COUNTER) and k not in tensors]
    # torch keeps the versions of the modules beside the tensors, and some modules require them;
    # renaming and other formats lose them. Names and shapes fit the current versions.
    state = module.state_dict()
    state.update(dict(tensors) | {k: wanted[k] for k in absent})
    try:
        module.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the weights of {where} do not load into {what}: {error}") from error
    return frozenset(k.removesuffix(COUNTER).removesuffix(".") for k in absent)
