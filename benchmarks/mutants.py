"""Mutants: a graph with one thing changed, as a wrong fold or a wrong tool would.

    weight      one number, by a little or by a lot; a sign; a row scaled
    channels    two rows or columns of a weight exchanged
    attribute   strides, pads, axes, perms, epsilons, alphas, modes
    edge        an input of a node is another value
    exchange    two inputs of a node change places
    branch      the bodies of an If change places
    type        the target of a Cast
    removal     a node is passed by
    operation   an op is another one of its kind
    places      whole numbers that are read as sizes, axes or bounds
    slight      one number by 4 to 64 roundings of its type, a little more than may be
    drift       all weights by a few roundings, in the same direction

Seeded: the same seed gives the same mutant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, numpy_helper

Random = np.random.Generator

_LIKE = (
    ("Add", "Sub", "Mul", "Div", "Max", "Min"),
    ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Abs", "Neg", "Identity"),
    ("MaxPool", "AveragePool"),
    ("GlobalMaxPool", "GlobalAveragePool"),
    ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin"),
    ("SpaceToDepth", "DepthToSpace"),
)


def mutant(model: ModelProto, seed: int) -> tuple[ModelProto, str] | None:
    """A changed copy and what was changed; None if this draw changes nothing."""
    rng = np.random.default_rng(seed)
    changed = ModelProto()
    changed.CopyFrom(model)
    graphs = list(_graphs(changed.graph))
    kind = list(_KINDS)[int(rng.integers(len(_KINDS)))]
    told = _KINDS[kind](graphs[int(rng.integers(len(graphs)))], rng)
    if told is None or changed.SerializeToString() == model.SerializeToString():
        return None
    return changed, f"{kind}: {told}"


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _weight(graph: GraphProto, rng: Random) -> str | None:
    found = _tensor(graph, rng, "f")
    if found is None:
        return None
    tensor, array = found
    flat = array.reshape(-1)
    place = int(rng.integers(flat.size))
    size = float(10.0 ** rng.integers(-5, 1))
    match int(rng.integers(5)):
        case 0:
            flat[place] *= 1 + size
        case 1:
            flat[place] = -flat[place]
        case 2:
            array[int(rng.integers(array.shape[0]))] *= 1 + size
        case 3:
            array *= 1 + size
        case _:
            flat[place] += size
    _put(tensor, array)
    return f"{tensor.name} by {size:g}"


# One rounding of a type, as a share of a number.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def _slight(graph: GraphProto, rng: Random) -> str | None:
    found = _tensor(graph, rng, "f")
    if found is None:
        return None
    tensor, array = found
    flat, place = array.reshape(-1), int(rng.integers(array.size))
    by = int(rng.integers(4, 65)) * int(rng.choice([-1, 1]))
    flat[place] *= 1 + by * ROUNDING[array.dtype.name]
    _put(tensor, array)
    return f"{tensor.name} by {by} roundings"


def _drift(graph: GraphProto, rng: Random) -> str | None:
    by = int(rng.integers(1, 9)) * int(rng.choice([-1, 1]))
    least = int(rng.integers(1, 3))  # biases as well, or only what has more than one axis
    for tensor, array in _tensors(graph, "f"):
        if array.ndim >= least:
            _put(tensor, array * (1 + by * ROUNDING[array.dtype.name]))
    return f"by {by} roundings"


def _channels(graph: GraphProto, rng: Random) -> str | None:
    found = _tensor(graph, rng, "f")
    if found is None:
        return None
    tensor, array = found
    axis = int(rng.integers(array.ndim))
    if array.shape[axis] < 2:
        return None
    one, other = rng.choice(array.shape[axis], 2, replace=False)
    order = np.arange(array.shape[axis])
    order[[one, other]] = other, one
    _put(tensor, np.take(array, order, axis))
    return f"{tensor.name} along {axis}"


def _places(graph: GraphProto, rng: Random) -> str | None:
    found = _tensor(graph, rng, "i")
    if found is None:
        return None
    tensor, array = found
    flat = array.reshape(-1)
    if rng.random() < 0.3 and flat.size > 1:
        flat[:] = rng.permutation(flat)
    else:
        flat[int(rng.integers(flat.size))] += int(rng.choice([-2, -1, 1, 2]))
    _put(tensor, array)
    return tensor.name


def _tensors(graph: GraphProto, kind: str) -> list[tuple[onnx.TensorProto, np.ndarray]]:
    tensors = list(graph.initializer)
    for node in graph.node:
        tensors += [a.t for a in node.attribute if a.type == AttributeProto.TENSOR]
    arrays = [(tensor, np.array(numpy_helper.to_array(tensor))) for tensor in tensors]
    return [
        (t, a if a.ndim else a.reshape(1))
        for t, a in arrays
        if (a.dtype.kind == kind or (kind == "f" and a.dtype.name == "bfloat16")) and a.size
    ]


def _tensor(
    graph: GraphProto, rng: Random, kind: str
) -> tuple[onnx.TensorProto, np.ndarray] | None:
    fit = _tensors(graph, kind)
    return fit[int(rng.integers(len(fit)))] if fit else None


def _put(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    kept = numpy_helper.to_array(tensor)
    made = numpy_helper.from_array(array.astype(kept.dtype).reshape(kept.shape), tensor.name)
    tensor.CopyFrom(made)


def _attribute(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: any(a.type in _NUMBERS for a in n.attribute))
    if node is None:
        return None
    fit = [a for a in node.attribute if a.type in _NUMBERS]
    attribute = fit[int(rng.integers(len(fit)))]
    match attribute.type:
        case AttributeProto.INT:
            attribute.i += int(rng.choice([-1, 1]))
        case AttributeProto.FLOAT:
            attribute.f *= 1 + float(10.0 ** rng.integers(-4, 1))
        case AttributeProto.STRING:
            words = [b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"linear", b"nearest", b"reflect",
                     b"edge", b"constant", b"DCR", b"CRD", b"asymmetric", b"half_pixel",
                     b"align_corners", b"forward", b"reverse", b"tanh", b"none"]  # fmt: skip
            attribute.s = words[int(rng.integers(len(words)))]
        case AttributeProto.INTS if attribute.ints:
            place = int(rng.integers(len(attribute.ints)))
            if rng.random() < 0.4:
                attribute.ints[:] = [int(n) for n in rng.permutation(list(attribute.ints))]
            else:
                attribute.ints[place] += int(rng.choice([-1, 1]))
        case _:
            return None
    return f"{node.op_type}.{attribute.name}"


_NUMBERS = {AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.INTS, AttributeProto.STRING}


def _node(graph: GraphProto, rng: Random, fits: Callable[[NodeProto], bool]) -> NodeProto | None:
    found = [node for node in graph.node if fits(node)]
    return found[int(rng.integers(len(found)))] if found else None


def _edge(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: any(n.input))
    if node is None:
        return None
    before: list[str] = [v.name for v in graph.input] + [t.name for t in graph.initializer]
    for other in graph.node:
        if other is node or other.output == node.output:
            break
        before += [name for name in other.output if name]
    place = int(rng.integers(len(node.input)))
    if not before or not node.input[place]:
        return None
    # What was computed just before is more often of the same shape.
    near = before[-6:] if rng.random() < 0.7 else before
    node.input[place] = near[int(rng.integers(len(near)))]
    return f"input {place} of a {node.op_type}"


def _exchange(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: sum(map(bool, n.input)) > 1)
    if node is None:
        return None
    one, other = rng.choice(len(node.input), 2, replace=False)
    node.input[one], node.input[other] = node.input[other], node.input[one]
    return f"inputs {one} and {other} of a {node.op_type}"


def _branch(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: n.op_type == "If")
    if node is None:
        return _exchange(graph, rng)
    for attribute in node.attribute:
        attribute.name = {"then_branch": "else_branch"}.get(attribute.name, "then_branch")
    return "the bodies of an If"


def _type(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: n.op_type == "Cast")
    if node is None:
        return _attribute(graph, rng)
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = int(rng.choice([1, 6, 7, 9, 10, 11, 16]))
    return "the target of a Cast"


def _removal(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: bool(n.input) and bool(n.input[0]))
    if node is None:
        return None
    op = node.op_type
    made = onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]])
    node.CopyFrom(made)
    return f"a {op}"


def _operation(graph: GraphProto, rng: Random) -> str | None:
    node = _node(graph, rng, lambda n: any(n.op_type in like for like in _LIKE))
    if node is None:
        return None
    like = next(group for group in _LIKE if node.op_type in group)
    before, node.op_type = node.op_type, like[int(rng.integers(len(like)))]
    return f"a {before} to a {node.op_type}"


_KINDS: dict[str, Callable[[GraphProto, Random], str | None]] = {
    "weight": _weight,
    "channels": _channels,
    "attribute": _attribute,
    "edge": _edge,
    "exchange": _exchange,
    "branch": _branch,
    "type": _type,
    "removal": _removal,
    "operation": _operation,
    "places": _places,
    "slight": _slight,
    "drift": _drift,
}
