"""Walk a graph: the rule of each op gives the forms of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.certificate import bodies, sequences
from converter.certificate.arrays import Shape, bits
from converter.certificate.atoms import Space
from converter.certificate.axes import Symbols
from converter.certificate.closeness import same_forms
from converter.certificate.context import Context
from converter.certificate.evaluating import HANDING_ON, evaluated
from converter.certificate.forms import Form, Known, Value, of_atom
from converter.certificate.origins import Sizes
from converter.certificate.places import in_their_places
from converter.certificate.rules import computed
from converter.certificate.settling import settled
from converter.certificate.sizes import given
from converter.certificate.telling import Told
from converter.certificate.verdict import Differs, Doubt, Miss

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
     "Multinomial"}
)  # fmt: skip
_ROUNDS = {"Loop": bodies.loop, "Scan": bodies.scan}
_BODIES = {"If", *_ROUNDS}
# Ops that repeat the numbers of a constant.
_REPEATS = frozenset({"Expand", "Tile"})


class Walk:
    """One graph, at one choice of sizes.

    Raises:
        Doubt: it has something of which nothing is certified.
    """

    def __init__(
        self, model: ir.Model, space: Space, shapes: dict[str, Shape], memory: dict[object, object]
    ) -> None:
        opsets = model.graph.opset_imports
        opset = opsets.get("", opsets.get("ai.onnx"))
        if opset is None:
            raise Doubt("the graph does not say which opset it is of")
        self.context = Context(space, opset, self._body, memory)
        self._space = space
        self._env: dict[ir.Value, Value] = {}
        self._sequences: dict[ir.Value, list[Value]] = {}
        self._graph = model.graph
        self._model = model
        self._shapes = shapes
        self._symbols = Symbols(space.names, opset, memory)
        self.told = Told()

    def run(self) -> list[Value]:
        """The values of the outputs."""
        for value in given(self._model):
            shape = self._shapes[value.name or ""]
            self._symbols.given(value, shape)
            atom, _ = self._space.intern(("input", value.name), shape, None)
            assert value.dtype is not None
            atom.more.setdefault("dtype", int(value.dtype))
            real = value.dtype in {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16,
                                   ir.DataType.BFLOAT16}  # fmt: skip
            self._env[value] = of_atom(atom, shape, real=real)
        self._nodes(self._graph)
        results = [self._value(value) for value in self._graph.outputs]
        self._note("outputs", results)
        self.told.close(self._env, self._symbols)
        return results

    def _note(self, reader: object, values: Sequence[Value]) -> None:
        """That constants which were computed from sizes are read."""
        for place, value in enumerate(values):
            if isinstance(value, Known) and value.sized is not None:
                self.told.note(reader, place, value, self._space.names)

    def let_go(self) -> None:
        """Of all values: what is walked and what it is walked with hold each other."""
        self._env.clear()
        self.context.walk_body = _ended

    def _nodes(self, graph: ir.Graph) -> None:
        for node in graph:
            name = next((value.name for value in node.outputs if value.name), "")
            self._space.here = (name or node.name or "", node.op_type)
            try:
                self._space.budget.check()
                results = self._node(node)
            except (Doubt, Differs) as why:
                raise Doubt(f"{_label(node)}: {why}") from why
            except (ValueError, IndexError, TypeError, KeyError, AssertionError) as error:
                words = str(error).strip().splitlines() or [type(error).__name__]
                raise Doubt(f"{_label(node)}: it cannot be followed ({words[0]})") from error
            for value, result in zip(node.outputs, results, strict=False):
                if isinstance(result, Form) and result.real and result.shape != (-1,):
                    result = settled(self._space, result)
                self._env[value] = result

    def _node(self, node: ir.Node) -> Sequence[Value]:
        if node.domain not in {"", "ai.onnx"}:
            raise Doubt(f"it is no op of ONNX but of {node.domain!r}{_whose(node.domain)}")
        op = node.op_type
        if op in _RANDOM:
            raise Doubt("it draws random numbers")
        if op in {"SequenceAt", "ConcatFromSequence"} and node.inputs[0] in self._sequences:
            result = self._of_sequence(node)
            self._symbols.of_sequence(node, self._sequences[node.inputs[0]], result)
            return [result]
        values = [None if value is None else self._value(value) for value in node.inputs]
        while values and values[-1] is None:
            values.pop()
        _must_be_defined(op, values)
        if op in _BODIES or any(isinstance(value, Form) for value in values):
            self._note(node, values)
        x = values[0] if values else None
        self.context.axes = self._symbols.of(node.inputs[0], x.rank) if isinstance(x, Form) else ()
        if op in sequences.MAKING:
            parts = sequences.made(self.context, node, values)
            self._sequences[node.outputs[0]] = parts
            self._symbols.sequence(node, self.context.axes, parts)
            return []
        if op == "Constant":
            return [self._constant(node)]
        if op == "If":
            found = bodies.branches(self.context, node, values)
            for place, value in enumerate(node.outputs):
                graphs = (a.as_graph() for a in node.attributes.values())
                self._symbols.joined(value, found[place], [g.outputs[place] for g in graphs])
            return found
        if op in _ROUNDS:
            self._symbols.enter(node, values)
            found = _ROUNDS[op](self.context, node, values)
            if self._space.free:
                body = node.attributes["body"].as_graph()
                given = [self._value(value) for value in body.outputs][op == "Loop" :]
                self._symbols.leave(node, found, given)
            return found
        results = self._leaf(node, values)
        if self._space.free:
            self._symbols.follow(node, values, results)
        return results

    def _leaf(self, node: ir.Node, values: list[Value]) -> Sequence[Value]:
        """The results of a node without a body."""
        if any(a.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
               for a in node.attributes.values()):  # fmt: skip
            raise Doubt("it has a body of which nothing is known")
        x = values[0] if values else None
        if node.op_type in {"Shape", "Size"} and isinstance(x, Form) and x.shape != (-1,):
            return [self._size(node, x)]
        counted = isinstance(x, Known) and x.sized is not None and x.sized.counted
        if counted and isinstance(x, Known) and node.op_type in {"Shape", "Size"}:
            return evaluated(self.context, node, [replace(x, sized=None)])
        if isinstance(x, Known) and x.real and x.sized is None and node.op_type in _REPEATS and any(
            isinstance(value, Known) and value.sized for value in values[1:]
        ):  # fmt: skip
            # Numbers of a weight, as many as sizes say: they may be moved as any weight may.
            values = [self.context.form(x), *values[1:]]
        if node.op_type == "Concat":
            values = self._parts(node, values)
        if values and all(value is None or isinstance(value, Known) for value in values):
            return in_their_places(
                self._symbols, node, values, evaluated(self.context, node, values)
            )
        return computed(self.context, node, values)

    def _parts(self, node: ir.Node, values: list[Value]) -> list[Value]:
        """What a Concat joins, without constants that are empty at any size."""
        forms = [v for v in values if isinstance(v, Form) and v.real and v.shape != (-1,)]
        if not forms:
            return values
        like, axis = forms[0], node.attributes.get_int("axis", 0)

        def is_empty(name: ir.Value | None, value: Value) -> bool:
            if not isinstance(value, Known) or not value.real or len(value.shape) != like.rank:
                return False
            at = axis % like.rank
            if value.shape != (*like.shape[:at], 0, *like.shape[at + 1 :]):
                return False
            return value.sized is None or self._symbols.of(name, like.rank)[at] == 0

        pairs = zip(node.inputs, values, strict=False)
        return [value for name, value in pairs if not is_empty(name, value)]

    def _of_sequence(self, node: ir.Node) -> Value:
        held, *others = node.inputs
        assert held is not None
        values = self._sequences[held]
        if node.op_type == "ConcatFromSequence":
            return sequences.joined(self.context, node, values)
        (place,) = others
        assert place is not None
        return sequences.taken(values, self._value(place), free=self._space.free)

    def _size(self, node: ir.Node, x: Form) -> Known:
        space, whole = self._space, node.op_type == "Size"
        chosen = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", x.rank))
        shape: Any = np.asarray(x.shape, np.int64)
        sizes = Sizes(np.zeros(0, np.int64))
        if space.free:
            known = bool(x.terms) and not any(atom.second for atom in x.terms)
            sizes = self._symbols.sizes(
                node.inputs[0], x.ids, x.shape, allowed=known or not space.second
            )
        if space.names.fixed(sizes if whole else Sizes(sizes.names[chosen])):
            return Known(np.asarray(np.prod(shape)) if whole else shape[chosen])
        if whole:
            name = space.names.name("Size", bits(sizes.names), allowed=not space.second)
            array, sizes = np.asarray(np.prod(shape)), Sizes(np.array(name))
        else:
            array, sizes = shape[chosen], Sizes(sizes.names[chosen])
        return Known(array, sized=sizes)

    def _constant(self, node: ir.Node) -> Known:
        ((name, attribute),) = node.attributes.items()
        if name == "value":
            return self.context.known(attribute.as_tensor())
        if name in {"value_int", "value_ints"}:
            return Known(np.asarray(attribute.value, np.int64))
        if name in {"value_float", "value_floats"}:
            return self.context.known(ir.tensor(np.asarray(attribute.value, np.float32)))
        raise Doubt(f"nothing is known of a Constant of kind {name}")

    def _value(self, value: ir.Value) -> Value:
        if value not in self._env:
            if value.const_value is None or not value.is_initializer():
                if not value.name:
                    return None
                if value in self._sequences:
                    raise Doubt("it reads a sequence, of which only the values are followed")
                raise Doubt(f"the value {value.name!r} is computed by nothing")
            self._env[value] = self.context.known(value.const_value)
        return self._env[value]

    def _body(self, graph: ir.Graph, values: Sequence[Value]) -> list[Value]:
        self._env.update(zip(graph.inputs, values, strict=True))
        here = self._space.here
        self._nodes(graph)
        self._space.here = here
        return [self._value(value) for value in graph.outputs]


def _must_be_defined(op: str, values: Sequence[Value]) -> None:
    """
    Raises:
        Doubt: the op computes with a constant of which a number is not defined.
    """
    for value in values:
        if isinstance(value, Known) and value.undefined:
            moved = op in HANDING_ON and not any(isinstance(v, Form) for v in values)
            if not moved:
                raise Doubt(value.undefined)


def _ended(*_: object) -> list[Value]:
    raise Doubt("the graph is not walked any more")


def unlike_output(
    first: Context, space: Space, outputs: Sequence[ir.Value], held: Sequence[Value],
    new: Sequence[Value],
) -> Miss | None:  # fmt: skip
    """The first output of the second graph that is not the first graph's."""
    for value, one, other in zip(outputs, held, new, strict=True):
        producer = value.producer()
        here = value.name or "", producer.op_type if producer is not None else "output"
        if isinstance(one, Known) and isinstance(other, Known) and not one.real:
            if one.array.dtype != other.array.dtype or not np.array_equal(one.array, other.array):
                return Miss(*here, Differs("it is another constant"))
            continue
        space.second = False
        expected = first.form(one)
        space.second = True
        found = first.form(other)
        try:
            same_forms(space, [expected], [found], False)
        except Differs as why:
            return Miss(*here, why)
    return None


def _whose(domain: str) -> str:
    """What to do about an op of onnxruntime's, which stands for one of its kernels."""
    if not domain.startswith("com.microsoft"):
        return ""
    return ", a kernel of onnxruntime, which writes none at its optimization level BASIC"


def _label(node: ir.Node) -> str:
    name = next((value.name for value in node.outputs if value.name), node.name or "")
    return f"{name!r}, a {node.op_type}"
