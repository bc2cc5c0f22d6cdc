"""Cases: ops that move numbers, pick them by their places, or make them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tests.converter.evaluation.sweep.net import Case, Net, one


def gather(net: Net) -> None:
    shape = net.shape(3)
    axis = net.pick(-3, -1, 0, 1, 2)
    n = shape[axis]
    net.out(net.op("Gather", net.normal(*shape), net.rng.integers(-n, n, net.shape(2)), axis=axis))


def elements(net: Net) -> tuple[Any, Any, int]:
    """A tensor, places along an axis for a smaller or larger part of it, and the axis."""
    rank = net.size(1, 3)
    axis = net.pick(-1, *range(rank))
    shape = net.shape(rank)
    shape[axis] = net.pick(2, 5, 70)  # the reference evaluator chooses by numpy's limit of 64
    part = [net.size(1, n) for n in shape]
    part[axis] = net.size(1, 6)
    return net.normal(*shape), net.rng.integers(-shape[axis], shape[axis], part), axis


def gather_elements(net: Net) -> None:
    x, places, axis = elements(net)
    net.out(net.op("GatherElements", x, places, axis=axis))


def gather_nd(net: Net) -> None:
    batch = net.size(0, 1) if net.opset >= 12 else 0
    shape = net.shape(4)
    deep = net.size(1, 4 - batch)
    places = np.stack(
        [net.rng.integers(-n, n, (*shape[:batch], 2, 3)) for n in shape[batch : batch + deep]], -1
    )
    more = {"batch_dims": batch} if net.opset >= 12 else {}
    net.out(net.op("GatherND", net.normal(*shape), places, **more))


def _how(net: Net, *since: tuple[int, str]) -> dict[str, str]:
    choices = [name for opset, name in since if net.opset >= opset]
    name = net.pick("none", *choices)
    return {} if name == "none" else {"reduction": name}


REDUCTIONS = ((16, "add"), (16, "mul"), (18, "max"), (18, "min"))


def scatter_elements(net: Net) -> None:
    x, places, axis = elements(net)
    how = _how(net, *REDUCTIONS)
    if not how:  # which of two writes to one place wins is not said: none meet
        row = net.rng.permutation(x.shape[axis])[: places.shape[axis]]
        shape = [1] * x.ndim
        shape[axis] = -1
        wide = list(places.shape)
        wide[axis] = len(row)
        places = np.broadcast_to(row.reshape(shape), wide).copy()
    net.out(net.op("ScatterElements", x, places, net.normal(*places.shape), axis=axis, **how))


def scatter_nd(net: Net) -> None:
    shape = net.shape(3, low=2)
    deep = net.size(1, 3)
    count = prod(shape[:deep])
    how = _how(net, *REDUCTIONS)
    flat = net.rng.choice(count, 2, replace=bool(how))
    places = np.stack(np.unravel_index(flat, shape[:deep]), -1).astype(np.int64)
    values = net.normal(2, *shape[deep:])
    net.out(net.op("ScatterND", net.normal(*shape), places, values, **how))


def concat(net: Net) -> None:
    shape, axis = net.shape(3), net.pick(-1, 0, 1)
    parts = []
    for _ in range(net.size(1, 3)):
        shape[axis] = net.size()
        parts.append(net.normal(*shape))
    net.out(net.op("Concat", *parts, axis=axis))


def split(net: Net) -> None:
    shape, axis = net.shape(3), net.pick(-1, 0, 1)
    sizes = [net.size(), net.size(), net.size()]
    shape[axis] = sum(sizes)
    if net.opset < 13:
        net.out(*net.op("Split", net.normal(*shape), axis=axis, split=sizes, outputs=3))
    elif net.opset >= 18 and net.pick(True, False):
        shape[axis] = net.pick(5, 6)
        net.out(*net.op("Split", net.normal(*shape), axis=axis, num_outputs=3, outputs=3))
    else:
        net.out(*net.op("Split", net.normal(*shape), np.array(sizes), axis=axis, outputs=3))


def slices(net: Net) -> None:
    shape = net.shape(3, low=2)
    axes = net.pick([0], [-1, 0], [1, 2])
    steps = np.array([net.pick(1, 2, -1, -2) for _ in axes])
    starts = np.array([net.pick(0, -1, 1) if s > 0 else net.pick(-1, 100) for s in steps])
    ends = np.array([net.pick(100, -1, 2) if s > 0 else net.pick(-100, 0) for s in steps])
    net.out(net.op("Slice", net.normal(*shape), starts, ends, np.array(axes), steps))


def pad(net: Net) -> None:
    shape = net.shape(3, low=2)
    modes = ["constant", "reflect", "edge", *(["wrap"] if net.opset >= 19 else [])]
    mode = net.pick(*modes)
    amounts = np.array([net.pick(-1, 0, 1) for _ in range(6)])
    value = net.pick("", np.float32(0.7)) if mode == "constant" else ""
    more = [] if net.opset < 18 else net.pick([], [np.array([0, -1])])
    if more:
        amounts = np.array([net.size(0, 1) for _ in range(4)])
    net.out(net.op("Pad", net.normal(*shape), amounts, value, *more, mode=mode))


def reshape(net: Net) -> None:
    shape = net.shape(3)
    target = net.pick([-1], [0, -1], [shape[0] * shape[1], shape[2]], [1, *shape, 1])
    net.out(net.op("Reshape", net.normal(*shape), np.array(target)))


def squeeze(net: Net) -> None:
    x, axes = net.normal(2, 1, 3, 1), net.pick([1], [-1], [1, 3])
    if net.opset >= 13:
        net.out(net.op("Squeeze", x, *net.pick([], [np.array(axes)])))
    else:
        net.out(net.op("Squeeze", x, axes=axes))


def unsqueeze(net: Net) -> None:
    x, axes = net.normal(2, 3), net.pick([0], [-1], [0, 3])
    if net.opset >= 13:
        net.out(net.op("Unsqueeze", x, np.array(axes)))
    else:
        net.out(net.op("Unsqueeze", x, axes=axes))


def transpose(net: Net) -> None:
    shape = net.shape(4)
    order = net.rng.permutation(4).tolist()
    more = net.pick({}, {"perm": order})
    net.out(net.op("Transpose", net.normal(*shape), **more))


def expand(net: Net) -> None:
    net.out(net.op("Expand", net.normal(3, 1), np.array(net.pick([2, 3, 4], [1, 5], [3, 1]))))


def tile(net: Net) -> None:
    net.out(net.op("Tile", net.normal(*net.shape(3)), net.rng.integers(1, 3, 3)))


def topk(net: Net) -> None:
    """Small whole numbers: of equal ones the first counts."""
    shape, axis = net.shape(3, low=2), net.pick(-1, 0, 1)
    x = net.rng.integers(-2, 3, shape).astype(float)
    k = np.array([net.size(1, shape[axis])])
    net.out(*net.op("TopK", x, k, axis=axis, largest=net.pick(0, 1), outputs=2))


def one_hot(net: Net) -> None:
    where = net.rng.integers(-5, 5, net.shape(2))
    more = {"axis": net.pick(-1, 0, 1)}
    net.out(net.op("OneHot", where, np.array([5]), np.array([0.5, 2.0]), **more))


def unique(net: Net) -> None:
    x = net.rng.integers(-2, 3, net.shape(2, low=2)).astype(float)
    more = {"sorted": 1, **net.pick({}, {"axis": 0}, {"axis": 1})}
    net.out(*net.op("Unique", x, outputs=4, **more))


def compress(net: Net) -> None:
    x = net.normal(3, 4)
    more = net.pick({}, {"axis": 0}, {"axis": -1})
    net.out(net.op("Compress", x, np.array([True, False, True]), **more))


def reverse_sequence(net: Net) -> None:
    shape = net.shape(3, low=2)
    batch, time = net.pick((0, 1), (1, 0))
    lengths = net.rng.integers(1, shape[time] + 1, shape[batch])
    net.out(
        net.op("ReverseSequence", net.normal(*shape), lengths, batch_axis=batch, time_axis=time)
    )


def trilu(net: Net) -> None:
    k = net.pick([], [np.array(net.pick(-1, 0, 1, 5), np.int64)])
    net.out(net.op("Trilu", net.normal(*net.shape(3)), *k, upper=net.pick(0, 1)))


def range_(net: Net) -> None:
    ends = net.pick((0.0, 5.0, 0.5), (3.0, -2.0, -1.5), (0.0, 0.0, 1.0))
    net.out(net.op("Range", *(np.float32(end) for end in ends)))


def depth_to_space(net: Net) -> None:
    mode = net.pick("DCR", "CRD")
    net.out(net.op("DepthToSpace", net.normal(2, 8, 2, 3), blocksize=2, mode=mode))


def constant_of_shape(net: Net) -> None:
    from onnx import numpy_helper

    value = net.pick({}, {"value": numpy_helper.from_array(np.array([1.5], np.float32))})
    net.out(net.op("ConstantOfShape", np.array(net.shape(3)), **value))


def constant(net: Net) -> None:
    from onnx import numpy_helper

    kinds: list[dict[str, Any]] = [{"value": numpy_helper.from_array(np.array([1.5], np.float32))}]
    if net.opset >= 12:
        kinds += [{"value_floats": [1.0, 2.0]}, {"value_float": 0.5}]
    net.out(net.op("Relu", net.op("Constant", **net.pick(*kinds))))
    net.out(net.op("Relu", net.normal(2)))


def optional(net: Net) -> None:
    held = net.op("Optional", net.normal(2, 3))
    net.out(net.op("OptionalGetElement", held), net.op("OptionalHasElement", held))


def col2im(net: Net) -> None:
    x = net.normal(2, 3 * 4, 12)
    net.out(net.op("Col2Im", x, np.array([4, 5]), np.array([2, 2])))


def center_crop_pad(net: Net) -> None:
    x = net.normal(3, 6, 5)
    if net.pick(True, False):
        net.out(net.op("CenterCropPad", x, np.array([4, 8]), axes=net.pick([1, 2], [-1, 0])))
    else:
        net.out(net.op("CenterCropPad", x, np.array([5, 3, 6])))


CASES: dict[str, Case] = {
    "CenterCropPad": center_crop_pad,
    "Col2Im": col2im,
    "Compress": compress,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "EyeLike": one(
        "EyeLike", lambda net: net.normal(3, 4), k=lambda net: net.pick(None, -1, 1, 2)
    ),
    "Flatten": one(
        "Flatten", lambda net: net.normal(2, 3, 2), axis=lambda net: net.pick(-1, 0, 1, 3)
    ),
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Optional": optional,
    "OptionalGetElement": optional,
    "OptionalHasElement": optional,
    "Pad": pad,
    "Range": range_,
    "Reshape": reshape,
    "ReverseSequence": reverse_sequence,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Slice": slices,
    "SpaceToDepth": one("SpaceToDepth", lambda net: net.normal(2, 2, 4, 6),
                        blocksize=lambda _: 2),
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "TopK": topk,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unique": unique,
    "Unsqueeze": unsqueeze,
}  # fmt: skip
