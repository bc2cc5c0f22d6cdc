"""RNN, LSTM and GRU in float64 (ONNX RNN-7/14, LSTM-7/14, GRU-7/14).

Each gate is `f(X W' + H R' + Wb + Rb)`, with `clip` applied before f:

    RNN     H = f(gate)
    LSTM    i, o, f, c:  C = f*C + i*c,  H = o*h(C);  peepholes add P*C to i, f (and the new C to o)
    GRU     z, r, h:     H = (1 - z)*h + z*H;  r multiplies H (H R' + Rb if `linear_before_reset`)

onnx's reference evaluator ignores `sequence_lens` (what torch's packed sequences become), `clip`,
`input_forget` and all activations except the usual ones. A sequence that is shorter than the
longest is read backward from its own end, and is followed by zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
_Function = Callable[[Array], Array]
_State = tuple[Array, ...]

_USUAL = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
_GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


# Name -> the function of x, and of alpha and beta where it has them, and their defaults.
_FUNCTIONS: dict[str, tuple[Callable[..., Array], tuple[float, ...]]] = {
    "relu": (lambda x: np.maximum(x, 0.0), ()),
    "tanh": (np.tanh, ()),
    "sigmoid": (_sigmoid, ()),
    "softsign": (lambda x: x / (1.0 + np.abs(x)), ()),
    "softplus": (lambda x: np.logaddexp(x, 0.0), ()),
    "leakyrelu": (lambda x, a: np.where(x < 0.0, a * x, x), (0.01,)),
    "thresholdedrelu": (lambda x, a: np.where(x > a, x, 0.0), (1.0,)),
    "elu": (lambda x, a: np.where(x < 0.0, a * np.expm1(np.minimum(x, 0.0)), x), (1.0,)),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0.0, 1.0), (0.2, 0.5)),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), (1.0, 1.0)),
    "affine": (lambda x, a, b: a * x + b, (1.0, 0.0)),
}


@dataclass(frozen=True, eq=False)
class _Cell:
    """One direction: W (gates*H, I), R (gates*H, H), the biases (gates*H each), peepholes (3*H)."""

    node: ir.Node
    w: Array
    r: Array
    wb: Array
    rb: Array
    peepholes: Array
    functions: Sequence[_Function]

    def clipped(self, x: Array) -> Array:
        limit = self.node.attributes.get_float("clip", None)
        return x if limit is None else np.clip(x, -limit, limit)

    def linear(self, x: Array, h: Array, gate: int) -> Array:
        """X W' + H R' + Wb + Rb of one gate."""
        rows = slice(gate * h.shape[1], (gate + 1) * h.shape[1])
        found: Array = x @ self.w[rows].T + h @ self.r[rows].T + self.wb[rows] + self.rb[rows]
        return found

    def rnn(self, x: Array, state: _State) -> _State:
        return (self.functions[0](self.clipped(self.linear(x, state[0], 0))),)

    def lstm(self, x: Array, state: _State) -> _State:
        (h, c), (f, g, last) = state, self.functions
        p_i, p_o, p_f = np.split(self.peepholes, 3)
        i = f(self.clipped(self.linear(x, h, 0) + p_i * c))
        if self.node.attributes.get_int("input_forget", 0):
            forget = 1.0 - i
        else:
            forget = f(self.clipped(self.linear(x, h, 2) + p_f * c))
        new = forget * c + i * g(self.clipped(self.linear(x, h, 3)))
        o = f(self.clipped(self.linear(x, h, 1) + p_o * new))
        return o * last(new), new

    def gru(self, x: Array, state: _State) -> _State:
        ((h,), (f, g)), rows = (state, self.functions), slice(2 * state[0].shape[1], None)
        z = f(self.clipped(self.linear(x, h, 0)))
        r = f(self.clipped(self.linear(x, h, 1)))
        given = x @ self.w[rows].T + self.wb[rows]
        if self.node.attributes.get_int("linear_before_reset", 0):
            hidden = r * (h @ self.r[rows].T + self.rb[rows])
        else:
            hidden = (r * h) @ self.r[rows].T + self.rb[rows]
        return ((1.0 - z) * g(self.clipped(given + hidden)) + z * h,)


_STEPS: dict[str, Callable[[_Cell, Array, _State], _State]] = {
    "RNN": _Cell.rnn,
    "LSTM": _Cell.lstm,
    "GRU": _Cell.gru,
}


def recurrent(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Y (T, directions, N, H), Y_h (directions, N, H), and Y_c of an LSTM."""
    x, w, r, b, lengths, *rest = [*inputs, *[None] * 8][:8]
    directions = _directions(node)
    functions = _functions(node, len(directions))
    if x is None or w is None or r is None or functions is None:
        return None
    batch_first = node.attributes.get_int("layout", 0) == 1
    if batch_first:
        x, rest[:2] = x.swapaxes(0, 1), [s if s is None else s.swapaxes(0, 1) for s in rest[:2]]
    hidden, states = r.shape[2], 2 if node.op_type == "LSTM" else 1
    wide = _GATES[node.op_type] * hidden
    biases = np.zeros((len(directions), 2 * wide)) if b is None else b
    peepholes = np.zeros((len(directions), 3 * hidden)) if rest[2] is None else rest[2]
    ends = np.full(x.shape[1], len(x)) if lengths is None else lengths
    start = [np.zeros((len(directions), x.shape[1], hidden)) if s is None else s for s in rest[:2]]
    y = np.zeros((len(x), len(directions), x.shape[1], hidden))
    last = [np.zeros_like(start[0]) for _ in range(states)]
    for d, backward in enumerate(directions):
        wb, rb = biases[d, :wide], biases[d, wide:]
        cell = _Cell(node, w[d], r[d], wb, rb, peepholes[d], functions[d])
        # Each sequence by itself: read backward, it may begin at another step.
        for n, end in enumerate(ends.tolist()):
            state = tuple(s[d, n : n + 1] for s in start[:states])
            for t in range(end)[::-1] if backward else range(end):
                state = _STEPS[node.op_type](cell, x[t, n : n + 1], state)
                y[t, d, n] = state[0][0]
            for held, value in zip(last, state, strict=True):
                held[d, n] = value[0]
    if batch_first:  # (N, T, directions, H) and (N, directions, H)
        y, last = y.transpose(2, 0, 1, 3), [s.swapaxes(0, 1) for s in last]
    return (y, *last)


def _directions(node: ir.Node) -> list[bool]:
    """Whether it is read backward, for each direction."""
    name = node.attributes.get_string("direction", "forward")
    return {"forward": [False], "reverse": [True]}.get(name, [False, True])


def _functions(node: ir.Node, directions: int) -> list[list[_Function]] | None:
    """The activations of each direction, None if one of them is not known."""
    names = node.attributes.get_strings("activations", _USUAL[node.op_type] * directions)
    alphas = iter(node.attributes.get_floats("activation_alpha", ()))
    betas = iter(node.attributes.get_floats("activation_beta", ()))
    if any(name.lower() not in _FUNCTIONS for name in names):
        return None
    found = [_function(name.lower(), alphas, betas) for name in names]
    each = len(_USUAL[node.op_type])
    return [found[i : i + each] for i in range(0, each * directions, each)]


def _function(name: str, alphas: Iterator[float], betas: Iterator[float]) -> _Function:
    """One activation; the functions that have parameters take them in order."""
    function, defaults = _FUNCTIONS[name]
    # The function takes as many numbers from the two iterators as it has defaults.
    numbers = [next(given, usual) for usual, given in zip(defaults, (alphas, betas), strict=False)]
    return lambda x: function(x, *numbers)
