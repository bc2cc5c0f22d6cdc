"""Where a fold has changed nothing, there is nothing to measure: the graph itself is the proof.

An op of another domain (`com.microsoft`), or a quantised one, may have no float64 evaluation, or
one that is far from the runtime's. If nothing was folded, that does not matter:

    folded graph = normalized graph    the same nodes, with the same attributes and weights
    normalized graph = the file's      in onnxruntime, as they are, bit for bit on every input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from converter.evaluation.oracle import Array, Feeds
from converter.evaluation.runtime import OrtRunner, RunnerError
from converter.proof import examples
from converter.proof.control import random_outputs
from converter.proof.draws import STANDARD, draw
from converter.proof.invariance import invariance
from converter.proof.measure import Case, Measurement, largest_of, wide
from converter.proof.verdict import Proof
from converter.sources.loaded import Input

# How far a sample alone may be from itself in a batch, relative to the largest number: sums are
# taken in another order there.
_ORDER = 2.0**-18
_FLOATS = "f"


def same_graph(one: ir.Model, other: ir.Model) -> bool:
    """Whether both have the same nodes in the same order, and the same weights, by name."""
    return list(_nodes(one)) == list(_nodes(other)) and _same_weights(one, other)


def prove(
    loaded: ir.Model,
    candidate: ir.Model,
    inputs: Sequence[Input],
    *,
    dynamic_batch: bool,
    data: Feeds | None,
    seed: int,
    progress: Callable[[str], None],
) -> Proof | None:
    """The proof for a graph in which nothing was changed; None if something was.

    Args:
        loaded: the graph of the file.
        candidate: the graph that will be written.
        inputs, dynamic_batch, data, seed, progress: as of `verify`.
    """
    if random_outputs(candidate.graph):
        return None  # onnxruntime draws the same numbers for both, and others the next time
    progress("the same graph, in onnxruntime")
    cases = [draw(STANDARD, inputs, batch, seed) for batch in examples.batches(dynamic_batch)]
    if data is not None:
        cases.append(Case("your data", data, given=True))
    try:
        reference = OrtRunner(loaded, optimize=False)
        plain = OrtRunner(candidate, optimize=False)
        served = OrtRunner(candidate, optimize=True)
        found = [reference.run(case.feeds) for case in cases]
        for case, truth in zip(cases, found, strict=True):
            got = plain.run(case.feeds)
            if truth.keys() != got.keys() or not all(map(_equal, truth.values(), got.values())):
                return None
        usual = 1 if dynamic_batch else 0
        checked = None
        if dynamic_batch:
            last = len(examples.BATCHES) - 1
            together = served.run(cases[last].feeds)
            allowed = {name: _ORDER * _largest(array) for name, array in together.items()}
            checked = invariance(served, inputs, cases[last], together, allowed)
    except RunnerError:
        return None
    return Proof(
        tuple(
            Measurement(name, case.name, _largest(array), 0.0, 0.0, 0.0)
            for case, truth in zip(cases, found, strict=True)
            for name, array in truth.items()
        ),
        invariance=checked,
        sample=cases[usual].feeds,
        truth=found[usual],
        sampled=cases[usual].name,
        unchanged=(
            "nothing was folded: the graph has the nodes and weights of the original, and gives "
            "the same numbers in onnxruntime, bit for bit"
        ),
    )


def _nodes(model: ir.Model) -> Iterator[tuple[object, ...]]:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        attributes = {
            name: ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True)
            for name, attribute in node.attributes.items()
            if attribute.type not in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
        }
        yield (
            node.domain,
            node.op_type,
            node.overload,
            tuple(value.name if value is not None else None for value in node.inputs),
            tuple(value.name for value in node.outputs),
            tuple(sorted(attributes.items())),
        )


def _same_weights(one: ir.Model, other: ir.Model) -> bool:
    graphs = zip(
        (one.graph, *one.graph.subgraphs()), (other.graph, *other.graph.subgraphs()), strict=True
    )
    for left, right in graphs:
        if left.initializers.keys() != right.initializers.keys():
            return False
        for name, value in left.initializers.items():
            a, b = value.const_value, right.initializers[name].const_value
            if a is b:
                continue
            if a is None or b is None or a.dtype != b.dtype or not _equal(a.numpy(), b.numpy()):
                return False
    return True


def _equal(one: Array, other: Array) -> bool:
    """Equal bit for bit, except for the sign of 0 and the bits of NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == _FLOATS))


def _largest(array: Array) -> float:
    if array.dtype.kind != _FLOATS:
        return float(array.size)
    values = wide(array)
    return largest_of(values[np.isfinite(values)])
