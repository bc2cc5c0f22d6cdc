"""RNN, LSTM and GRU: scale and shift of the input go into W and into the bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converter.certificate.context import Context, attributes, frozen
from converter.certificate.forms import OWN, Form, Known, Value, constant, of_atom
from converter.certificate.linear import source_of


def recurrent(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value] | None:
    """None: a weight is computed."""
    x, weight, hidden = values[:3]
    bias = values[3] if len(values) > 3 else None
    if not isinstance(x, Form) or not isinstance(weight, Known) or not isinstance(hidden, Known):
        return None
    if bias is not None and not isinstance(bias, Known):
        return None
    if x.rank != 3:
        return None
    results = ctx.results(node, values)
    attrs = attributes(node, ctx.opset)
    z, s, t, m = source_of(ctx, x, 2)
    w = weight.array
    size = np.abs(w)
    effective = constant(w.shape, w * s, ctx.off(weight, w) * np.abs(s))
    directions, gates, _ = w.shape
    numbers = np.zeros((directions, 2 * gates)) if bias is None else bias.array
    off = np.zeros_like(numbers) if bias is None else np.where(numbers == 0, 0, ctx.off(bias))
    # Two biases are added to each gate; only a GRU that resets late multiplies one by something.
    of_input, of_state = numbers[:, :gates].copy(), numbers[:, gates:]
    input_off, state_off = off[:, :gates].copy(), off[:, gates:]
    pulled = w @ t
    of_input += pulled
    input_off += size @ m + (ctx.rounding(weight) + 2 * OWN) * (size @ np.abs(t))
    late = node.op_type == "GRU" and bool(attrs.get("linear_before_reset", 0))
    together = np.ones(gates, bool)
    if late:
        together[2 * hidden.shape[2] :] = False
    total = of_input + np.where(together, of_state, 0.0)
    total_off = input_off + np.where(together, state_off, 0.0) + OWN * np.abs(total)
    apart, apart_off = np.where(together, 0.0, of_state), np.where(together, 0.0, state_off)
    ctx.weights += w.size + hidden.size
    given: list[Value] = [*values[4:], *[None] * (8 - max(len(values), 4))]
    lengths, *states = given
    steps = x.shape[1 if attrs.get("layout", 0) else 0]
    if isinstance(lengths, Known) and np.all(lengths.array == steps):
        lengths = None
    read: list[Value] = [
        of_atom(z, x.shape),
        effective,
        hidden,
        constant(total.shape, total, total_off),
        constant(apart.shape, apart, apart_off),
        lengths,
        *(None if _zero(value) else value for value in states),
    ]
    attrs = {name: value for name, value in attrs.items() if (name, value) != ("layout", 0)}
    return ctx.opaque(node.op_type, frozen(attrs), read, results)


def _zero(value: Value) -> bool:
    """Whether a state that is given to begin with is zero, as it is where none is given."""
    if isinstance(value, Known):
        return not value.array.any()
    return isinstance(value, Form) and not (value.terms or value.t.any() or value.m.any())
