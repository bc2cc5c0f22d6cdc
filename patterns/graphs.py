"""Small graphs with random weights, and the measures that tests take of them.

A graph is written from the input on; every method returns the name of what it made:

    g = Graph()
    x = g.input("x", "N", 3, 8, 8)
    g.output(g.bn(g.op("Conv", x, g.weight(4, 3, 3, 3)), 4))
    folded = fold_graph(normalize(g.model())).model

Weights are float64 unless asked otherwise, so that rounding hides nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from converter.evaluation.normalize import normalize
from converter.files.on_disk import Store, in_memory
from converter.folding import Folded, FoldOptions, Refusal, fold_graph
from converter.proof import Oracle

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

BATCH = 3
TYPES = {
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


class Graph:
    """A graph being written; also the body of an If when `outer` is given."""

    def __init__(
        self,
        dtype: str = "float64",
        *,
        opset: int = 20,
        ir_version: int = 10,
        seed: int = 0,
        outer: Graph | None = None,
    ) -> None:
        self.dtype, self.opset, self.ir_version = dtype, opset, ir_version
        self.rng = np.random.default_rng(seed) if outer is None else outer.rng
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.annotations: list[onnx.ValueInfoProto] = []
        self._root: Graph = self if outer is None else outer._root
        self._count = 0

    def name(self, stem: str) -> str:
        self._root._count += 1
        return f"{stem}_{self._root._count}"

    def body(self) -> Graph:
        """A subgraph; give `graph()` of it to an If, Loop or Scan."""
        return Graph(self.dtype, outer=self)

    def input(self, name: str, *shape: int | str | None, dtype: str | None = None) -> str:
        self.inputs.append(
            helper.make_tensor_value_info(name, TYPES[dtype or self.dtype], list(shape))
        )
        return name

    def const(
        self, values: Any, name: str = "", dtype: str | None = None, *, overridable: bool = False
    ) -> str:
        """An initializer; `overridable` lists it as an input, too."""
        name = name or self.name("w")
        array = np.asarray(values)
        wanted = dtype or (self.dtype if array.dtype.kind == "f" else "int64")
        if array.dtype == np.bool_:
            wanted = "bool"
        proto = (
            helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.ravel().tolist())
            if wanted == "bfloat16"
            else numpy_helper.from_array(array.astype(wanted), name)
        )
        self.initializers.append(proto)
        if overridable:
            self.inputs.append(helper.make_tensor_value_info(name, TYPES[wanted], array.shape))
        return name

    def weight(self, *shape: int, name: str = "", **more: Any) -> str:
        return self.const(self.rng.standard_normal(shape), name, **more)

    def op(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its output's name, or a list of them."""
        names = [self.name(op.lower()) for _ in range(outputs)]
        label = attributes.pop("node", "")
        self.nodes.append(helper.make_node(op, inputs, names, name=label, **attributes))
        return names[0] if outputs == 1 else names

    def bn(self, x: str, channels: int, name: str = "", **attributes: Any) -> str:
        """A batch-norm as training leaves it; name `bn1` names its parameters `bn1.weight`, .."""
        return self.op("BatchNormalization", x, *self.statistics(channels, name), **attributes)

    def statistics(self, channels: int, name: str = "", **given: Any) -> list[str]:
        """gamma, beta, mean, var: scales of both signs; `gamma=..` etc. replaces one."""
        name = name or self.name("bn")
        sign = np.where(self.rng.random(channels) < 0.5, -1.0, 1.0)
        drawn = {
            "gamma": self.rng.uniform(0.3, 1.5, channels) * sign,
            "beta": self.rng.standard_normal(channels) * 0.5,
            "mean": self.rng.standard_normal(channels) * 0.5,
            "var": self.rng.uniform(0.3, 2.0, channels),
        }
        suffix = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
        return [
            self.const(np.asarray(given.get(key, values), dtype=float), f"{name}.{suffix[key]}")
            for key, values in drawn.items()
        ]

    def output(self, name: str, *, dtype: str | None = None, shape: Any = None) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[dtype or self.dtype], shape))
        return name

    def rename(self, old: str, new: str) -> str:
        """Give the value `old` a name that a test asks for later."""
        for node in self.nodes:
            node.output[:] = [new if name == old else name for name in node.output]
            node.input[:] = [new if name == old else name for name in node.input]
        return new

    def annotate(self, name: str, *shape: int | str | None) -> str:
        """State the shape of a value, for ops that shape inference cannot see through."""
        self.annotations.append(helper.make_tensor_value_info(name, TYPES[self.dtype], list(shape)))
        return name

    def graph(self) -> onnx.GraphProto:
        return helper.make_graph(
            self.nodes, "g", self.inputs, self.outputs, self.initializers,
            value_info=self.annotations,
        )  # fmt: skip

    def proto(self) -> onnx.ModelProto:
        return helper.make_model(
            self.graph(),
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=self.ir_version,
        )

    def model(self) -> ir.Model:
        return ir.from_proto(self.proto())


def fold(model: ir.Model | Graph, store: Store = in_memory, **options: Any) -> Folded:
    """Normalize and fold."""
    graph = normalize(model.model() if isinstance(model, Graph) else model)
    return fold_graph(graph, FoldOptions(**options), store=store)


def refusal(model: ir.Model | Graph, index: int = 0, **options: Any) -> Refusal:
    """The refusal of the batch-norm number `index`, which must not fold."""
    decision = fold(model, **options).plan.decisions[index]
    assert isinstance(decision.outcome, Refusal), decision.outcome
    return decision.outcome


def count(model: ir.Model, op: str = "") -> int:
    """The nodes of a graph and its subgraphs, or those of one op."""
    return sum(
        not op or node.op_type == op for node in ir.traversal.RecursiveGraphIterator(model.graph)
    )


def batchnorms(model: ir.Model) -> int:
    return count(model, "BatchNormalization")


def feeds(model: ir.Model, seed: int = 1, batch: int = BATCH) -> Feeds:
    """Random numbers for every input that has no default; symbolic sizes are `batch`."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        assert value.shape is not None
        assert value.dtype is not None
        shape = [dim if isinstance(dim, int) else batch for dim in value.shape]
        dtype = value.dtype.numpy()
        found[value.name or ""] = (
            rng.integers(0, 2, shape).astype(dtype)
            if np.dtype(dtype).kind in "ib"
            else rng.standard_normal(shape).astype(dtype)
        )
    return found


def ort_run(model: ir.Model, given: Feeds) -> list[Array]:
    """onnxruntime without graph optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(array) for array in session.run(None, given)]


def distance(one: Array, other: Array) -> float:
    """max |one - other| relative to the largest number."""
    assert one.shape == other.shape, (one.shape, other.shape)
    if not one.size:
        return 0.0
    scale = max(float(np.max(np.abs(one))), 1e-300)
    return float(np.max(np.abs(one.astype(float) - other.astype(float)))) / scale


def assert_equal(before: ir.Model, after: ir.Model, rtol: float = 1e-9, seed: int = 1) -> None:
    """Both give the same in float64, under the same names."""
    given = feeds(before, seed)
    expected, found = Oracle(before).run(given), Oracle(after).run(given)
    assert list(expected) == list(found)
    for name in expected:
        assert distance(expected[name], found[name]) <= rtol, name
        assert np.isfinite(expected[name].astype(float)).all(), name


def signature(model: ir.Model) -> list[tuple[str | None, Any, Any]]:
    """Names, types and shapes of the inputs and outputs."""
    return [
        (value.name, value.type, value.shape)
        for value in (*model.graph.inputs, *model.graph.outputs)
    ]


def float32(model: ir.Model) -> ir.Model:
    """A float64 model with its weights, inputs and outputs in float32."""
    model = model.clone()
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            assert value.const_value is not None
            array = value.const_value.numpy()
            if array.dtype == np.float64:
                value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
        everything = (n.outputs for n in graph)
        for value in (*graph.inputs, *graph.initializers.values(), *sum(everything, ())):
            if value.dtype == ir.DataType.DOUBLE:
                value.dtype = ir.DataType.FLOAT
    return model
