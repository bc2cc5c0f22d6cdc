"""Run a branch by itself, on the values it would have read: for branches that never run.

An exporter writes `If` around a Squeeze for an axis that is never 1: forced to run, the Squeeze
fails, or everything behind it does. Alone, on the values around it, the branches of both graphs may
still be compared. If they agree, the branch is proven; if they differ, that proves nothing, because
a map may have been folded across its border.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from converter.evaluation.oracle import Array, Feeds
from converter.proof.control import Body, captured
from converter.proof.measure import Case
from converter.proof.recorder import Recorder


def standing_alone(body: Body, recorder: Recorder) -> tuple[ir.Model, Feeds] | None:
    """A branch of an If as a model, and what it reads from around it, in the types of the graph.

    None where its If never ran, so that the values it would read are not known.
    """
    seen = recorder.seen.get((body.node, body.branch))
    if seen is None:
        return None
    graph = body.graph
    inputs: list[onnx.ValueInfoProto] = []
    constants = [ir.serde.serialize_tensor(v.const_value) for v in graph.initializers.values()
                 if v.const_value is not None]  # fmt: skip
    feeds: Feeds = {}
    for value in captured(graph):
        name = value.name or ""
        if value.const_value is not None:
            tensor = ir.serde.serialize_tensor(value.const_value)
            tensor.name = name
            constants.append(tensor)
        elif value in seen and value.dtype is not None:
            array = seen[value].astype(value.dtype.numpy())
            inputs.append(helper.make_tensor_value_info(name, int(value.dtype), array.shape))
            feeds[name] = array
        else:
            return None
    nodes = [ir.serde.serialize_node(node) for node in graph]
    outputs = [onnx.ValueInfoProto(name=value.name or "") for value in graph.outputs]
    proto = helper.make_model(
        helper.make_graph(nodes, "branch", inputs, outputs, constants),
        opset_imports=[
            helper.make_opsetid(domain, version)
            for domain, version in recorder.model.graph.opset_imports.items()
        ],
        ir_version=10,
    )
    try:
        typed = onnx.shape_inference.infer_shapes(proto)
    except onnx.shape_inference.InferenceError:
        return None
    known = all(output.type.HasField("tensor_type") for output in typed.graph.output)
    return (ir.serde.deserialize_model(typed), feeds) if known else None


def cases(name: str, feeds: Feeds, seed: int) -> Sequence[Case]:
    """The values that the branch would have read, and random numbers in their place."""
    rng = np.random.default_rng(seed)

    def drawn(array: Array) -> Array:
        if array.dtype.kind in "biu":
            return array
        return np.asarray(rng.standard_normal(array.shape)).astype(array.dtype)

    others = {key: drawn(array) for key, array in feeds.items()}
    return [Case(f"{name} alone", feeds), Case(f"{name} alone, random", others)]
