"""Evaluate what is computed from constants alone: weights that are normalised, masked, factored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converter.files.on_disk import in_memory
from converter.graph.constant_cone import CASTS, FLOATS, Cone, jumps
from converter.graph.rounding import round_once
from converter.graph.values import keep_rest

Array = npt.NDArray[np.generic]

MOST_NUMBERS = 2**26  # half a GiB in float64
# How many numbers a constant may have, however few it is computed from.
_FEW = 64
_SMALL, _MADE_OF = 2**18, 2**13  # the limits of onnxscript's optimizer
_WEIGHT = 2**20
_MOST_GROWTH = 2**22

_WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "RNN", "LSTM", "GRU"}
    | {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"}
)
_NOT_INFERRED = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    onnx.defs.SchemaError,
    onnx.checker.ValidationError,
)
# Ops whose results are bounded by what they read, whatever shape inference says.
_BOUNDED = frozenset({"NonZero", "Unique", "Compress", "BatchNormalization"})


@dataclass
class Growth:
    """How many more numbers than their sources all new constants together may still have."""

    left: int

    @classmethod
    def of(cls, model: ir.Model) -> Growth:
        """As many as the model's weights have, or at least a few MB."""
        return cls(max(_MOST_GROWTH, sum(map(_size, _initializers(model)))))


class EvaluateConstantsPass(ir.passes.InPlacePass):
    """Replace what is computed from constants alone by initializers. The values must have types,
    which `InferShapesPass` gives them.

    Every node that no input of the model reaches is evaluated in float64, by the kernels of the
    proof's oracle, and what other nodes read is rounded once, to the type that it has in the graph.
    So the error of a weight g * v / |v| is half a unit in the last place, not the sum of such
    errors of each op on the way.

    1. Where an op is discontinuous (Floor, Sign, a comparison, a cast to whole numbers), it reads
       what the model itself would compute: each result on the way rounded to its type. So does a
       cast to a smaller floating type, which rounds its result.
    2. Random ops, ops with bodies, and quantised weights are left as they are.
    3. No constant is made that is larger than its sources, except for small ones and the weights of
       linear ops (`_room`); no intermediate result is larger than `MOST_NUMBERS`.

    Args:
        growth: how much larger all constants may become, over several runs together.
    """

    def __init__(self, growth: Growth) -> None:
        self._growth = growth

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = Cone(model)
        made = bool(found.wanted) and _Evaluation(model, found, self._growth).run()
        return ir.passes.PassResult(model, made)


class _Evaluation:
    """The results so far, both exact and as the model itself would compute them."""

    def __init__(self, model: ir.Model, cone: Cone, growth: Growth) -> None:
        # The oracle needs torch, which takes seconds to import.
        from converter.evaluation.oracle import Oracle

        self._cone, self._model = cone, model
        self._oracles = Oracle(model), Oracle(model, rounded=True)
        self._exact: dict[ir.Value, Array] = {}
        self._stored: dict[ir.Value, Array] = {}
        self._jumping = cone.jumping()
        self._growth = growth
        self._last = {v: node for node in cone.nodes for v in node.inputs if v is not None}
        self._made: dict[ir.Value, ir.Value] = {}

    def run(self) -> bool:
        """Evaluate what can be evaluated, and put it into the graph; returns whether it changed."""
        for node in self._cone.nodes:
            stays = not self._evaluate(node)
            for value in self._cone.wanted.intersection(node.outputs):
                readers = [use.node for use in value.uses() if use.node not in self._cone.every]
                stays |= value not in self._exact or not self._store(value, readers)
            if stays:
                for source in [v for v in node.inputs if v is not None and v in self._exact]:
                    self._store(source, [node])
            for done in (*node.inputs, *node.outputs):
                if done is not None and self._last.get(done, node) is node:
                    self._exact.pop(done, None)
                    self._stored.pop(done, None)
        return bool(self._made)

    def _evaluate(self, node: ir.Node) -> bool:
        """Evaluate a node; False if it could not be, and then its readers cannot be either."""
        from converter.evaluation.oracle import OracleError

        exact, stored = self._oracles
        made = [value for value in node.inputs if value is not None and value in self._cone.roots]
        if any(value not in self._exact for value in made) or self._too_large(node):
            return False
        jumping = jumps(node)
        as_stored = jumping or bool(self._jumping.intersection(node.outputs))
        try:
            with np.errstate(all="ignore"):
                if as_stored:
                    results = stored.results(node, self._stored)
                    self._stored.update(zip(node.outputs, results, strict=False))
                if not jumping:
                    results = exact.results(node, self._exact)
        except OracleError:
            return False
        for value, result in zip(node.outputs, results, strict=False):
            self._exact[value] = _narrowed(value, result) if node.op_type in CASTS else result
        return True

    def _fits(self, value: ir.Value) -> bool:
        """Whether a constant is worth its bytes, and its numbers fit its type."""
        roots, size = self._cone.roots[value], int(self._exact[value].size)
        growth = size - sum(map(_size, roots))
        if size > _room(value, roots) or growth > self._growth.left:
            return False
        self._growth.left -= max(growth, 0)
        return True

    def _store(self, value: ir.Value, readers: Iterable[ir.Node]) -> bool:
        """Let `readers` read a constant; False if the value should not become one."""
        if value not in self._made:
            made = self._initializer(value) if self._fits(value) else None
            if made is None:
                return False
            self._made[value] = made
        for node in set(readers):
            for place, read in enumerate(node.inputs):
                if read is value:
                    node.replace_input_with(place, self._made[value])
        return True

    def _initializer(self, value: ir.Value) -> ir.Value | None:
        result, dtype, producer = self._exact[value], value.dtype, value.producer()
        assert dtype is not None
        assert producer is not None
        assert isinstance(producer.graph, ir.Graph)
        if dtype in FLOATS:
            wide = np.asarray(result, np.float64)
            rounded = round_once(wide, dtype.numpy())
            if (np.isfinite(wide) & ~np.isfinite(rounded)).any():
                return None
        else:
            rounded = np.asarray(result).astype(dtype.numpy())
        name, value.name = str(value.name), f"{value.name}_before"
        made = ir.tape.Tape(producer.graph).initializer(
            ir.tensor(np.ascontiguousarray(rounded).reshape(rounded.shape), name=name)
        )
        if dtype in FLOATS and rounded.size <= _SMALL:
            keep_rest(made, np.asarray(result, np.float64), in_memory)
        return made

    def _too_large(self, node: ir.Node) -> bool:
        """Whether a result would have more than `MOST_NUMBERS`, or its size is not known in
        advance."""
        if node.op_type in _BOUNDED:
            return False
        types, data = {}, {}
        for value in node.inputs:
            if value is None or value.dtype is None or not value.name:
                continue
            shape = self._shape(value)
            types[value.name] = onnx.helper.make_tensor_type_proto(int(value.dtype), shape)
            if prod(shape) <= _FEW:
                held = self._exact[value] if value in self._exact else _numbers(value)
                array = np.asarray(held).astype(value.dtype.numpy())
                data[value.name] = onnx.numpy_helper.from_array(array, value.name)
        try:
            version = self._model.graph.opset_imports[""]
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            proto = ir.serde.serialize_node(node)
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data)
        except _NOT_INFERRED:
            return True
        for value in node.outputs:
            if not value.name or (not value.uses() and value is not node.outputs[0]):
                continue
            tensor = found[value.name].tensor_type if value.name in found else None
            if tensor is None or not tensor.HasField("shape"):
                return True
            sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
            if min(sizes, default=0) < 0 or prod(sizes) > MOST_NUMBERS:
                return True
        return False

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        if value in self._exact:
            return tuple(self._exact[value].shape)
        assert value.const_value is not None
        return tuple(int(size) for size in value.const_value.shape.numpy())


def _room(value: ir.Value, roots: Iterable[ir.Value]) -> int:
    """How many numbers a constant may have that is computed from `roots`."""
    read = sum(map(_size, roots))
    if any(use.node.op_type in _WEIGHTED for use in value.uses()):
        return max(read, _WEIGHT)
    return max(read, _SMALL if read <= _MADE_OF and not _filled(value) else _FEW)


def _filled(value: ir.Value) -> bool:
    """Whether it comes from a ConstantOfShape, which takes little space in the file."""
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            continue
        if node.op_type == "ConstantOfShape":
            return True
        more = {source for source in node.inputs if source is not None} - seen
        seen |= more
        waiting += more
    return False


def _narrowed(value: ir.Value, result: Array) -> Array:
    """The result of a cast of exact numbers: rounded to the type that it casts to."""
    if value.dtype not in FLOATS or result.dtype != np.float64:
        return result
    return round_once(np.asarray(result, np.float64), value.dtype.numpy()).astype(np.float64)


def _numbers(value: ir.Value) -> Array:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.size)


def _initializers(model: ir.Model) -> list[ir.Value]:
    graphs = (model.graph, *model.graph.subgraphs())
    return [value for graph in graphs for value in graph.initializers.values()]
