"""What the model computes, in float64: the truth that both graphs are measured against.

The un-folded graph is interpreted node by node. Floating-point tensors of any type are
float64 throughout, casts between float types are identities, and so the result carries no
rounding but float64's own. With `rounded=True` each result is rounded to the type that the
graph declares for it: that is how types run for which onnxruntime has no kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from converter.evaluation.kernels import kernels_of
from converter.graph.naming import label
from converter.graph.rounding import round_once
from converter.graph.values import EPSILON
from converter.system.memory import ended, shortage

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

_FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)}
_FLOAT_TYPES = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


# Ops that are evaluated as in a later opset, with an attribute for what was fixed before: the
# reference evaluator uses the later default for the earlier op.
_LATER: dict[str, tuple[int, dict[str, str]]] = {
    "RoiAlign": (16, {"coordinate_transformation_mode": "output_half_pixel"}),
}


class OracleError(Exception):
    """A node has no float64 evaluation; the message names it."""


class BatchNormalization(OpRun):
    """Replaces the reference evaluator's in the bodies of Loop and Scan before opset 14, where that
    mixes the statistics of the batch into the running ones."""

    op_domain = ""

    def _run(self, x: Array, *parameters: Array, epsilon: float | None = None, **_: Any) -> Any:
        if len(self.onnx_node.output) > 1:
            raise NotImplementedError("batch statistics inside of a body")
        shape = [1, -1] + [1] * (x.ndim - 2)
        gamma, beta, mean, var = (value.reshape(shape) for value in parameters)
        return (
            gamma * (x - mean) / np.sqrt(var + (EPSILON if epsilon is None else epsilon)) + beta,
        )


class Oracle:
    """Evaluates a graph in float64.

    Args:
        model: the graph; weights are converted when they are needed, one node at a time.
        rounded: round every result to its declared type.
    """

    def __init__(self, model: ir.Model, *, rounded: bool = False) -> None:
        if model.functions:
            model = model.clone()
            ir.passes.common.InlinePass()(model)
        self._model = model
        self._rounded = rounded
        opsets = model.graph.opset_imports
        self._kernels = kernels_of(opsets.get("", opsets.get("ai.onnx", 0)))
        self._evaluators: dict[ir.Node, tuple[ReferenceEvaluator, list[ir.Value]]] = {}

    def run(self, feeds: Feeds) -> Feeds:
        """The outputs by name; float outputs are float64.

        Raises:
            OracleError: a node cannot be evaluated.
            UserError: memory ran out; it names the node.
        """
        env: dict[ir.Value, Array] = {}
        for value in self._model.graph.inputs:
            if value.name in feeds:
                env[value] = _widen(feeds[value.name])
        with np.errstate(all="ignore"):  # NaN and infinity are results like any other
            self._run_graph(self._model.graph, env)
        return {value.name or "": self._fetch(value, env) for value in self._model.graph.outputs}

    def results(self, node: ir.Node, env: dict[ir.Value, Array]) -> tuple[Array, ...]:
        """The results of one node, from the values in `env` and the constants of the model.

        Raises:
            OracleError: it cannot be evaluated.
        """
        found = tuple(_widen(result) for result in self._run_node(node, env))
        if not self._rounded:
            return found
        return tuple(self._round(v, r) for v, r in zip(node.outputs, found, strict=False))

    def _run_graph(self, graph: ir.Graph, env: dict[ir.Value, Array]) -> None:
        last = _last_readers(graph)
        for node in graph:
            env.update(zip(node.outputs, self.results(node, env), strict=False))
            for value in last.get(node, ()):
                env.pop(value, None)

    def _run_node(self, node: ir.Node, env: dict[ir.Value, Array]) -> tuple[Array, ...]:
        if node.domain == "" and node.op_type == "If":
            return self._run_if(node, env)
        inputs = [None if value is None else self._fetch(value, env) for value in node.inputs]
        try:
            if node.domain == "":
                if node.op_type in {"Cast", "CastLike"}:
                    return (self._cast(node, inputs),)
                kernel = self._kernels.get(node.op_type)
                results = kernel(node, inputs) if kernel else None
                if results is not None:
                    return results
            return self._reference(node, env)
        except OracleError:
            raise
        except Exception as error:
            if ended(error):
                raise shortage(error, f"at {label(node)}, computed in float64") from error
            reason = str(error).strip().splitlines()
            raise OracleError(
                f"{label(node)} cannot be evaluated in float64: {reason[0] if reason else error!r}"
            ) from error

    def _run_if(self, node: ir.Node, env: dict[ir.Value, Array]) -> tuple[Array, ...]:
        condition = node.inputs[0]
        assert condition is not None
        taken = "then_branch" if bool(np.all(self._fetch(condition, env))) else "else_branch"
        branch = node.attributes[taken].as_graph()
        self._run_graph(branch, env)
        results = tuple(self._fetch(value, env) for value in branch.outputs)
        inside = {value for node in branch for value in node.outputs}
        for value in inside:
            env.pop(value, None)
        return results

    def _reference(self, node: ir.Node, env: dict[ir.Value, Array]) -> tuple[Array, ...]:
        evaluator, values = self._evaluator(node)
        feeds = {value.name or "": self._fetch(value, env) for value in values}
        results = evaluator.run(None, feeds)
        assert isinstance(results, list)
        return tuple(results)

    def _evaluator(self, node: ir.Node) -> tuple[ReferenceEvaluator, list[ir.Value]]:
        """onnx's reference evaluator for one node, and the values that it reads."""
        if node not in self._evaluators:
            values = list(dict.fromkeys(read_by(node)))
            versions = dict(self._model.graph.opset_imports)
            proto = ir.serde.serialize_node(node)
            if node.domain == "" and node.op_type in _LATER:
                since, fixed = _LATER[node.op_type]
                if versions.get("", 0) < since:
                    versions[""] = since
                    proto.attribute.extend(starmap(onnx.helper.make_attribute, fixed.items()))
            graph = onnx.helper.make_graph(
                [proto],
                "node",
                [
                    onnx.helper.make_value_info(value.name or "", onnx.TypeProto())
                    for value in values
                ],
                [
                    onnx.helper.make_value_info(v.name, onnx.TypeProto())
                    for v in node.outputs
                    if v.name
                ],
            )
            opsets = [
                # The default domain has two names; ir's nodes know only the short one.
                onnx.helper.make_opsetid("" if domain == "ai.onnx" else domain, version)
                for domain, version in versions.items()
            ]
            model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
            older = any(entry.domain == "" and entry.version < 14 for entry in opsets)
            own: list[type[OpRun]] = [BatchNormalization] if older else []
            self._evaluators[node] = ReferenceEvaluator(model, new_ops=own), values
        return self._evaluators[node]

    def _fetch(self, value: ir.Value, env: dict[ir.Value, Array]) -> Array:
        if value in env:
            return env[value]
        if value.const_value is not None:
            constant: Array = _widen(value.const_value.numpy())
            return constant
        raise OracleError(f"the value {value.name!r} is not computed by anything.")

    def _cast(self, node: ir.Node, inputs: list[Array | None]) -> Array:
        x = np.asarray(inputs[0])
        if node.op_type == "CastLike":
            return x.astype(np.asarray(inputs[1]).dtype)
        to = ir.DataType(node.attributes["to"].as_int())
        if to in _FLOAT_TYPES and x.dtype == np.float64:
            return x
        return x.astype(np.float64 if to in _FLOAT_TYPES else to.numpy())

    @staticmethod
    def _round(value: ir.Value, result: Any) -> Any:
        if isinstance(result, list):
            return result  # a sequence: its tensors are rounded when they are taken out of it
        if result.dtype != np.float64 or value.dtype not in _FLOAT_TYPES:
            return result
        return round_once(result, value.dtype.numpy()).astype(np.float64)


def _widen(array: Any) -> Any:
    """Convert to float64; a sequence of tensors stays one (SplitToSequence and similar ops)."""
    if isinstance(array, list):
        return [_widen(item) for item in array]
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype in _FLOATS else array


def read_by(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, including the values that its subgraphs capture."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else list(attribute.as_graphs())
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            inside = {*graph.inputs, *graph.initializers.values()}
            for inner in graph:
                yield from (value for value in read_by(inner) if value not in inside)
                inside.update(inner.outputs)
            yield from (value for value in graph.outputs if value not in inside)


def _last_readers(graph: ir.Graph) -> dict[ir.Node, list[ir.Value]]:
    """For each node, the values of this graph (and its inputs) that nothing needs after it."""
    last: dict[ir.Value, ir.Node] = {}
    first = next(iter(graph), None)
    if first is not None:
        last = dict.fromkeys(graph.inputs, first)
    for node in graph:
        for value in node.outputs:
            last[value] = node
        for value in read_by(node):
            if value in last:
                last[value] = node
    kept = set(graph.outputs)
    found: dict[ir.Node, list[ir.Value]] = {}
    for value, node in last.items():
        if value not in kept:
            found.setdefault(node, []).append(value)
    return found
