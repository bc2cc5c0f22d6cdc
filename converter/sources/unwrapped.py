"""Take whole pickled modules out of the wrappers that training put around them.

torch.compile's wrapper would call a compiler at the first run, DistributedDataParallel asks for a
process group when it is unpickled, and timm's averages have no forward at all. Each holds the
network in one attribute, and only that network is used.
"""

from __future__ import annotations

import pickle  # noqa: TID251  only behind --trust-pickle
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

DISTRIBUTED = DistributedDataParallel.__module__, DistributedDataParallel.__qualname__


class _Distributed(nn.Module):
    """Stands in for a DistributedDataParallel: its state, without a process group."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        self._modules.update(state["_modules"])


class Unpickler(pickle.Unpickler):
    """Python's own, except for DistributedDataParallel. It runs whatever the pickle says."""

    def find_class(self, module: str, name: str) -> Any:
        return _Distributed if (module, name) == DISTRIBUTED else super().find_class(module, name)


class Pickle:
    """The part of the module `pickle` that torch.load uses."""

    __name__ = "pickle"
    Unpickler = Unpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()


def unwrap(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """The network without its wrappers and those of its parts, and the names of these wrappers."""
    names: dict[str, None] = {}
    module = _bare(module, names)
    for part in list(module.modules()):
        for name, child in part.named_children():
            bare = _bare(child, names)
            if bare is not child:
                setattr(part, name, bare)
    return module, list(names)


def _bare(module: nn.Module, names: dict[str, None]) -> nn.Module:
    while (inner := _inner(module)) is not None:
        kind = (
            "DistributedDataParallel" if isinstance(module, _Distributed) else type(module).__name__
        )
        names["torch.compile" if kind == "OptimizedModule" else kind] = None
        module = inner
    return module


def _inner(module: nn.Module) -> nn.Module | None:
    """What a wrapper wraps; None if the module is not a wrapper."""
    # Its class lies in a private module of torch whose import takes seconds.
    if type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules:
        return module._modules["_orig_mod"]
    if isinstance(module, DataParallel | DistributedDataParallel | AveragedModel | _Distributed):
        return module._modules["module"]
    # timm's ModelEmaV2 and the like: a module that holds another one, and cannot be called.
    if list(module._modules) == ["module"] and "forward" not in _methods(module):
        return module._modules["module"]
    return None


def _methods(module: nn.Module) -> set[str]:
    kinds = type(module).__mro__
    return {name for kind in kinds[: kinds.index(nn.Module)] for name in vars(kind)}
