"""Weights without their network: find them in the file, build `--arch`, and fit one to the other.

Rules for finding, in this order: the keys of `WRAPPERS` are looked into, averaged weights first;
`module.` (DataParallel) and `_orig_mod.` (torch.compile) are taken off the names. Of several
networks under other keys, the one is taken whose names and shapes are those of `--arch`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from converter.errors import UserError
from converter.sources import arch
from converter.sources.examples import Known
from converter.sources.loaded import Loaded, LoadOptions
from converter.sources.module import from_module

# Where training scripts keep weights. The averaged ones are those that were evaluated.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Rebuilt:
    """`--arch` with the file's weights, what its library tells of its input, and what was done."""

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
    parts = parts_of(content)
    if len(parts) > 1 and options.arch:
        return _rebuild_part(path, parts, options)
    if len(parts) > 1:
        raise UserError(
            f"{path} holds the weights of several networks: {_listed(parts)}",
            "say one of them: --arch timm:resnet50 or --arch package.module:factory",
        )
    tensors, notes = find(next(iter(parts.values()), content), path)
    if not options.arch:
        raise UserError(
            f"{path} is a state_dict: {describe(tensors)}. It holds weights, not the network",
            "say which network: --arch timm:resnet50, --arch torchvision:resnet18 or "
            "--arch package.module:factory, with --arch-arg name=value for its arguments",
        )
    built = arch.build(options.arch, options.arch_args)
    tensors, more = _unwrap_common_prefix(tensors, built.module)
    uncounted = fill(built.module, tensors, str(path), options.arch)
    return Rebuilt(built.module, built.known, uncounted, notes + more)


def parts_of(content: Any) -> dict[str, Mapping[str, Any]]:
    """The networks of a checkpoint that holds several, under names of its own: a generator and a
    discriminator, a student and a teacher. None where a key of `WRAPPERS` tells which is meant."""
    if not isinstance(content, Mapping) or is_state_dict(content):
        return {}
    if any(_has_tensors(content.get(key)) for key in WRAPPERS):
        return {}
    return {str(key): value for key, value in content.items() if is_state_dict(value)}


def _rebuild_part(
    path: Path, parts: Mapping[str, Mapping[str, Any]], options: LoadOptions
) -> Rebuilt:
    """The one of several networks whose names and shapes are those of `--arch`."""
    assert options.arch
    built = arch.build(options.arch, options.arch_args)
    wanted = {k: v.shape for k, v in built.module.state_dict().items() if isinstance(v, Tensor)}
    fitting = []
    for key, content in parts.items():
        tensors, notes = find(content, path)
        tensors, more = _unwrap_common_prefix(tensors, built.module)
        if all(wanted.get(k) == v.shape for k, v in tensors.items()) and all(
            k in tensors or k.endswith(COUNTER) for k in wanted
        ):
            fitting.append((key, tensors, notes + more))
    if len(fitting) != 1:
        raise UserError(
            f"{path} holds the weights of several networks: {_listed(parts)}. "
            f"{'More than one' if fitting else 'None'} of them is that of {options.arch}",
            "save the state_dict() of the one that is meant alone: torch.save(..., path)"
            if fitting
            else "choose the --arch and --arch-arg values that one of them was trained with",
        )
    key, tensors, notes = fitting[0]
    others = ", ".join(repr(other) for other in parts if other != key)
    also = f" (not used: {others})" if others else ""
    uncounted = fill(built.module, tensors, str(path), options.arch)
    note = f"the weights under {key!r} were taken, which are those of {options.arch}{also}"
    return Rebuilt(built.module, built.known, uncounted, [note, *notes])


def _listed(parts: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{key!r} ({len(part)} tensors)" for key, part in parts.items())


def find(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The named tensors in what a file held, and notes on where they were.

    Raises:
        UserError: when there are none.
    """
    notes = []
    trail = ""
    while not is_state_dict(content):
        inner = next(
            (k for k in WRAPPERS if isinstance(content, Mapping) and _has_tensors(content.get(k))),
            None,
        )
        if inner is None:
            what = (
                f"its keys are {', '.join(map(repr, list(content)[:8]))}"
                if isinstance(content, Mapping)
                else f"it is a {type(content).__name__}"
            )
            raise UserError(
                f"{path} holds no weights where they are looked for: {what}",
                "save the model's state_dict() alone: torch.save(model.state_dict(), path)",
            )
        others = [k for k in WRAPPERS if k != inner and _has_tensors(content.get(k))]
        trail += f"[{inner!r}]"
        also = f" (not used: {', '.join(map(repr, others))})" if others else ""
        notes = [f"the weights under {trail} were taken{also}"]
        content = content[inner]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    tensors.pop("n_averaged", None)  # the counter of torch.optim.swa_utils.AveragedModel
    stripped = {_strip(name): tensor for name, tensor in tensors.items()}
    if stripped.keys() != tensors.keys() and len(stripped) == len(tensors):
        prefixes = " and ".join(
            p for p in ("module.", "_orig_mod.") if any(p in n for n in tensors)
        )
        notes.append(f"{prefixes} was taken off the weights' names")
        tensors = stripped
    return tensors, notes


def is_state_dict(content: Any) -> bool:
    """Names -> tensors and nothing else, but for the `_extra_state` that modules may add."""
    return (
        isinstance(content, Mapping)
        and any(isinstance(value, Tensor) for value in content.values())
        and all(
            isinstance(key, str)
            and (isinstance(value, Tensor) or key.endswith("_extra_state") or key == "n_averaged")
            for key, value in content.items()
        )
    )


def _has_tensors(value: Any) -> bool:
    return is_state_dict(value) or (
        isinstance(value, Mapping) and any(is_state_dict(value.get(key)) for key in WRAPPERS)
    )


def _strip(name: str) -> str:
    return re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", ""))


def _unwrap_common_prefix(
    tensors: dict[str, Tensor], module: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Lightning and kin keep the network as `self.model`: such a prefix comes off if that fits."""
    prefixes = {name.partition(".")[0] + "." for name in tensors}
    if len(prefixes) != 1:
        return tensors, []
    (prefix,) = prefixes
    wanted = module.state_dict().keys()
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if tensors.keys() & wanted or not inner.keys() & wanted:
        return tensors, []
    return inner, [f"{prefix} was taken off the weights' names"]


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
    missing = [k for k in wanted if k not in tensors and not k.endswith(COUNTER)]
    unexpected = [k for k in tensors if k not in wanted]
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in tensors and not is_lazy(v) and tensors[k].shape != v.shape
    ]
    complaints = [
        f"{len(items)} {words}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}"
        for items, words in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            (shapes, "of another shape"),
        )
        if items
    ]
    if complaints:
        raise UserError(
            f"the weights of {where} are not those of {what}: {'; '.join(complaints)}",
            _advice(wanted, tensors),
        )
    absent = [k for k in wanted if k.endswith(COUNTER) and k not in tensors]
    # torch keeps the versions of the modules beside the tensors, and some modules insist on
    # them; prefixes taken off and other formats lose them. Names and shapes fit today's.
    state = module.state_dict()
    state.update(dict(tensors) | {k: wanted[k] for k in absent})
    try:
        module.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the weights of {where} do not load into {what}: {error}") from error
    return frozenset(k.removesuffix(COUNTER).removesuffix(".") for k in absent)


def _advice(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What the shapes give away: the number of classes, of input channels, or another network."""
    differing = [
        (tensors[name], tensor)
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    sizes = {(file.shape[:1], built.shape[:1]) for file, built in differing}
    if len(sizes) == 1 and all(file.shape[1:] == built.shape[1:] for file, built in differing):
        classes = differing[-1][0].shape[0]
        return f"the file's classifier has {classes} outputs: try --arch-arg num_classes={classes}"
    if len(differing) == 1 and differing[0][0].ndim >= 3:
        channels = differing[0][0].shape[1]
        return f"the file's first layer takes {channels} channels: --arch-arg in_chans={channels}?"
    return "choose the --arch and --arch-arg values that the weights were trained with"
