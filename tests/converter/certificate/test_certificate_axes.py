"""Sizes that are always the same are constants, whoever evaluates them; open ones are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converter.certificate import Certified, certify
from patterns.graphs import Graph

Build = Callable[[Graph], str]


def written(build: Build) -> ir.Model:
    g = Graph("float32")
    g.output(g.rename(build(g), "y"))
    return g.model()


def same(one: Build, other: Build) -> bool:
    return isinstance(certify(written(one), written(other)), Certified)


def conv(g: Graph) -> str:
    """Of the sizes (N, 16, 8, W)."""
    x = g.input("x", "N", 3, 8, "W")
    weight = g.const(np.random.default_rng(1).standard_normal((16, 3, 3, 3)))
    return str(g.op("Conv", x, weight, pads=[1, 1, 1, 1]))


def over_root(axis: int | None, number: float = 4.0) -> Build:
    """x / sqrt(size of an axis), or of a constant."""

    def build(g: Graph) -> str:
        x = conv(g)
        root = g.const(np.full((), number))
        if axis is not None:
            size = g.op("Gather", g.op("Shape", x), g.const(np.array(axis)))
            root = g.op("Sqrt", g.op("Cast", size, to=1))
        return str(g.op("Div", x, root))

    return build


def test_the_root_of_a_number_of_channels_is_a_constant() -> None:
    assert same(over_root(1), over_root(None))
    assert not same(over_root(1), over_root(None, 4.001))
    assert same(over_root(2), over_root(None, np.sqrt(8)))


@pytest.mark.parametrize("axis", [0, 3])
def test_the_root_of_an_open_size_is_none(axis: int) -> None:
    assert same(over_root(axis), over_root(axis))
    for number in (1.0, np.sqrt(2), 8.0):
        assert not same(over_root(axis), over_root(None, number))
    assert not same(over_root(None), over_root(axis))
    assert not same(over_root(3 - axis), over_root(axis))


def test_a_cast_that_rounds_nothing_is_not_told_from_none() -> None:
    def build(casts: int) -> Build:
        def inner(g: Graph) -> str:
            x = conv(g)
            size = g.op("Cast", g.op("Shape", x, start=3), to=1)
            for _ in range(casts):
                size = g.op("Cast", size, to=1)
            return str(g.op("Mul", x, g.op("Sqrt", size)))

        return inner

    assert same(build(2), build(0))
    assert same(build(0), build(2))


def flat(*target: int | str) -> Build:
    """A Reshape; "N" and "W" are read from the input."""

    def build(g: Graph) -> str:
        x = conv(g)
        sizes = {"N": g.op("Shape", x, start=0, end=1), "W": g.op("Shape", x, start=3)}
        parts = [sizes[n] if isinstance(n, str) else g.const(np.array([n])) for n in target]
        y = g.op("Reshape", x, g.op("Concat", *parts, axis=0))
        last = g.op("Cast", g.op("Shape", y, start=2), to=1)
        return str(g.op("Mul", y, g.op("Sqrt", last)))

    return build


def test_what_a_reshape_leaves_is_followed() -> None:
    def constant(g: Graph) -> str:
        y = g.op("Reshape", conv(g), g.const(np.array([0, -1, 128])))
        return str(g.op("Mul", y, g.const(np.full((), np.sqrt(128)))))

    assert same(flat("N", "W", -1), constant)
    assert same(flat(0, -1, 128), constant)
    assert same(flat("N", "W", -1), flat(0, -1, 128))
    # The last axis is 8 * W: another number at another width.
    assert not same(flat("N", 16, -1), constant)


def test_a_weight_that_is_repeated_for_each_sample_may_be_moved_as_a_weight() -> None:
    table = np.random.default_rng(0).standard_normal((1, 16, 8, 1)).astype(np.float32)

    def build(by: float) -> Build:
        def inner(g: Graph) -> str:
            x = conv(g)
            ones = g.const(np.array([1, 1, 1]))
            times = g.op("Concat", g.op("Shape", x, start=0, end=1), ones, axis=0)
            return str(g.op("Add", x, g.op("Tile", g.const(table * np.float32(by)), times)))

        return inner

    assert same(build(1.0), build(1 + 2.0**-23))
    assert not same(build(1.0), build(1 + 2.0**-18))


def test_a_size_that_is_cast_like_a_value_is_a_constant() -> None:
    """How torch.export writes the factor of an attention."""

    def build(g: Graph) -> str:
        x = conv(g)
        size = g.op("CastLike", g.op("Shape", x, start=1, end=2), x)
        return str(g.op("Div", x, g.op("Sqrt", size)))

    assert same(build, over_root(None))
    assert not same(build, over_root(None, 4.001))


def test_channels_that_are_split_into_a_sequence() -> None:
    """How torch.export writes a split: by one number, of which the fixed axis holds two."""

    def build(way: str, place: int = 1) -> Build:
        def inner(g: Graph) -> str:
            x = conv(g)
            if way == "Split":
                half = g.op("Split", x, g.const(np.array([8, 8])), outputs=2, axis=1)[place]
            elif way == "halves":
                half = g.op("Split", x, outputs=2, axis=1, num_outputs=2)[place]
            else:
                axis = 1 if way == "channels" else 3
                held = g.op("SplitToSequence", x, g.const(np.int64(8)), axis=axis)
                half = g.op("SequenceAt", held, g.const(np.int64(place)))
            root = g.op("Sqrt", g.op("Cast", g.op("Shape", half, start=1, end=2), to=1))
            return str(g.op("Mul", half, root))

        return inner

    assert same(build("channels"), build("Split"))
    assert same(build("channels"), build("halves"))
    assert not same(build("channels"), build("halves", 0))
    assert not same(build("channels"), build("Split", 0))
    assert not same(build("open"), build("open"))


def test_a_cast_to_the_type_that_it_has_is_none() -> None:
    def build(cast: bool) -> Build:
        def inner(g: Graph) -> str:
            x = conv(g)
            sizes = g.op("Shape", x)
            small = g.op("Equal", sizes, g.const(np.array([1, 1, 1, 1])))
            small = g.op("Cast", small, to=9) if cast else small
            wide = g.op("Where", small, g.const(np.array([2, 1, 1, 1])), sizes)
            return str(g.op("Expand", g.op("ReduceMean", x, keepdims=1), wide))

        return inner

    assert same(build(cast=True), build(cast=False))


def of_frames(kernel: int, bins: int | None = None) -> Build:
    """What needs a long input: a window of `kernel` samples, or a spectrum of a sound."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", "samples")
        if bins is None:
            return str(g.op("Conv", g.op("Unsqueeze", x, g.const([1])), g.weight(2, 1, kernel)))
        window = g.const(np.hanning(kernel))
        spectrum = g.op("STFT", x, g.const(np.int64(160)), window)
        power_ = g.op("ReduceSumSquare", spectrum, g.const([3]), keepdims=0)
        return str(g.op("MatMul", power_, g.weight(bins, 8)))

    return build


@pytest.mark.parametrize("build", [of_frames(400), of_frames(2000), of_frames(10001)])
def test_sizes_of_sounds_are_tried(build: Build) -> None:
    found = certify(written(build), written(build))
    assert isinstance(found, Certified), str(found)
    assert not same(build, of_frames(401))


def test_a_spectrum_has_half_of_the_bins_unless_it_is_said() -> None:
    assert same(of_frames(400, 201), of_frames(400, 201))
    assert not same(of_frames(400, 400), of_frames(400, 400))


def test_a_batch_that_is_cut_into_fours() -> None:
    def build(g: Graph) -> str:
        x = g.op("Reshape", g.input("x", "N", 6), g.const(np.array([4, -1])))
        return str(g.op("ReduceMean", x, g.const([0])))

    found = certify(written(build), written(build))
    assert isinstance(found, Certified), str(found)
    assert found.sizes == ({"N": 4}, {"N": 8})


@pytest.mark.parametrize(("axis", "alike"), [(2, True), (3, False)])
def test_every_second_row_of_a_fixed_axis_is_known(axis: int, alike: bool) -> None:
    """Of eight rows, by steps of two or one by one; where the axis is open, there may be more."""

    def build(steps: bool) -> Build:
        def inner(g: Graph) -> str:
            x = conv(g)
            if steps:
                bounds = [g.const(np.array([n])) for n in (0, 2**31 - 1, axis, 2)]
                return str(g.op("Slice", x, *bounds))
            places = np.arange(0, 8 if axis == 2 else 64, 2)
            return str(g.op("Gather", x, g.const(places), axis=axis))

        return inner

    assert same(build(steps=True), build(steps=False)) is alike
