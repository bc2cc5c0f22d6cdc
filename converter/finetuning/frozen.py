"""Batch-norms whose statistics never change, even after `train()`.

`requires_grad_(False)` freezes what is learned, γ and β, but not the statistics: in training mode
those are updated by every batch, and `model.train()`, which every training loop calls before every
epoch, puts a batch-norm that was set to `eval()` back into training mode. A frozen batch-norm here
is another module, which has no training mode:

    y = (x − μ) / sqrt(σ² + ε) · γ + β        μ, σ², ε constants

It keeps the names of the tensors, so its weights load into the original batch-norm.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from converter.errors import UserError
from converter.finetuning.options import Mode
from converter.statistics.norms import find


class Frozen:
    """Makes a norm a frozen one: it is never in training mode, and cannot be put into it."""

    @property
    def training(self) -> bool:
        """Always False."""
        return False

    @training.setter
    def training(self, mode: bool) -> None:
        """Ignored: `train()` sets this on every module."""


class FrozenBatchNorm1d(Frozen, nn.BatchNorm1d):
    """A frozen batch-norm of (N, C) or (N, C, L)."""


class FrozenBatchNorm2d(Frozen, nn.BatchNorm2d):
    """A frozen batch-norm of (N, C, H, W)."""


class FrozenBatchNorm3d(Frozen, nn.BatchNorm3d):
    """A frozen batch-norm of (N, C, D, H, W)."""


def freeze(module: nn.Module, mode: str) -> list[str]:
    """Replace every norm with running statistics in `module` by a frozen one, in place.

    Args:
        mode: "stats": the statistics are fixed, γ and β are still trained. "all": γ and β are
            constants as well. "none": nothing is replaced.

    Returns:
        The names of the norms that were replaced.

    Raises:
        UserError: the mode is unknown, or the module itself is a norm.
    """
    if mode not in get_args(Mode):
        raise UserError(f"--freeze-bn is {mode!r}", "give " + ", ".join(get_args(Mode)))
    if mode == "none":
        return []
    if isinstance(module, _NormBase):
        raise UserError("the network is a single norm, which cannot be replaced in itself")
    names = thawed(module)
    made = {
        norm: frozen(norm, constant=mode == "all")
        for name, norm in find(module).tracked.items()
        if name in names
    }
    # A norm that several modules share is replaced in each of them.
    for part in list(module.modules()):
        for key, child in list(part._modules.items()):
            if isinstance(child, _NormBase) and child in made:
                part._modules[key] = made[child]
    return names


def frozen(norm: _NormBase, *, constant: bool) -> nn.Module:
    """A frozen norm that shares the tensors of `norm`.

    A class of another library (with an activation in it, say) keeps its behaviour except the mode.

    Args:
        constant: γ and β become buffers, which no optimizer sees and `requires_grad_` skips.
    """
    made: nn.Module = object.__new__(_frozen_class(type(norm)))  # type: ignore[arg-type]
    state: dict[str, Any] = dict(vars(norm))
    state.pop("training")
    # The tables are copied, so that an entry added to one does not appear in the other.
    made.__dict__.update({k: v.copy() if isinstance(v, dict) else v for k, v in state.items()})
    for key in ("weight", "bias"):
        value = getattr(norm, key)
        if constant and isinstance(value, nn.Parameter):
            delattr(made, key)
            made.register_buffer(key, value.detach())
    return made


@cache
def _frozen_class(kind: type[nn.Module]) -> type[nn.Module]:
    for own in (FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d):
        if kind is own.__mro__[2]:
            return own
    return type(f"Frozen{kind.__name__}", (Frozen, kind), {"__doc__": f"{kind.__name__}, frozen."})


def thawed(module: nn.Module) -> list[str]:
    """Names of the norms with running statistics that a training would change."""
    return [n for n, norm in find(module).tracked.items() if not isinstance(norm, Frozen)]
