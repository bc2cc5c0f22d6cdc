"""What torch.save wrote: our own checkpoint, a state_dict, or a whole pickled module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from converter.errors import UserError
from converter.sources import (
    checkpoint,
    choosing,
    state_dict,
    torch_save,
    unwrapped,
    weight_sets,
)
from converter.sources.arch import importable_here
from converter.sources.loaded import Loaded, LoadOptions
from converter.sources.module import from_module


def load(path: Path, options: LoadOptions) -> Loaded:
    """Read a torch.save file.

    Raises:
        UserError: when it is damaged, needs `--trust-pickle` or `--arch`, or does not fit.
    """
    if options.trust_pickle:
        with importable_here():
            return _read(path, torch_save.content_of(path, trusted=options.trust_pickle), options)
    return _read(path, torch_save.content_of(path, trusted=options.trust_pickle), options)


def _read(path: Path, content: Any, options: LoadOptions) -> Loaded:
    """Tell the three kinds apart by their content."""
    if checkpoint.is_ours(content):
        require_no_choice(path, options)
        return checkpoint.load(path, content, options)
    found = None if options.arch else module_in(content, path, options.weights)
    if found is None:
        return state_dict.load(path, content, options, "a torch.save file")
    kind = f"a pickled {type(found.module).__name__}"
    loaded = from_module(found.module, path=path, kind=kind, options=options, pickled=True)
    loaded.notes[:0] = found.notes
    return loaded


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
    """The module that was saved: the only one, the averaged one of several, or the one under `key`.

    Raises:
        UserError: no name says which of several is meant, or there is no such key.
    """
    sets = weight_sets.find(content)
    among = sets if key is None else choosing.under(sets, key, path)
    modules = [s for s in among if s.module is not None and (s.tensors or not s.trail)]
    if not modules or (key is not None and len(modules) < len(among)):
        return None
    chosen = choosing.preferred(modules)
    if chosen is None or chosen.module is None:
        raise UserError(
            f"{path} holds several modules: {weight_sets.listed(modules)}. No name tells which is "
            "meant",
            f"say which: --weights {modules[0].label}",
        )
    module, wrappers = unwrapped.unwrap(chosen.module)
    notes = [f"the module under {chosen.label!r} was taken"] if chosen.trail else []
    if others := [s for s in sets if s is not chosen]:
        notes.append(f"not used: {weight_sets.listed(others)}; --weights NAME takes others")
    if wrappers:
        notes.append(f"{' and '.join(wrappers)} was taken off the module")
    return Found(module, notes)
