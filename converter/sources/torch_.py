"""What torch.save wrote: our own checkpoint, a state_dict, or a whole pickled module.

Only tensors, plain containers and the objects of `harmless` are unpickled (`weights_only=True`),
unless the user trusts the file: a pickle is a program, and loading it runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from converter.errors import UserError
from converter.sources import (
    checkpoint,
    choosing,
    harmless,
    pickles,
    state_dict,
    unwrapped,
    weight_sets,
)
from converter.sources.arch import importable_here
from converter.sources.loaded import Loaded, LoadOptions
from converter.sources.module import from_module
from converter.system.quiet import torch_quiet

_INSTEAD = (
    "unpickling runs whatever code the file holds. Where the model was made, save its "
    "state_dict() and pass --arch here, or use torch.export; --trust-pickle only if you trust "
    "whoever made the file"
)


def load(path: Path, options: LoadOptions) -> Loaded:
    """Read a torch.save file.

    Raises:
        UserError: when it is damaged, needs `--trust-pickle` or `--arch`, or does not fit.
    """
    if options.trust_pickle:
        with importable_here():
            return _read(path, content_of(path, options), options)
    return _read(path, content_of(path, options), options)


def content_of(path: Path, options: LoadOptions) -> Any:
    """What torch.save was given. A trusted pickle may need `importable_here()`.

    Raises:
        UserError: when it is damaged, or holds more than tensors and is not trusted.
    """
    try:
        seen = pickles.scan_file(path)
    except ValueError as error:
        raise UserError(
            f"{path} is a damaged torch.save file: {error}", "copy or download it again"
        ) from error
    if options.trust_pickle:
        return _unpickle(path, seen)
    whole = seen.root and seen.root in seen.foreign
    if whole:
        raise UserError(f"{path} is a whole pickled object of class {seen.root}", _INSTEAD)
    if seen.foreign:
        names = ", ".join(seen.foreign[:4]) + (" and others" if len(seen.foreign) > 4 else "")
        raise UserError(
            f"{path} holds more than tensors: unpickling it would import {names}", _INSTEAD
        )
    return tensors_of(path)


def tensors_of(path: Path) -> Any:
    """The file's content, which may only be tensors in plain containers, and what is harmless.

    Raises:
        UserError: when it is anything else, or damaged.
    """
    try:
        with torch_quiet(), harmless.allowed():
            # Not mapped into memory (mmap=True): that neither checks sizes nor checksums.
            return harmless.settle(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a hostile file may raise anything
        # torch wraps it in advice to run the file; what it found stands in the error before.
        message = str(error.__context__ or error).split("\n")[0]
        message = message.partition(" was not an allowed global")[0]
        if message.startswith("Unsupported operand"):
            raise UserError(
                f"{path} was saved with a pickle_protocol that torch reads only as a whole program",
                "save it again with torch's own: torch.save(state_dict, path). " + _INSTEAD,
            ) from error
        raise UserError(f"{path} cannot be read as tensors: {message}", _INSTEAD) from error


def _unpickle(path: Path, seen: pickles.Scan) -> Any:
    """Run the pickle. Only called when the user said that the file is trusted."""
    try:
        with torch_quiet():
            return torch.load(
                path, map_location="cpu", weights_only=False, pickle_module=unwrapped.Pickle
            )
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f"{path} needs code that is not here: {error}",
            f"run in the folder of the model's code, or install it; the file names "
            f"{', '.join(seen.foreign[:4]) or 'nothing unusual'}",
        ) from error
    except Exception as error:
        raise UserError(f"{path} cannot be unpickled: {error}") from error


def _read(path: Path, content: Any, options: LoadOptions) -> Loaded:
    """Tell the three apart by what is in them."""
    if is_checkpoint(content):
        require_no_choice(path, options)
        return checkpoint.load(path, content, options)
    found = None if options.arch else module_in(content, path, options.weights)
    if found is None:
        return state_dict.load(path, content, options, "a torch.save file")
    kind = f"a pickled {type(found.module).__name__}"
    loaded = from_module(found.module, path=path, kind=kind, options=options, pickled=True)
    loaded.notes[:0] = found.notes
    return loaded


def is_checkpoint(content: Any) -> bool:
    """Whether it says that it is a checkpoint of ours, of whatever version."""
    return isinstance(content, dict) and str(content.get("format")).startswith(checkpoint.FAMILY)


def require_no_choice(path: Path, options: LoadOptions) -> None:
    """Raises UserError when `--weights` chooses where there is nothing to choose from."""
    if options.weights is not None:
        raise UserError(
            f"--weights {options.weights}: {path} holds one set of weights only", "leave it out"
        )


@dataclass(frozen=True)
class Found:
    """A module of a trusted pickle, without its wrappers, and what was done."""

    module: nn.Module
    notes: list[str]


def module_in(content: Any, path: Path, key: str | None) -> Found | None:
    """The module that was saved: alone, or of several the averaged one, or that under `key`.

    Raises:
        UserError: no name tells which of several is meant, or there is no such key.
    """
    sets = weight_sets.find(content)
    among = sets if key is None else choosing.under(sets, key, path)
    modules = [s for s in among if s.module is not None and (s.tensors or not s.trail)]
    if not modules or (key is not None and len(modules) < len(among)):
        return None
    chosen = choosing.preferred(modules)
    if chosen is None or chosen.module is None:
        raise UserError(
            f"{path} holds several modules: {choosing.listed(modules)}. No name tells which is "
            "meant",
            f"say which: --weights {modules[0].label}",
        )
    module, wrappers = unwrapped.unwrap(chosen.module)
    notes = [f"the module under {chosen.label!r} was taken"] if chosen.trail else []
    if others := [s for s in sets if s is not chosen]:
        notes.append(f"not used: {choosing.listed(others)}; --weights NAME takes others")
    if wrappers:
        notes.append(f"{' and '.join(wrappers)} was taken off the module")
    return Found(module, notes)
