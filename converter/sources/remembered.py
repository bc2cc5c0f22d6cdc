"""Undo what a module stores during a run.

Detectors keep their grid of anchors in an attribute until the size of the image changes, and
others cache masks and positions in a dictionary. A run before the export would leave a grid for
its own batch, which then becomes a constant of the graph; and an exporter that calls the module
twice, or fails, leaves symbols where numbers were, on which the next call fails.

Some libraries register hooks on their layers in the first run, and note in an attribute that they
did. When that attribute is restored, the hooks must be removed too, or the next run has them twice.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from converter.system.quiet import torch_quiet

_CONTAINERS = (list, dict, set, OrderedDict)
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
# The attributes that every module has are torch's: exporters put their own tensors there meanwhile.
_TORCHS = frozenset(vars(nn.Module())) | {"forward"}


class Memory:
    """The attributes of every layer as they are when this is made, and the buffers' values.

    Lists, dicts and sets with their elements. What lies deeper (in an object of the author's own
    class) is not noted.
    """

    def __init__(self, module: nn.Module) -> None:
        scripted = isinstance(module, torch.jit.ScriptModule)
        self._states = [] if scripted else [vars(layer) for layer in module.modules()]
        self._before = [
            {key: (value, _copy(value)) for key, value in state.items()} for state in self._states
        ]
        self._buffers = [(b, b.clone(), b._version) for b in module.buffers() if _counts(b)]

    def restore(self) -> None:
        """Restore everything, including torch's own attributes and the buffers' values."""
        self._attributes(frozenset())
        for buffer, old, version in self._buffers:
            if buffer._version != version:
                buffer.detach().copy_(old)

    def authors(self, *_: Any) -> None:
        """Restore only what the author's code stores; may be called while an exporter works."""
        self._attributes(_TORCHS)

    def _attributes(self, spared: frozenset[str]) -> None:
        for state, values in zip(self._states, self._before, strict=True):
            for key in [key for key in state if key not in values and key not in spared]:
                del state[key]
            for key, (value, copy) in values.items():
                if key not in spared:
                    _restore(value, copy)
                    state[key] = value


class _Hooks:
    """Every layer's hooks at the start of a call; those that it adds are removed at its end.

    An exporter adds its own between the calls, and those stay.
    """

    def __init__(self, module: nn.Module) -> None:
        self._states = [vars(layer) for layer in module.modules()]
        self._before: list[tuple[Any, Any]] = []

    def note(self, *_: Any) -> None:
        found = [state[name] for state in self._states for name in _HOOKS if name in state]
        self._before = [(hooks, hooks.copy()) for hooks in found]

    def restore(self, *_: Any) -> None:
        for hooks, copy in self._before:
            for key in [key for key in hooks if key not in copy]:
                del hooks[key]


@contextlib.contextmanager
def forgotten(module: nn.Module) -> Iterator[None]:
    """Each call in this block starts from the module's old state, which is restored at its end."""
    memory = Memory(module)
    ours = []
    if not isinstance(module, torch.jit.ScriptModule):
        hooks = _Hooks(module)
        ours = [
            module.register_forward_pre_hook(memory.authors),
            module.register_forward_pre_hook(hooks.note),
            module.register_forward_hook(hooks.restore, always_call=True),
        ]
    try:
        yield
    finally:
        for hook in ours:
            hook.remove()
        memory.restore()


def outputs_of(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """What the module returns; the run changes nothing in the module."""
    memory = Memory(module)
    try:
        with torch.no_grad(), torch_quiet():
            return module(*args, **kwargs)
    finally:
        memory.restore()


def _counts(tensor: torch.Tensor) -> bool:
    """Whether torch counts the changes of this tensor."""
    return not tensor.is_inference()


def _copy(value: Any) -> Any:
    """A copy of a plain container, one level deep; anything else itself."""
    return value.copy() if type(value) in _CONTAINERS else value


def _restore(value: Any, copy: Any) -> None:
    """Give a container its former elements, in place: others may hold the same container."""
    if value is copy:
        return
    value.clear()
    (value.extend if isinstance(value, list) else value.update)(copy)
