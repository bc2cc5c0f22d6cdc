"""Recurrent layers that torch does not have, as the node that ONNX has for them.

    SimpleRNN                h' = f(x W + h R + b)
    GRU, reset_after=False   h~ = g(x Wh + (r*h) Rh + bh): ONNX' GRU with linear_before_reset = 0
    LSTM, GRU                with other activations than tanh and sigmoid

Keras' loop over time would be unrolled, and the number of steps fixed. Source: ONNX RNN-14,
GRU-14, LSTM-14; gates are z, r, h and i, o, f, c in ONNX, z, r, h and i, f, c, o in Keras.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# keras.activations.NAME -> ONNX' name, alpha and beta; both are set where ONNX' defaults differ.
ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "tanh": ("Tanh", None, None),
    "sigmoid": ("Sigmoid", None, None),
    "relu": ("Relu", None, None),
    "softsign": ("Softsign", None, None),
    "softplus": ("Softplus", None, None),
    "linear": ("Affine", 1.0, 0.0),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "hard_sigmoid_2": ("HardSigmoid", 0.2, 0.5),  # Keras 2's: see `keras_legacy`
}
# The position of ONNX' n-th gate in Keras' weights.
_ORDER = {"RNN": (0,), "GRU": (0, 1, 2), "LSTM": (0, 3, 1, 2)}


def activations(op: str, cell: Any) -> list[str] | None:
    """Keras' names of the activations in ONNX' order, None when ONNX lacks one."""
    inner = _name(cell.activation)
    outer = _name(getattr(cell, "recurrent_activation", None))
    names = {"RNN": [inner], "GRU": [outer, inner], "LSTM": [outer, inner, inner]}[op]
    return names if all(name in ACTIVATIONS for name in names) else None


def _name(function: Any) -> str:
    """A key of `ACTIVATIONS`, if there is one: two of `keras_legacy.functions_of` share a name."""
    return str(getattr(function, "stated_as", "") or getattr(function, "__name__", ""))


def node(op: str, cell: Any, x: Tensor, functions: list[str]) -> tuple[Tensor, list[Tensor]]:
    """ONNX' node in a program that torch.export makes.

    Args:
        x: of shape (N, T, I).

    Returns:
        The outputs (N, T, H), and the last state, each (N, H): h, and c of an LSTM.
    """
    units, order = cell.units, _ORDER[op]

    def gates(array: Tensor) -> Tensor:
        parts = [array[..., gate * units : (gate + 1) * units] for gate in order]
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    inputs: list[Tensor | None] = [
        x.transpose(0, 1),
        gates(cell.kernel.value).t()[None],
        gates(cell.recurrent_kernel.value).t()[None],
    ]
    if cell.use_bias:
        bias = cell.bias.value
        if bias.ndim == 2:  # a GRU that resets after the product has a bias for each product
            first, second = gates(bias[0]), gates(bias[1])
        else:
            first, second = gates(bias), torch.zeros_like(gates(bias))
        inputs.append(torch.cat([first, second])[None])
    known = [ACTIVATIONS[name] for name in functions]
    attributes: dict[str, Any] = {"hidden_size": units, "activations": [name for name, *_ in known]}
    if alphas := [alpha for _, alpha, _ in known if alpha is not None]:
        attributes["activation_alpha"] = alphas
        attributes["activation_beta"] = [beta for *_, beta in known if beta is not None]
    if op == "GRU":
        attributes["linear_before_reset"] = int(cell.reset_after)
    steps, batch = x.shape[1], x.shape[0]
    count = 3 if op == "LSTM" else 2
    ys, *state = torch.onnx.ops.symbolic_multi_out(
        op,
        inputs,
        attributes,
        dtypes=[x.dtype] * count,
        shapes=[(steps, 1, batch, units), *[(1, batch, units)] * (count - 1)],
    )
    return ys[:, 0].transpose(0, 1), [part[0] for part in state]
