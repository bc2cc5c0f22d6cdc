"""A Keras model as a torch module whose scopes carry Keras' own names.

On its torch backend every Keras layer is a torch module, but layers call each other through
Keras' `Layer.__call__`, which torch's exporter does not see: it would put the whole network into
one scope and call the weights lifted_tensor_7. So each layer gets a `Scope`, a torch module of the
layer's name that owns its weights, and while the model runs here `Layer.__call__` goes through it.

Some layers are replaced by a single torch op (see `keras_calls`), but only while an exporter
traces: otherwise Keras computes what it always computes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing

from converter.sources.keras_calls import STATED


class Scope(nn.Module):
    """Represents one Keras layer to the exporter: its name, weights and sub-layers."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        # In a tuple: as an attribute torch would register the layer as a sub-module.
        self._layer = (layer,)

    def forward(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return call(self._layer[0], *args, **kwargs)


class KerasModule(nn.Module):
    """Calls a Keras model for inference with flat tensors, in the order of its inputs.

    Args:
        model: a built `keras.Model`.
        structure: how the model takes its inputs: one tensor, or a list or dict of them;
            None for a model that does not say, which gets them one by one.
        outputs: names of several outputs, in Keras' order; () for one. A dict has its own names.
    """

    def __init__(self, keras: Any, model: Any, structure: Any, outputs: Sequence[str]) -> None:
        super().__init__()
        self._keras = (keras,)
        self._model = (model,)
        self._structure = (structure,)
        self._outputs = tuple(outputs)
        self._scopes: dict[int, Scope] = {}
        self._weights: list[tuple[Any, Scope, str]] = []
        self._add_scopes(self, model)

    def forward(self, *inputs: Tensor) -> Any:
        model, keras, structure = self._model[0], self._keras[0], self._structure[0]
        args = (
            inputs if structure is None else (keras.tree.pack_sequence_as(structure, list(inputs)),)
        )
        if torch.compiler.is_exporting() or is_tracing():  # type: ignore[no-untyped-call]
            with keras.StatelessScope(self._current()), _traced_through(keras, self._scopes):
                result = model(*args, training=False)
        else:
            result = model(*args, training=False)
        if isinstance(result, dict):
            return result  # its keys are the outputs' names
        flat = keras.tree.flatten(result)
        if len(flat) == len(self._outputs):
            return dict(zip(self._outputs, flat, strict=True))
        return flat[0] if len(flat) == 1 else flat

    def _current(self) -> list[tuple[Any, Tensor]]:
        """Each Keras variable with the tensor that an exporter put in its parameter's place."""
        return [(variable, getattr(scope, name)) for variable, scope, name in self._weights]

    def _add_scopes(self, parent: nn.Module, layer: Any) -> set[int]:
        """Scopes for the layers below `layer`; returns the ids of the variables they own."""
        owned: set[int] = set()
        for child in getattr(layer, "_layers", ()):
            if id(child) in self._scopes or not hasattr(child, "variables"):
                owned |= {id(v) for v in getattr(child, "variables", ())}
                continue
            scope = self._scopes[id(child)] = Scope(child)
            parent.add_module(_free(parent, child.name), scope)
            below = self._add_scopes(scope, child)
            for variable in child.variables:
                if id(variable) not in below and isinstance(variable.value, nn.Parameter):
                    name = _free(scope, variable.name)
                    scope.register_parameter(name, variable.value)
                    self._weights.append((variable, scope, name))
            owned |= {id(v) for v in child.variables}
        return owned


def _free(module: nn.Module, name: str) -> str:
    """`name`, or the nearest one that a torch module can have: `add` is taken by torch."""
    name = name.replace(".", "_") or "_"
    while hasattr(module, name):
        name += "_"
    return name


@contextlib.contextmanager
def _traced_through(keras: Any, scopes: dict[int, Scope]) -> Iterator[None]:
    """Within this block, layers are called through their scopes, and some as a single op."""
    layer_class = keras.layers.Layer
    call_layer = layer_class.__call__

    def through_scope(layer: Any, *args: Any, **kwargs: Any) -> Any:
        scope = scopes.get(id(layer))
        return scope(call_layer, args, kwargs) if scope else call_layer(layer, *args, **kwargs)

    def stated(statement: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def as_one_op(layer: Any, *args: Any, **kwargs: Any) -> Any:
            return statement(call, layer, *args, **kwargs)

        return as_one_op

    classes = {getattr(keras.layers, name): statement for name, statement in STATED.items()}
    calls = {kind: kind.call for kind in classes}
    layer_class.__call__ = through_scope
    for kind, statement in classes.items():
        kind.call = stated(statement, calls[kind])
    try:
        yield
    finally:
        layer_class.__call__ = call_layer
        for kind, call in calls.items():
            kind.call = call
