"""What rules are given: the atoms, the node's attributes, the shapes of its results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate.arrays import Array, Shape, bits
from converter.certificate.atoms import DOUBLE, Atom, Space
from converter.certificate.closeness import same_forms
from converter.certificate.forms import OWN, Form, Known, Value, constant, of_atom
from converter.certificate.inferable import must_be_inferable
from converter.certificate.inferring import FEW, kind_of, question, schema
from converter.certificate.stored import Stored
from converter.certificate.verdict import Doubt

UNITS = {
    ir.DataType.FLOAT16: (2.0**-11, 2.0**-25),
    ir.DataType.BFLOAT16: (2.0**-8, 2.0**-134),
    ir.DataType.FLOAT: (2.0**-24, 2.0**-150),
    ir.DataType.DOUBLE: (2.0**-53, 2.0**-1074),
}
REAL = frozenset(UNITS)
_REAL = frozenset(int(dtype) for dtype in REAL)
# Ops whose constants are weights, not sizes, exponents or thresholds: these may be moved.
_MOVABLE = frozenset(
    {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Gather", "PRelu", "Where", "Div"}
    | {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"}
    | {"RMSNormalization", "RNN", "LSTM", "GRU", "statistics"}
)
# The shape of a result, None if it is not known, and its type as onnx numbers it (0: no tensor).
Result = tuple[Shape | None, int]
# Weights of so many numbers stay where they are, and are read when they are compared.
LARGE = 1 << 12


@dataclass
class Context:
    """One walk of one graph.

    Attributes:
        space: the atoms.
        opset: the version of the default domain.
        narrowed: casts to narrower types of floats, how many of each.
        walk_body: walks a body with values for its inputs, and gives its results.
        axes: of the first value that the node at hand reads, as in `axes.py`.
        memory: comparisons of weights that were made at other sizes, by what was compared.
    """

    space: Space
    opset: int
    walk_body: Callable[[ir.Graph, Sequence[Value]], list[Value]]
    memory: dict[Hashable, Any]
    narrowed: dict[str, int] = field(default_factory=dict)
    weights: int = 0
    axes: tuple[int | str | None, ...] = ()

    def known(self, tensor: ir.TensorProtocol) -> Known:
        """A constant of a graph.

        Raises:
            Doubt: it is not finite.
        """
        # The tensors stay with what was found of them: an id names one object as long as it is.
        key = "tensor", id(tensor)
        if key not in self.memory:
            self.memory[key] = self._known(tensor), tensor
        found: Known = self.memory[key][0]
        return self.seen(found)

    def _known(self, tensor: ir.TensorProtocol) -> Known:
        if tensor.dtype not in REAL:
            return Known(tensor.numpy())
        unit, tiny = UNITS[tensor.dtype]
        if tensor.size >= LARGE:
            return Known(Stored(tensor, tuple(map(int, tensor.shape.numpy()))), unit, tiny)
        array = tensor.numpy().astype(np.float64)
        if np.isnan(array).any():
            raise Doubt(f"the constant {tensor.name!r} has a number that is none")
        return Known(array, unit, tiny)

    def off(self, known: Known, numbers: Array | None = None) -> Array:
        """What each number of a constant may be off by."""
        size = np.abs(known.array if numbers is None else numbers)
        if not np.isfinite(size).all():
            raise Doubt("a constant is infinite")
        return self.rounding(known) * size + self.floor(known) + OWN * size

    def rounding(self, known: Known) -> float:
        """k roundings, relative; the first graph is exact."""
        if not self.space.second or not known.unit:
            return 0.0
        unit = min(known.unit, self._coarsest[0])
        return self.space.k * unit * (DOUBLE if unit == UNITS[ir.DataType.DOUBLE][0] else 1.0)

    def floor(self, known: Known) -> float:
        """The absolute part of it, for subnormal numbers."""
        return self.space.k * min(known.tiny, self._coarsest[1]) if self.space.second else 0.0

    @property
    def _coarsest(self) -> tuple[float, float]:
        """Weights of a narrow type in the second graph are not excused by their type."""
        return self.space.coarsest if self.space.coarsest[0] else UNITS[ir.DataType.FLOAT]

    def seen(self, known: Known) -> Known:
        """A constant of a graph, whose type counts if it is the first one's."""
        if not self.space.second and known.unit:
            self.space.coarsest = max(self.space.coarsest, (known.unit, known.tiny))
        return known

    def form(self, value: Value, shape: Shape | None = None) -> Form:
        """A value as a form."""
        if isinstance(value, Form):
            return value
        assert value is not None
        if not value.real:
            raise Doubt("a whole number is used as a float")
        array = value.array
        # Zero is zero in every type.
        off = np.where(array == 0, 0.0, self.off(value, array))
        return constant(array.shape if shape is None else shape, array, off)

    def opaque(
        self,
        kind: str,
        more: Hashable,
        values: Sequence[Value],
        results: Sequence[Result],
    ) -> list[Value]:
        """An op of which nothing is known but that it is the same function of its inputs."""
        forms: list[Form] = []
        key: list[Hashable] = []
        for value in values:
            if value is None:
                key.append(None)
            elif isinstance(value, Form):
                key.append((value.ids, value.shape, value.real))
                forms.append(value)
            elif value.real and kind in _MOVABLE and not infinite(value):
                form = self.form(value)
                key.append((form.ids, form.shape, form.real))
                forms.append(form)
            else:
                key.append(bits(value.array))
        made: list[Value] = []
        for place, (shape, dtype) in enumerate(results):
            atom = self.atom((kind, more, tuple(key), place, shape, dtype), shape, forms)
            made.append(value_of(atom, shape, dtype))
        return made

    def atom(self, key: Hashable, shape: Shape | None, forms: Sequence[Form]) -> Atom:
        """The atom of this key that reads these forms."""
        atom, _ = self.space.intern(
            key,
            shape,
            list(forms),
            lambda held, new, exactly: same_forms(self.space, held, new, exactly, "what it reads"),
        )
        return atom

    def results(self, node: ir.Node, values: Sequence[Value]) -> list[Result]:
        """The shapes of a node's results and their types, as the standard infers them."""
        given = tuple(None if value is None else _told(value) for value in values)
        there = tuple(bool(value.name) for value in node.outputs)
        attrs = frozen(attributes(node, self.opset))
        key = "results", node.op_type, self.opset, attrs, given, there
        if key not in self.memory:
            self.memory[key] = infer(node, values, self.opset)
        found: list[Result] = self.memory[key]
        return found


def _told(value: Form | Known) -> Hashable:
    """What the shapes of results may depend on."""
    if isinstance(value, Form):
        return value.shape, value.real or kind_of(value)
    few = value.size <= FEW
    return value.shape, value.real, few and bits(value.array), value.real or value.array.dtype


def infinite(value: Value) -> bool:
    """Whether it is a constant with a number that is infinite, as masks have it."""
    return isinstance(value, Known) and value.real and not np.isfinite(value.array).all()


def value_of(atom: Atom, shape: Shape | None, dtype: int) -> Form:
    atom.more.setdefault("dtype", dtype)
    real = dtype in _REAL
    if shape is None or shape == (-1,):
        # Nothing is done with it but to read it by an op of which nothing is known.
        one = np.ones(())
        return Form((-1,), {atom: one}, np.zeros(()), np.zeros(()), real=False)
    return of_atom(atom, shape, real=real)


def attributes(node: ir.Node, opset: int) -> dict[str, Any]:
    """The attributes of a node with the standard's defaults: numbers, texts, lists, tensors."""
    found: dict[str, Any] = {}
    for name, default in schema(node.op_type, opset).attributes.items():
        if default.default_value.name or default.default_value.type:
            found[name] = onnx.helper.get_attribute_value(default.default_value)
    for name, attribute in node.attributes.items():
        if attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            continue
        found[name] = attribute.value
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return float(np.float32(value))  # attributes are float32
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value


def frozen(attributes: dict[str, Any]) -> Hashable:
    """Attributes as part of a key."""
    parts: list[Hashable] = []
    for name, value in sorted(attributes.items()):
        if hasattr(value, "numpy"):
            parts.append((name, bits(value.numpy())))
        elif hasattr(value, "SerializeToString"):
            parts.append((name, value.SerializeToString()))
        else:
            hash(value)
            parts.append((name, type(value).__name__, value))
    return tuple(parts)


def infer(node: ir.Node, values: Sequence[Value], opset: int) -> list[Result]:
    """By onnx, in this process: what ends it is not asked (`inferable.py`)."""
    must_be_inferable(
        node,
        [None if value is None else value.shape for value in values],
        [isinstance(value, Form) for value in values],
    )
    try:
        asked = question(
            node,
            values,
            lambda _, value: None if value.shape == (-1,) else value.shape,
            lambda _: True,
        )
        answers = asked.answer(opset)
    except Exception as error:
        raise Doubt(f"the shape of a {node.op_type}'s result is not known ({error})") from error
    results: list[Result] = []
    for inferred in answers:
        if inferred is None or not inferred.HasField("tensor_type"):
            results.append((None, 0))
            continue
        tensor = inferred.tensor_type
        fixed = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
        shape = tuple(d.dim_value for d in tensor.shape.dim) if fixed else None
        results.append((shape, tensor.elem_type))
    return results
