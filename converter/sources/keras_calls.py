"""What some Keras layers compute, stated in one op of torch's, while a model is traced.

Keras' torch backend runs these layers as many small ops, or as a loop over time that an exporter
unrolls. Each function here computes the same map for inference with one op, because ONNX has a
node for it; where it cannot, it uses the layer's own `call`. Only the trace is changed: the
exported graph is compared with what Keras itself computes.

    BatchNormalization   (x - mean) * (rsqrt(var + eps) * gamma) + beta along one axis
    TimeDistributed      the layer at each of T steps = once on N*T samples
    LSTM                 gates i, f, c, o in Keras and i, f, g, o in torch: the same order
    GRU                  gates z, r, h in Keras and r, z, n in torch; h' = (1 - z)*n + z*h in both.
                         Only reset_after=True (the default) is torch's GRU.
    recurrent layers that torch does not have (GRU with reset_after=False, SimpleRNN, other
    activations) as ONNX's own node: see `keras_recurrent`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from converter.errors import UserError
from converter.sources import keras_recurrent

_FLOATS = (torch.float32, torch.float64)
Call = Callable[..., Any]


def batch_norm(call: Call, layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """x of shape (N, .., C at `layer.axis`, ..)."""
    if layer.trainable and (kwargs.get("training") or (args and args[0])):
        return call(layer, inputs, *args, **kwargs)
    x = inputs if inputs.dtype in _FLOATS else inputs.float()

    def parameter(variable: Any) -> Tensor:
        value: Tensor = variable.value
        return value if value.dtype == x.dtype else value.to(x.dtype)

    axis = layer.axis % x.ndim
    if axis == 0:
        raise UserError(
            f"the batch-norm {layer.name!r} normalises along axis 0, which is the batch",
            "its statistics belong to samples, not to channels: such a model cannot be served",
        )
    mean, var = parameter(layer.moving_mean), parameter(layer.moving_variance)
    gamma = parameter(layer.gamma) if layer.scale else torch.ones_like(var)
    beta = parameter(layer.beta) if layer.center else torch.zeros_like(mean)
    moved = x if axis == 1 else x.movedim(axis, 1)
    y = nn.functional.batch_norm(moved, mean, var, gamma, beta, False, 0.0, layer.epsilon)
    y = y if axis == 1 else y.movedim(1, axis)
    return y if inputs.dtype in _FLOATS else y.to(inputs.dtype)


def time_distributed(
    call: Call, layer: Any, inputs: Any, training: Any = None, mask: Any = None
) -> Any:
    """x of shape (N, T, ..); steps are samples to a layer at inference."""
    steps = inputs.shape[1] if isinstance(inputs, Tensor) else None
    if training or mask is not None or not isinstance(steps, int):
        return call(layer, inputs, training=training, mask=mask)
    result = layer.layer(inputs.flatten(0, 1))
    if not isinstance(result, Tensor):
        return call(layer, inputs, training=training, mask=mask)
    return result.reshape(inputs.shape[0], steps, *result.shape[1:])


def lstm(call: Call, layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
    """x of shape (N, T, I)."""
    if not _is_plain(layer, sequences, args, kwargs):
        return _as_node("LSTM", call, layer, sequences, *args, **kwargs)
    cell = layer.cell
    kernel, recurrent = cell.kernel.value, cell.recurrent_kernel.value
    weights = [kernel.t(), recurrent.t()]
    if cell.use_bias:
        bias = cell.bias.value
        weights += [bias, torch.zeros_like(bias)]
    x, zero = _start(layer, sequences)
    ys, h, c = torch.lstm(x, [zero, zero], weights, bool(cell.use_bias), 1, 0.0, False, False, True)
    return _results(layer, ys, [h[0], c[0]])


def gru(call: Call, layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
    """x of shape (N, T, I)."""
    cell = layer.cell
    if not cell.reset_after or not _is_plain(layer, sequences, args, kwargs):
        return _as_node("GRU", call, layer, sequences, *args, **kwargs)

    def gates(array: Tensor) -> Tensor:
        u = cell.units
        return torch.cat([array[..., u : 2 * u], array[..., :u], array[..., 2 * u :]], dim=-1)

    weights = [gates(cell.kernel.value).t(), gates(cell.recurrent_kernel.value).t()]
    if cell.use_bias:
        weights += [gates(cell.bias.value[0]), gates(cell.bias.value[1])]
    x, zero = _start(layer, sequences)
    ys, h = torch.gru(x, zero, weights, bool(cell.use_bias), 1, 0.0, False, False, True)
    return _results(layer, ys, [h[0]])


def simple_rnn(call: Call, layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
    """x of shape (N, T, I)."""
    return _as_node("RNN", call, layer, sequences, *args, **kwargs)


def _as_node(op: str, call: Call, layer: Any, sequences: Any, *args: Any, **kwargs: Any) -> Any:
    """As ONNX's node, which only torch.export can place; otherwise Keras' own loop."""
    functions = keras_recurrent.activations(op, layer.cell)
    if (
        functions is None
        or not torch.compiler.is_exporting()
        or not _from_zeros(layer, sequences, args, kwargs)
    ):
        return call(layer, sequences, *args, **kwargs)
    x = sequences.flip(1) if layer.go_backwards else sequences
    ys, state = keras_recurrent.node(op, layer.cell, x, functions)
    return _results(layer, ys, state)


def _from_zeros(layer: Any, sequences: Any, args: Any, kwargs: Any) -> bool:
    """Whether it starts from a state of zeros, without a mask."""
    given = {"initial_state": None, "mask": None} | kwargs
    return (
        isinstance(sequences, Tensor)
        and not args
        and given["initial_state"] is None
        and given["mask"] is None
        and not layer.stateful
    )


def _is_plain(layer: Any, sequences: Any, args: Any, kwargs: Any) -> bool:
    """Whether it is the textbook form of the layer, and starts from zeros."""
    cell = layer.cell
    names = (getattr(f, "__name__", "") for f in (cell.activation, cell.recurrent_activation))
    return _from_zeros(layer, sequences, args, kwargs) and tuple(names) == ("tanh", "sigmoid")


def _start(layer: Any, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """The sequence in the order in which it is read, and the initial state (1, N, units)."""
    x = sequences.flip(1) if layer.go_backwards else sequences
    return x, x.new_zeros((1, x.shape[0], layer.units))


def _results(layer: Any, ys: Tensor, state: list[Tensor]) -> Any:
    """The results as Keras returns them: the last step or all, and the state where asked for."""
    result = ys if layer.return_sequences else ys[:, -1]
    return (result, *state) if layer.return_state else result


# keras.layers.NAME -> what replaces its `call`.
STATED: dict[str, Callable[..., Any]] = {
    "BatchNormalization": batch_norm,
    "TimeDistributed": time_distributed,
    "LSTM": lstm,
    "GRU": gru,
    "SimpleRNN": simple_rnn,
}
