"""Which convolutions and pools take up which: kernels, padding, stride, dilation, groups."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.graphs import (
    Graph,
    batchnorms,
    count,
    distance,
    feeds,
    fold,
    ort_run,
)
from tests.converter.folding.test_branches import checked, conv


def ops(folded: Any) -> list[str]:
    return [node.op_type for node in folded.model.graph]


def pool(g: Graph, x: str, kernel: int, **more: Any) -> str:
    more.setdefault("count_include_pad", 1)
    return str(g.op("AveragePool", x, kernel_shape=[kernel, kernel], **more))


@pytest.mark.parametrize(("fine", "coarse"), [(2, 1), (4, 1), (4, 2), (8, 2), (8, 4)])
def test_finer_groups_go_into_coarser_ones(fine: int, coarse: int) -> None:
    """A grouped weight is one of larger groups with zeros in it; the channels here are 8 and 16."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 8, 6, 6))
    one, other = (
        g.bn(g.op("Conv", x, g.weight(16, 8 // n, k, k), pads=[k // 2] * 4, group=n), 16)
        for n, k in ((fine, 1), (coarse, 3))
    )
    g.output(g.op("Add", one, other), shape=["N", 16, 6, 6])
    assert ops(checked(g)) == ["Relu", "Conv"]


@pytest.mark.parametrize(("fine", "coarse"), [(3, 2), (2, 3), (6, 4)])
def test_groups_that_cross_stay_apart(fine: int, coarse: int) -> None:
    g = Graph()
    x = g.input("x", "N", 12, 6, 6)
    one, other = (g.op("Conv", x, g.weight(12, 12 // n, 1, 1), group=n) for n in (fine, coarse))
    g.output(g.op("Add", one, other), shape=["N", 12, 6, 6])
    assert ops(checked(g)).count("Conv") == 2


def test_a_small_dense_kernel_and_a_large_grouped_one_stay_apart() -> None:
    """Either would have to become a large dense one, dearer than both."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.op("Add", conv(g, x, 3, group=4), conv(g, x, 1)), shape=["N", 4, 6, 6])
    assert ops(checked(g)).count("Conv") == 2


def test_dense_and_grouped_pairs_merge_apart() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    dense = [conv(g, x, 1), conv(g, x, 1)]
    grouped = [conv(g, x, 3, group=4), conv(g, x, 5, group=4)]
    g.output(g.op("Sum", *dense, *grouped, g.bn(x, 4)), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert sorted(ops(folded)) == ["Add", "Conv", "Conv", "Relu"]
    assert batchnorms(folded.model) == 0


def test_asymmetric_kernels_go_into_a_square_one() -> None:
    """ACNet (Ding et al., ICCV 2019): 3x3 + 1x3 + 3x1."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    shapes = {(3, 3): [1] * 4, (1, 3): [0, 1, 0, 1], (3, 1): [1, 0, 1, 0]}
    summands = [
        g.bn(g.op("Conv", x, g.weight(4, 4, *kernel), pads=pads), 4)
        for kernel, pads in shapes.items()
    ]
    g.output(g.op("Sum", *summands), shape=["N", 4, 6, 6])
    assert ops(checked(g)) == ["Relu", "Conv"]


def test_asymmetric_kernels_alone_stay_apart() -> None:
    """1x3 + 3x1 would be a cross of 5 in a square of 9 taps."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    one = g.op("Conv", x, g.weight(4, 4, 1, 3), pads=[0, 1, 0, 1])
    other = g.op("Conv", x, g.weight(4, 4, 3, 1), pads=[1, 0, 1, 0])
    g.output(g.op("Add", one, other), shape=["N", 4, 6, 6])
    assert ops(checked(g)).count("Conv") == 2


def test_a_padded_1x1_convolution() -> None:
    """Its own border, where only the bias is, lies where the unpadded 3x3 with pad 2 has one."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    one = g.op("Conv", x, g.weight(4, 4, 1, 1), g.weight(4), pads=[1] * 4)
    three = conv(g, x, 3, pads=[2] * 4)
    g.output(g.op("Add", one, three), shape=["N", 4, 8, 8])
    assert ops(checked(g)) == ["Conv"]


def test_unaligned_kernels_stay_apart() -> None:
    """Equal sizes, but a kernel that reads one position to the left of the larger one."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    one = g.op("Conv", x, g.weight(4, 4, 1, 1), pads=[2, 0, 0, 0])
    three = g.op("Conv", x, g.weight(4, 4, 3, 3), pads=[1, 1, 3, 1])
    g.output(g.op("Add", one, three), shape=["N", 4, 8, 6])
    assert ops(checked(g)).count("Conv") == 2


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_dilated_kernels(dilation: int) -> None:
    """3x3 of any dilation reads only positions of a 7x7; one of 3 and one of 2 do not meet."""
    g = Graph()
    x = g.input("x", "N", 4, 9, 9)
    small = conv(g, x, 3, pads=[dilation] * 4, dilations=[dilation] * 2)
    g.output(g.op("Add", small, conv(g, x, 7, pads=[3] * 4)), shape=["N", 4, 9, 9])
    assert ops(checked(g)) == ["Conv"]


def test_dilations_that_do_not_meet_stay_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 9, 9)
    two, three = (conv(g, x, 3, pads=[d] * 4, dilations=[d] * 2) for d in (2, 3))
    g.output(g.op("Add", two, three), shape=["N", 4, 9, 9])
    assert ops(checked(g)).count("Conv") == 2


def test_equal_strides_merge_where_the_kernels_meet() -> None:
    """3x3 with pad 1 and 1x1 with pad 0, both of stride 2, read around the same positions."""
    g = Graph()
    x = g.input("x", "N", 4, 7, 7)
    three, one = (conv(g, x, kernel, strides=[2, 2]) for kernel in (3, 1))
    g.output(g.op("Add", three, one), shape=["N", 4, 4, 4])
    assert ops(checked(g)) == ["Conv"]


def test_sizes_that_are_equal_for_this_input() -> None:
    """2x2 and 3x3 of stride 2 leave 4 of 8 positions, of 7 they would leave 3 and 4."""
    for fixed in (True, False):
        g = Graph()
        x = g.input("x", "N", 4, *((8, 8) if fixed else ("H", "W")))
        two = conv(g, x, 2, strides=[2, 2], pads=[0] * 4)
        three = conv(g, x, 3, strides=[2, 2])
        g.output(g.op("Add", two, three))
        if fixed:
            assert ops(checked(g)) == ["Conv"]
        else:
            assert ops(fold(g)).count("Conv") == 2


def test_equal_sizes_of_unequal_strides_stay_apart() -> None:
    """On 7 positions 3 with stride 2 and 4 with stride 2 and more padding leave 3 and 3."""
    g = Graph()
    x = g.input("x", "N", 4, 7, 7)
    two = conv(g, x, 3, strides=[2, 2], pads=[0, 0, 0, 0])
    three = conv(g, x, 1, strides=[3, 3], pads=[0, 0, 0, 0])
    g.output(g.op("Add", two, three), shape=["N", 4, 3, 3])
    assert ops(checked(g)).count("Conv") == 2


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_padding_told_by_mode(mode: str, kernel: int) -> None:
    """For stride 1 it does not depend on the size: k - 1, an odd one at the end or beginning."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    same = g.op("Conv", x, g.weight(4, 4, kernel, kernel), auto_pad=mode)
    g.output(g.op("Add", same, g.bn(x, 4)), shape=["N", 4, 6, 6])
    assert ops(checked(g)) == ["Relu", "Conv"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_padding_told_by_mode_as_onnxruntime_reads_it(mode: str, kernel: int) -> None:
    g = Graph("float32")
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    same = g.op("Conv", x, g.weight(4, 4, kernel, kernel), auto_pad=mode)
    g.output(g.op("Add", same, g.bn(x, 4)), shape=["N", 4, 6, 6])
    folded, given = fold(g), feeds(g.model())
    assert ops(folded) == ["Relu", "Conv"]
    assert distance(*ort_run(g.model(), given), *ort_run(folded.model, given)) < 1e-5


def test_strided_padding_told_by_mode() -> None:
    """It depends on the size, but for one tap, which needs none."""
    for kernel, left in ((3, 2), (1, 1)):
        g = Graph()
        x = g.input("x", "N", 4, 6, 6)
        more: dict[str, Any] = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
        same = g.op("Conv", x, g.weight(4, 4, kernel, kernel), **more)
        g.output(g.op("Add", same, conv(g, x, 1, strides=[2, 2])), shape=["N", 4, 3, 3])
        assert ops(checked(g)).count("Conv") == left


def test_dilated_padding_told_by_mode_stays_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    same = g.op("Conv", x, g.weight(4, 4, 3, 3), auto_pad="SAME_UPPER", dilations=[2, 2])
    g.output(g.op("Add", same, conv(g, x, 1)), shape=["N", 4, None, None])
    assert ops(fold(g)).count("Conv") == 2


@pytest.mark.parametrize("axes", [1, 3])
def test_other_numbers_of_axes(axes: int) -> None:
    g = Graph()
    sizes = [5, 6, 4][:axes]
    x = g.op("Relu", g.input("x", "N", 4, *sizes))
    summands = [
        g.bn(g.op("Conv", x, g.weight(4, 2, *[k] * axes), pads=[k // 2] * 2 * axes, group=2), 4)
        for k in (3, 1)
    ]
    g.output(g.op("Sum", *summands, g.bn(x, 4)), shape=["N", 4, *sizes])
    assert ops(checked(g)) == ["Relu", "Conv"]


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "pads", "stride"), [(3, 1, 1), (3, 1, 2), (3, 0, 1), (1, 0, 1)])
def test_an_average_pool_is_a_kernel(group: int, kernel: int, pads: int, stride: int) -> None:
    """The average branch of a Diverse Branch Block: pool and batch-norm on x."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 8, 8))
    more: dict[str, Any] = {"pads": [pads] * 4, "strides": [stride] * 2}
    average = g.bn(pool(g, x, kernel, **more), 4)
    main = g.bn(conv(g, x, kernel, group=group, **more), 4)
    g.output(g.op("Add", average, main), shape=["N", 4, None, None])
    folded = checked(g)
    assert ops(folded) == ["Relu", "Conv"]
    assert batchnorms(folded.model) == 0


@pytest.mark.parametrize(
    "more",
    [
        {"pads": [1] * 4, "count_include_pad": 0},
        {"pads": [1] * 4, "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER"},
    ],
)
def test_a_pool_whose_weights_differ_at_the_border_stays(more: dict[str, Any]) -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.op("Add", pool(g, x, 3, **more), conv(g, x, 3)), shape=["N", 4, 6, 6])
    assert count(checked(g).model) == 3


def test_a_pool_of_other_channels_than_the_convolution_makes_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.op("Add", pool(g, x, 1), conv(g, x, 1, channels=1)), shape=["N", 4, 6, 6])
    assert count(checked(g).model) == 3


def test_a_max_pool_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    highest = g.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    g.output(g.op("Add", highest, conv(g, x, 3)), shape=["N", 4, 6, 6])
    assert count(checked(g).model) == 3


def transposed(g: Graph, x: str, kernel: int, group: int = 1, **more: Any) -> str:
    weight = g.weight(4, 8 // group, kernel, kernel)
    return str(g.op("ConvTranspose", x, weight, g.weight(8), group=group, **more))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_transposed_convolutions(group: int) -> None:
    g = Graph()
    x = g.input("x", "N", 4, 5, 5)
    more: dict[str, Any] = {"strides": [2, 2], "output_padding": [1, 1]}
    summands = [
        g.bn(transposed(g, x, 3, 1, pads=[1] * 4, **more), 8),
        g.bn(transposed(g, x, 3, group, pads=[1] * 4, **more), 8),
        transposed(g, x, 1, group, pads=[0] * 4, **more),
    ]
    g.output(g.op("Sum", *summands), shape=["N", 8, 10, 10])
    assert ops(checked(g)) == ["ConvTranspose"]


def test_a_transposed_convolution_of_stride_1_takes_up_the_identity() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 5, 5))
    y = g.op("ConvTranspose", x, g.weight(4, 2, 3, 3), pads=[1] * 4, group=2)
    g.output(g.op("Sub", g.bn(x, 4), y), shape=["N", 4, 5, 5])
    folded = checked(g)
    assert ops(folded) == ["Relu", "ConvTranspose"]
    assert batchnorms(folded.model) == 0


def test_a_transposed_convolution_and_a_plain_one_stay_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 5, 5)
    y = g.op("ConvTranspose", x, g.weight(4, 4, 3, 3), pads=[1] * 4)
    g.output(g.op("Add", y, conv(g, x, 3)), shape=["N", 4, 5, 5])
    assert count(checked(g).model) == 3


def test_transposed_convolutions_of_a_told_output_shape_stay_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 5, 5)
    one, other = (transposed(g, x, 3, output_shape=[7, 7]) for _ in range(2))
    g.output(g.op("Add", one, other), shape=["N", 8, 7, 7])
    assert count(checked(g).model) == 3
