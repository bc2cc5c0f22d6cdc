"""RNN, LSTM and GRU in float64 against onnxruntime, with everything that they may be given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Array, Graph, distance, ort_run

STEPS, SAMPLES, WIDTH, HIDDEN = 5, 3, 4, 6
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
LENGTHS = np.array([3, 5, 1])


def results(
    op: str, *, lengths: Array | None = None, start: bool = False,
    peepholes: bool = False, bias: bool = True, **attributes: Any,
) -> tuple[list[Array], list[Array]]:  # fmt: skip
    """All results of one node: the oracle's and onnxruntime's."""
    g = Graph("float32", opset=14)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    wide = GATES[op] * HIDDEN

    def maybe(wanted: bool, *shape: int) -> str:
        return g.weight(*shape) if wanted else ""

    operands = [
        g.input("x", STEPS, SAMPLES, WIDTH),
        g.weight(directions, wide, WIDTH),
        g.weight(directions, wide, HIDDEN),
        maybe(bias, directions, 2 * wide),
        "" if lengths is None else g.const(lengths, dtype="int32"),
        maybe(start, directions, SAMPLES, HIDDEN),
    ]
    if op == "LSTM":
        operands.append(maybe(start, directions, SAMPLES, HIDDEN))
        operands.append(maybe(peepholes, directions, 3 * HIDDEN))
    made = g.op(op, *operands, outputs=3 if op == "LSTM" else 2, hidden_size=HIDDEN, **attributes)
    for name in made:
        g.output(name)
    model = g.model()
    x = np.random.default_rng(1).standard_normal((STEPS, SAMPLES, WIDTH))
    feeds = {"x": x.astype(np.float32)}
    return list(Oracle(model).run(feeds).values()), ort_run(model, feeds)


def check(op: str, **more: Any) -> None:
    ours, theirs = results(op, **more)
    assert len(ours) == len(theirs)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == np.float64
        assert found.shape == expected.shape
        assert distance(found, expected) < 2e-6
        assert np.any(found != found.astype(np.float32))  # not float32, widened


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
class TestEachDirection:
    def test_plain(self, op: str, direction: str) -> None:
        check(op, direction=direction)

    def test_sequences_of_other_lengths(self, op: str, direction: str) -> None:
        """What torch's packed sequences become; behind its end a sequence gives zeros."""
        check(op, direction=direction, lengths=LENGTHS)
        y = results(op, direction=direction, lengths=LENGTHS)[0][0]
        assert not np.any(y[3:, :, 0])
        assert np.all(y[2, :, 0])

    def test_where_it_starts(self, op: str, direction: str) -> None:
        check(op, direction=direction, start=True, lengths=LENGTHS)

    def test_clipped(self, op: str, direction: str) -> None:
        check(op, direction=direction, clip=0.4)

    def test_without_bias(self, op: str, direction: str) -> None:
        check(op, direction=direction, bias=False)


@pytest.mark.parametrize("before", [0, 1])
def test_gru_resets_before_or_behind_the_matrix(before: int) -> None:
    check("GRU", linear_before_reset=before, lengths=LENGTHS)


@pytest.mark.parametrize("more", [{"peepholes": True}, {"input_forget": 1}])
def test_lstm_variants(more: dict[str, Any]) -> None:
    check("LSTM", start=True, **more)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [
        ("Relu", None, None),
        ("Tanh", None, None),
        ("Sigmoid", None, None),
        ("Softsign", None, None),
        ("Softplus", None, None),
        ("LeakyRelu", 0.3, None),
        ("ThresholdedRelu", 0.2, None),
        ("Elu", 0.7, None),
        ("HardSigmoid", 0.3, 0.4),
        ("ScaledTanh", 0.5, 1.5),
        ("Affine", 0.5, 0.1),
    ],
)
def test_activations(name: str, alpha: float | None, beta: float | None) -> None:
    more: dict[str, Any] = {}
    if alpha is not None:
        more["activation_alpha"] = [alpha]
    if beta is not None:
        more["activation_beta"] = [beta]
    check("RNN", activations=[name], **more)


def test_activations_of_each_direction_take_their_numbers_in_order() -> None:
    check(
        "GRU", direction="bidirectional", activations=["HardSigmoid", "Tanh", "Sigmoid", "Affine"],
        activation_alpha=[0.3, 0.5], activation_beta=[0.4, 0.1],
    )  # fmt: skip
