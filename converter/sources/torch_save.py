"""The content of a torch.save file: plain values, or, if trusted, whatever a pickle makes.

Only tensors, plain containers and the objects of `harmless` are unpickled (`weights_only=True`),
unless the user trusts the file: a pickle is a program, and loading it runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from converter.errors import UserError, first_line
from converter.sources import harmless, pickles, unwrapped
from converter.system.quiet import torch_quiet

_INSTEAD = (
    "unpickling runs whatever code the file holds. Where the model was made, save its "
    "state_dict() and pass --arch here, or use torch.export; --trust-pickle only if you trust "
    "whoever made the file"
)


def content_of(path: Path, *, trusted: bool = False) -> Any:
    """The content of the file. A trusted pickle may need `importable_here()`.

    Raises:
        UserError: when it is damaged, or holds more than tensors and is not trusted.
    """
    try:
        seen = pickles.scan_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(
            f"{path} is a damaged torch.save file: {error}", "copy or download it again"
        ) from error
    if trusted:
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
            # Not mapped into memory (mmap=True): that checks neither sizes nor checksums.
            return harmless.settle(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a hostile file may raise anything
        # torch wraps it in advice to run the file; the cause is in the first error.
        message = first_line(error.__context__ or error)
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
