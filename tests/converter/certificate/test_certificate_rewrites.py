"""What other tools rewrite: each rewriting is certified, and a graph that is nearly it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.certificate import Certified, NotCertified, certify
from patterns.graphs import Graph

Build = Callable[[Graph], str]


def written(build: Build, opset: int = 20) -> ir.Model:
    g = Graph("float32", opset=opset)
    g.output(g.rename(build(g), "y"))
    return g.model()


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def matmul_add(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 4), g.const(numbers(4, 3)))
    return str(g.op("Add", y, g.const(numbers(3, seed=1))))


def as_gemm(seed: int = 1, **more: Any) -> Build:
    return lambda g: str(
        g.op("Gemm", g.input("x", "N", 4), g.const(numbers(4, 3)), g.const(numbers(3, seed=seed)),
             **more)
    )  # fmt: skip


def of_two(op: str, order: tuple[str, str] = ("a", "b"), **more: Any) -> Build:
    def build(g: Graph) -> str:
        inputs = {name: g.input(name, 5, 5) for name in "ab"}
        both = [inputs[name] for name in order]
        bias = g.const(numbers(5))
        if op == "MatMul":
            return str(g.op("Add", g.op("MatMul", *both), bias))
        return str(g.op("Gemm", *both, bias, **more))

    return build


def in_rows(first: list[int] | None, last: list[int], width: int = 4) -> Build:
    """A product with the rows of a value of three axes, which is reshaped before or behind it."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 6, width)
        if first is not None:
            x = g.op("Reshape", x, g.const(first))
        y = g.op("Add", g.op("MatMul", x, g.const(numbers(4, 3))), g.const(numbers(3)))
        return str(g.op("Reshape", y, g.const(last)))

    return build


def moved_rows(perm: list[int], *, before: bool, back: list[int] | None = None) -> Build:
    """A residual around a layer, all of it between two transposes of the rows, or outside."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 3, 5, 4)
        if before:
            x = g.op("Transpose", x, perm=perm)
        y = g.op("MatMul", x, g.const(numbers(4, 4)))
        y = g.op("Mul", g.op("Sigmoid", y), g.op("Add", x, y))
        return str(g.op("Transpose", y, perm=back or perm))

    return build


def hard_swish(g: Graph) -> str:
    return str(g.op("HardSwish", g.op("Neg", g.input("x", "N", 4))))


def with_gate(alpha: float = 1 / 6, beta: float = 0.5) -> Build:
    def build(g: Graph) -> str:
        x = g.op("Neg", g.input("x", "N", 4))
        return str(g.op("Mul", x, g.op("HardSigmoid", x, alpha=alpha, beta=beta)))

    return build


def clipped(low: float, high: float = 6.0, over: float = 6.0) -> Build:
    def build(g: Graph) -> str:
        x = g.op("Neg", g.input("x", "N", 4))
        y = g.op("Clip", g.op("Add", x, g.const(np.full((), low))), g.const(np.full((), 0.0)),
                 g.const(np.full((), high)))  # fmt: skip
        return str(g.op("Div", g.op("Mul", x, y), g.const(np.full((), over))))

    return build


def recurrent(op: str, *, states: float | None = None, lengths: int | None = None) -> Build:
    def build(g: Graph) -> str:
        gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
        inputs = [
            g.input("x", 5, 2, 3),
            g.const(numbers(1, gates * 4, 3)),
            g.const(numbers(1, gates * 4, 4, seed=1)),
            g.const(numbers(1, gates * 8, seed=2)),
        ]
        if states is not None or lengths is not None:
            inputs.append("" if lengths is None else g.const(np.full(2, lengths), dtype="int32"))
        if states is not None:
            inputs += [g.const(np.full((1, 2, 4), states))] * (2 if op == "LSTM" else 1)
        return str(g.op(op, *inputs, hidden_size=4))

    return build


def largest(*constants: float, op: str = "Max") -> Build:
    def build(g: Graph) -> str:
        x = g.op("Mul", g.input("x", "N", 4), g.const(np.full(4, -2.0)))
        return str(g.op(op, *(g.const(np.full(4, c)) for c in constants), x))

    return build


def vectors(left: list[int], right: list[int], squeezed: list[int] | None) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", *left)
        y = g.op("MatMul", x, g.const(numbers(4).reshape(right)))
        return str(y if squeezed is None else g.op("Squeeze", y, g.const(squeezed)))

    return build


def row(axis: int) -> Build:
    def build(g: Graph) -> str:
        x = g.op("Unsqueeze", g.input("x", 4), g.const([0]))
        y = g.op("MatMul", x, g.const(numbers(4).reshape(4, 1)))
        return str(g.op("Squeeze", y, g.const([axis])) if not axis else y)

    return build


def einsum(equation: str, *shapes: tuple[int, ...]) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", *shapes[0])
        return str(g.op("Einsum", x, g.const(numbers(*shapes[1])), equation=equation))

    return build


def product(shape: tuple[int, ...], right: tuple[int, ...], turned: list[int] | None) -> Build:
    def build(g: Graph) -> str:
        weight = numbers(*right)
        y = g.op("MatMul", g.input("x", *shape),
                 g.const(weight if turned is None else weight.transpose(turned)))  # fmt: skip
        return str(y)

    return build


def attention(*, einsums: bool, wrong: bool = False) -> Build:
    def build(g: Graph) -> str:
        q, k, v = (g.input(name, 2, 5, 3, 4) for name in "qkv")
        if einsums:
            scores = g.op("Einsum", q, v if wrong else k, equation="bqhd,bkhd->bhqk")
            weights = g.op("Softmax", scores, axis=-1)
            return str(g.op("Einsum", weights, v, equation="bhqk, bkhd -> bqhd"))
        q, v = (g.op("Transpose", value, perm=[0, 2, 1, 3]) for value in (q, v))
        weights = g.op(
            "Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 3, 1])), axis=3
        )
        return str(g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1, 3]))

    return build


def rms(scale: float, *, apart: bool) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", "N", 3, 4)
        one = np.full(4, 1.0 if apart else scale)
        y = g.op("RMSNormalization", x, g.const(one), axis=-1, epsilon=1e-5)
        return str(g.op("Mul", y, g.const(np.full(4, scale))) if apart else y)

    return build


def p_norm(op: str, factors: list[float], *, before: bool, **more: Any) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", "N", 2, 6, 6)
        factor = g.const(np.array(factors).reshape(1, 2, 1, 1))
        axes = (g.const([2, 3]),) if op.startswith("Reduce") else ()
        if before:
            return str(g.op(op, g.op("Mul", x, factor), *axes, **more))
        return str(g.op("Mul", g.op(op, x, *axes, **more), factor))

    return build


def split(op: str, place: int, sizes: Any) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", "N", 6, 4)
        if op == "Split":
            parts = g.op("Split", x, g.const(sizes), outputs=len(sizes), axis=1)
            return str(g.op("Concat", parts[place], parts[0], axis=1))
        held = g.op("SplitToSequence", x, g.const(sizes), axis=1)
        parts = [g.op("SequenceAt", held, g.const(np.int64(at))) for at in (place, 0)]
        if op == "ConcatFromSequence":
            return str(g.op(op, g.op("SequenceConstruct", *parts), axis=1))
        return str(g.op("Concat", *parts, axis=1))

    return build


P_NORMS: dict[str, dict[str, int]] = {
    "ReduceL2": {},
    "ReduceL1": {"keepdims": 1},
    "GlobalLpPool": {"p": 3},
}
E4 = ((2, 3, 4), (4, 5))
REWRITINGS: dict[str, tuple[Build, Build, list[Build]]] = {
    "MatMul and Add to Gemm": (matmul_add, as_gemm(), [as_gemm(2), as_gemm(beta=2.0)]),
    "Gemm of two computed values": (
        of_two("MatMul"),
        of_two("Gemm"),
        [of_two("Gemm", ("b", "a")), of_two("Gemm", transA=1), of_two("Gemm", alpha=2.0)],
    ),
    "Gemm of transposed values": (
        of_two("Gemm", transA=1, transB=1),
        of_two("Gemm", transA=1, transB=1, alpha=1.0),
        [of_two("Gemm", transB=1), of_two("Gemm", ("b", "a"), transA=1, transB=1)],
    ),
    "rows in one axis": (
        in_rows(None, [-1, 3]),
        in_rows([-1, 4], [-1, 3]),
        [in_rows([-1, 4], [-1, 3, 1]), in_rows([4, -1], [-1, 3])],
    ),
    "rows in another order": (
        moved_rows([0, 2, 1, 3], before=True),
        moved_rows([0, 1, 2, 3], before=False),
        [
            moved_rows([0, 2, 1, 3], before=False),
            moved_rows([0, 2, 1, 3], before=True, back=[0, 1, 2, 3]),
        ],
    ),
    "HardSwish as a product": (
        hard_swish,
        with_gate(),
        [with_gate(0.2), with_gate(beta=0.4999), with_gate(1 / 6 * (1 + 1e-5))],
    ),
    "HardSwish as a Clip": (clipped(3.0), hard_swish, [with_gate(0.2)]),
    "a Clip as HardSwish": (
        hard_swish,
        clipped(3.0),
        [clipped(3.001), clipped(3.0, 6.001), clipped(3.0, over=6.001)],
    ),
    **{
        f"states of zeros, {op}": (
            recurrent(op, states=0.0),
            recurrent(op),
            [recurrent(op, states=0.1), recurrent(op, lengths=4)],
        )
        for op in ("RNN", "GRU", "LSTM")
    },
    "whole lengths": (recurrent("GRU", lengths=5), recurrent("GRU"), [recurrent("GRU", lengths=4)]),
    "Max of two constants": (
        largest(1.0, 2.0),
        largest(2.0),
        [largest(1.0), largest(2.0, 2.1), largest(1.0, 2.0, op="Min")],
    ),
    "MatMul with a column": (
        vectors([2, 4], [4], None),
        vectors([2, 4], [4, 1], [1]),
        [vectors([2, 4], [4, 1], None)],
    ),
    "MatMul with a row": (
        vectors([4], [4, 1], None),
        row(0),
        [row(1)],
    ),
    "Einsum with a constant": (
        einsum("bij,jk->bik", *E4),
        product(*E4, None),
        [product(*E4[:1], (5, 4), [1, 0])],
    ),
    "Einsum with letters in another order": (
        einsum("bij,kj->bik", E4[0], (5, 4)),
        product(E4[0], (5, 4), [1, 0]),
        [product(*E4, None), einsum("bij,kj->bki", E4[0], (5, 4))],
    ),
    "Einsum of a batch": (
        einsum("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        product((2, 3, 4), (2, 4, 5), None),
        [einsum("bij,bjk->ibk", (2, 3, 4), (2, 4, 5)), product((2, 3, 4), (1, 4, 5), None)],
    ),
    "attention with Einsum": (
        attention(einsums=False),
        attention(einsums=True),
        [attention(einsums=True, wrong=True)],
    ),
    "a scale behind LpPool": (
        p_norm("LpPool", [2.0, -3.0], before=True, kernel_shape=[2, 2]),
        p_norm("LpPool", [2.0, 3.0], before=False, kernel_shape=[2, 2]),
        [
            p_norm("LpPool", [2.0, -3.0], before=False, kernel_shape=[2, 2]),
            p_norm("LpPool", [2.0, 3.0], before=False, kernel_shape=[2, 2], p=1),
            p_norm("LpPool", [2.0, 3.0], before=False, kernel_shape=[2, 3]),
        ],
    ),
    **{
        f"a scale behind {op}": (
            p_norm(op, [2.0, -3.0], before=True, **more),
            p_norm(op, [2.0, 3.0], before=False, **more),
            [
                p_norm(op, [2.0, -3.0], before=False, **more),
                p_norm(op, [3.0, 2.0], before=True, **more),
            ],
        )
        for op, more in P_NORMS.items()
    },
    "a split in a sequence": (
        split("SplitToSequence", 2, [1, 2, 3]),
        split("Split", 2, [1, 2, 3]),
        [split("Split", 1, [1, 2, 3]), split("SplitToSequence", 1, [1, 2, 3])],
    ),
    "a sequence that is joined": (
        split("ConcatFromSequence", 1, [1, 2, 3]),
        split("Split", 1, [1, 2, 3]),
        [split("Split", 2, [1, 2, 3])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REWRITINGS)
def test_a_rewriting_is_certified_and_what_is_nearly_it_is_not(name: str) -> None:
    one, other, wrong = REWRITINGS[name]
    for build in (one, other):
        found = certify(written(one), written(build))
        assert isinstance(found, Certified), str(found)
    for build in wrong:
        refused = certify(written(one), written(build))
        assert isinstance(refused, NotCertified)
        assert "check failed" not in refused.reason


def test_the_scale_of_an_rms_norm_stands_inside_or_behind() -> None:
    one = written(rms(2.0, apart=False), opset=23)
    found = certify(one, written(rms(2.0, apart=True), opset=23))
    assert isinstance(found, Certified), str(found)
    assert not certify(one, written(rms(2.1, apart=True), opset=23))


def test_a_sequence_that_depends_on_sizes_is_in_doubt() -> None:
    def build(g: Graph) -> str:
        held = g.op("SplitToSequence", g.input("x", "N", 6, 4), g.const(np.int64(2)), axis=0)
        return str(g.op("SequenceAt", held, g.const(np.int64(0))))

    found = certify(written(build), written(build))
    assert isinstance(found, NotCertified)
    assert "depends on the sizes" in found.reason


def masked(op: str, *, place: int = 4, factor: float = 1.0, first: bool = False) -> Build:
    """Attention weights under a mask of minus infinities."""

    def build(g: Graph) -> str:
        scores = g.op("Mul", g.input("x", "N", 5, 5), g.const(np.full((), 0.5)))
        if op == "Where":
            seen = np.arange(5) != place
            mask = g.op(
                "Where", g.input("seen", "N", 1, 5, dtype="bool"), g.const(seen), g.const(~seen)
            )
            scores = g.op("Where", mask, scores, g.const(np.full((), -np.inf)))
        else:
            mask = np.where(np.arange(5) == place, -np.inf, 0.0)
            mask = g.op("Unsqueeze", g.const(mask), g.const([0]))
            scores = g.op("Add", *((mask, scores) if first else (scores, mask)))
        y = g.op("Softmax", scores, axis=-1)
        return str(g.op("Mul", y, g.const(np.full((), factor))))

    return build


@pytest.mark.parametrize("op", ["Where", "Add"])
def test_a_mask_of_minus_infinities_is_compared_exactly(op: str) -> None:
    one = written(masked(op))
    found = certify(one, written(masked(op, first=True)))
    assert isinstance(found, Certified), str(found)
    for wrong in (masked(op, place=3), masked(op, factor=1.001)):
        assert not certify(one, written(wrong))


def layers(opset: int) -> ir.Model:
    g = Graph("float32", opset=opset)
    y = g.bn(g.op("Conv", g.input("x", "N", 3, 8, 8), g.weight(4, 3, 3, 3)), 4)
    y = g.op("MaxPool", g.op("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    axes = {"axes": [2, 3]} if opset < 18 else {}
    y = g.op("ReduceMean", y, *(() if axes else (g.const([2, 3]),)), keepdims=0, **axes)
    y = g.op("Gemm", y, g.weight(4, 5), g.weight(5))
    g.output(g.rename(g.op("Softmax", y, axis=1), "y"))
    return g.model()


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 22])
def test_opsets_between_which_no_op_changed_are_compared(opset: int) -> None:
    found = certify(layers(20), layers(opset))
    assert isinstance(found, Certified), str(found)


def test_the_weights_of_two_opsets_are_compared() -> None:
    other = layers(13)
    node = next(node for node in other.graph if node.op_type == "Gemm")
    bias = node.inputs[2]
    assert bias is not None
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() * np.float32(1.01), name=bias.name)
    found = certify(layers(20), other)
    assert isinstance(found, NotCertified)
    assert (found.op, found.channel is not None) == ("Softmax", True)


CHANGED: dict[str, Callable[[Graph], str]] = {
    "Softmax": lambda g: str(g.op("Softmax", g.input("x", 2, 3, 4), axis=1)),
    "Resize": lambda g: str(
        g.op("Resize", g.input("x", 1, 1, 4, 4), *(("",) if g.opset > 10 else ()),
             g.const(np.array([1.0, 1.0, 2.0, 2.0])), mode="nearest")
    ),
    "AveragePool": lambda g: str(
        g.op("AveragePool", g.input("x", 1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2],
             ceil_mode=1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("op", CHANGED)
def test_an_op_that_changed_between_two_opsets_is_not_compared(op: str) -> None:
    build = CHANGED[op]
    for opset in (10, 20):
        assert certify(written(build, opset), written(build, opset))
    found = certify(written(build, 10), written(build, 20))
    assert isinstance(found, NotCertified)
    assert op in found.reason
