"""Kernels are read in blocks: as they are written down, and without holding a weight."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.certificate import Certified, certify, kernels
from converter.certificate.atoms import Space
from converter.certificate.context import Context
from converter.certificate.evaluating import evaluated
from converter.certificate.forms import Known
from converter.certificate.kernels import Weight, rows_of
from converter.certificate.moving import moved
from converter.certificate.stored import Stored
from converter.certificate.summed import Each, Part, Summed, live_taps
from converter.files import slim
from converter.files.on_disk import TensorInFile

RNG = np.random.default_rng(0)


def weight(array: np.ndarray, layout: str, shape: tuple[int, int, int], group: int = 1) -> Weight:
    inputs = shape[1] * group
    zero = np.zeros(inputs)
    return Weight(
        weight=Known(Stored(ir.tensor(array.astype(np.float32)), array.shape)), layout=layout,
        shape=shape, group=group, rounding=0.0, s=RNG.normal(size=inputs),
        t=RNG.normal(size=inputs),
        t_off=zero, ratio_off=zero, memory={},
    )  # fmt: skip


def whole(kernel: kernels.Kernel) -> np.ndarray:
    found = np.full(kernel.shape, np.nan)
    read = kernel.numbers(kernel.along)
    for block in kernel.blocks(kernel.along):
        found[block[0] : block[1], block[2] : block[3]] = read(block)
    return found


CONV = RNG.normal(size=(6, 4, 3, 3)).astype(np.float32)
MATRIX = RNG.normal(size=(5, 7)).astype(np.float32)
MATRICES = RNG.normal(size=(2, 5, 3)).astype(np.float32)
LAYOUTS = {
    "conv": (weight(CONV, "conv", rows_of(CONV.shape)), CONV.reshape(6, 4, 9)),
    "conv in groups": (
        weight(CONV, "conv", rows_of(CONV.shape), 2), CONV.reshape(6, 4, 9),
    ),
    "matrix": (weight(MATRIX, "matrix", (7, 5, 1)), MATRIX.T[:, :, None]),
    "matrix transposed": (weight(MATRIX, "matrix transposed", (5, 7, 1)), MATRIX[:, :, None]),
    "conv transposed": (
        weight(CONV, "conv transposed", (8, 3, 9), 2),
        CONV.reshape(2, 3, 4, 9).swapaxes(1, 2).reshape(8, 3, 9),
    ),
    "matrices": (
        weight(MATRICES, "matrices", (6, 5, 1)), MATRICES.swapaxes(1, 2).reshape(6, 5, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 20, 1 << 16])
@pytest.mark.parametrize("name", LAYOUTS)
def test_blocks_are_the_kernel_over_its_input(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "BLOCK", size)
    kernel, rows = LAYOUTS[name]
    outputs = kernel.outputs
    owners = np.arange(outputs) // (outputs // kernel.group)
    s, t = (a.reshape(kernel.group, -1)[owners, :, None] for a in (kernel.s, kernel.t))
    assert np.array_equal(whole(kernel), rows.astype(np.float64) * s)
    assert np.allclose(kernel.pull()[0], (rows.astype(np.float64) * t).sum((1, 2)), atol=1e-12)
    assert kernel.alive().all()


def test_a_sum_is_the_sum_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "BLOCK", 20)
    zero, one = np.zeros(4), np.ones(4)
    first = weight(RNG.normal(size=(4, 4, 3, 3)), "conv", (4, 4, 9))
    point = weight(RNG.normal(size=(4, 4, 1, 1)), "conv", (4, 4, 1))
    itself = Each(shape=(4, 4, 1), group=1, rounding=0.0, s=one, t=zero, t_off=zero,
                  ratio_off=zero, memory={})  # fmt: skip
    factors = RNG.normal(size=(3, 4))
    middle = slice(1, 2), slice(1, 2)
    parts = (
        Part(first, factors[0], 0.0, (slice(0, 3), slice(0, 3))),
        Part(point, factors[1], 0.0, middle),
        Part(itself, factors[2], 0.0, middle),
    )
    total = Summed(shape=(4, 4, 9), group=1, rounding=0.0, s=one, t=zero, t_off=zero,
                   ratio_off=zero, memory={}, parts=parts, wide=(3, 3))  # fmt: skip
    expected = whole(first) * factors[0][:, None, None]
    expected[:, :, 4] += (whole(point)[:, :, 0].T * factors[1]).T + np.diag(factors[2])
    assert np.allclose(whole(total), expected, atol=1e-14)
    assert live_taps(total, (3, 3)).all()


def test_a_transpose_of_a_transpose_is_the_weight() -> None:
    held = Stored(ir.tensor(MATRIX), MATRIX.shape)
    turned = held.transposed((1, 0))
    assert np.array_equal(turned.whole(), MATRIX.T)
    assert turned.transposed((1, 0)).moves == ()


def chain(path: Path, factor: np.ndarray | None) -> Path:
    """Four convolutions of 4 MB with a Mul behind each, or with it in the weights."""
    rng = np.random.default_rng(1)
    nodes, weights, value = [], [], "x"
    for i in range(4):
        kernel = rng.normal(size=(1024, 1024, 1, 1)).astype(np.float32)
        if factor is not None:
            kernel *= factor
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(onnx.helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"]))
        value = f"c{i}"
        if factor is None:
            weights.append(onnx.numpy_helper.from_array(np.float32([0.5]), f"f{i}"))
            nodes.append(onnx.helper.make_node("Mul", [value, f"f{i}"], [f"m{i}"]))
            value = f"m{i}"
    shapes = [onnx.helper.make_tensor_value_info(n, 1, ["n", 1024, 2, 2]) for n in ("x", value)]
    nodes.append(onnx.helper.make_node("Relu", [value], ["y"]))
    shapes[1].name = "y"
    graph = onnx.helper.make_graph(nodes, "chain", shapes[:1], shapes[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_no_weight_is_held(tmp_path: Path) -> None:
    first = chain(tmp_path / "a.onnx", None)
    second = chain(tmp_path / "b.onnx", np.float32([0.5]))
    one, other = slim.read(first), slim.read(second)
    tracemalloc.start()
    try:
        found = certify(one, other)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, Certified)
    assert found.weights == 4 * 1024 * 1024
    assert peak < 0.4 * first.stat().st_size


def test_a_part_of_a_tensor_is_read_from_its_file(tmp_path: Path) -> None:
    model = slim.read(chain(tmp_path / "a.onnx", None))
    tensor = model.graph.initializers["w2"].const_value
    assert isinstance(tensor, TensorInFile)
    assert np.array_equal(tensor.part(10, 13), tensor.numpy()[10:13])


def test_only_what_is_computed_with_is_read() -> None:
    """What torch's exporter makes of a weight beside: CastLike(Expand(0, Shape(w)[:1]), w)."""

    def unread() -> ir.TensorProtocol:
        raise AssertionError("the weight is read")

    shape = ir.Shape([64, 128, 3, 3])
    tensor = ir.LazyTensor(unread, ir.DataType.FLOAT, shape, name="w")
    context = Context(Space(3.0), 18, lambda *_: [], {})
    weight = context.known(tensor)
    found = moved(context, ir.node("Shape", [None], attributes={"start": 1}), [weight])
    assert found is not None
    assert found.array.tolist() == [128, 3, 3]
    turned = moved(context, ir.node("Transpose", [None]), [weight])
    assert turned is not None
    assert turned.shape == (3, 3, 128, 64)
    like = ir.node("CastLike", [None, None])
    (cast,) = evaluated(context, like, [Known(np.zeros(64)), weight])
    assert isinstance(cast, Known)
    assert cast.unit == weight.unit
