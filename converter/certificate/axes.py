"""Which axes have a fixed size, and which one the size of an axis of an input.

A graph computes with sizes that are always the same (channels; all but the batch), and another tool
evaluates those: so what is computed from them is a constant like any other. What is fixed is what
onnx infers where the open axes of the inputs have names in the place of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.following import INFERRED, MAY_BE_CONSTANT, RULES, Axes
from converter.certificate.forms import Form, Known, Value
from converter.certificate.inferable import must_be_inferable
from converter.certificate.inferring import Question, Shaped, question
from converter.certificate.origins import Names, Sizes
from converter.certificate.quantities import Axis, Quantities
from converter.certificate.sizes import named
from converter.certificate.verdict import Doubt

Message = onnx.NodeProto | onnx.TypeProto | onnx.TensorProto


class Symbols:
    """The axes of the values of one graph.

    Args:
        names: of both graphs.
        opset: of the graph.
        memory: what was inferred before, of either graph and at other sizes.
    """

    def __init__(self, names: Names, opset: int, memory: dict[Any, Any]) -> None:
        self._names, self._opset, self._memory = names, opset, memory
        self._of: dict[ir.Value, Axes] = {}
        self._parts: dict[ir.Value | None, list[Axes]] = {}  # of sequences
        self._quantities = Quantities(names)

    def given(self, value: ir.Value, shape: Shape) -> None:
        """An input of the graph, and its shape at the sizes that are tried."""
        self._of[value] = tuple(named(value))
        for name, size in zip(self._of[value], shape, strict=True):
            if isinstance(name, str):
                self._quantities.give(name, size)

    def sizes(
        self, value: ir.Value | None, ids: tuple[int, ...], shape: Shape, *, allowed: bool
    ) -> Sizes:  # fmt: skip
        """The names of the axes of a value.

        Args:
            value: what is known of it counts.
            ids: of its atoms, which name an axis of which nothing is known.
            shape: of the value.
            allowed: whether the second graph may say the names of such axes first.

        Raises:
            Doubt: nothing is known of an axis, and no atom names it.
        """
        axes, found = list(self.of(value, len(shape))), []
        for place, axis in enumerate(axes):
            if self._quantities.alone(axis):
                if not ids:
                    raise Doubt("how long a constant is depends on the sizes")
                found.append(self._names.name("Shape", (ids, place), allowed=allowed))
                if axis is None and value is not None:
                    # A name of its own, by which it is the same axis in what is made of it.
                    made = f"axis {place} of {ids}"
                    axes[place] = self._quantities.own(made, shape[place])
                    self._of[value] = tuple(axes)
                if (name := axes[place]) is not None:
                    self._quantities.read(found[-1], name)
                continue
            assert axis is not None
            kind = "constant" if isinstance(axis, int) else "axis"
            told = ("whole", axis) if isinstance(axis, int) else axis
            found.append(self._names.name(kind, told, allowed=True))
            self._quantities.read(found[-1], axis)
        return Sizes(np.array(found, np.int64))

    def follow(self, node: ir.Node, values: Sequence[Value], results: Sequence[Value]) -> None:
        """Note the axes of what a node computes."""
        axes: list[Axes | None] = [None] * len(results)
        x = values[0] if values else None
        rule = RULES.get(node.op_type)
        reads = isinstance(x, Form) or (x is not None and node.op_type in MAY_BE_CONSTANT)
        if rule is not None and reads and isinstance(results[0], Form):
            axes[0] = rule(
                self._quantities, node, values,
                lambda place: self._along(node.inputs[place], values[place]), self._opset,
            )  # fmt: skip
            if axes[0] is None and node.op_type in INFERRED:
                axes = self._inferred(node, values, len(results))
        elif node.op_type == "STFT" and isinstance(results[0], Form):
            # The bins do not depend on the sound, and how many frames there are does if it may be
            # longer.
            samples, length = (*self.of(node.inputs[0], 2), None)[:2], results[0].shape[1]
            fixed = isinstance(samples[1], int) and not any(
                isinstance(value, Known) and value.sized is not None for value in values[1:]
            )
            axes[0] = (samples[0], length if fixed else None, *results[0].shape[2:])
        elif node.op_type == "ConstantOfShape" and values and _grows(results[0]):
            meant = self._quantities.meaning(values[0])
            axes[0] = None if meant is None else tuple(meant)
        elif any(isinstance(result, Form) or _grows(result) for result in results):
            axes = self._inferred(node, values, len(results))
        for value, result, found in zip(node.outputs, results, axes, strict=False):
            if result is not None and found is not None and len(found) == len(result.shape):
                self._of[value] = tuple(
                    axis if size == self._quantities.size(axis) else None
                    for axis, size in zip(found, result.shape, strict=True)
                )

    def sequence(self, node: ir.Node, axes: Axes, parts: Sequence[Value]) -> None:
        """Note the axes of what a sequence is made of; `axes` are of what is split."""
        held: list[Axes] = []
        for place, part in enumerate(parts):
            rank = 0 if part is None else len(part.shape)
            if node.op_type == "SequenceConstruct":
                held.append(self.of(node.inputs[place], rank))
            elif part is not None and len(axes) == rank:
                # The sizes of the parts do not depend on open sizes, or there were no sequence.
                axis = node.attributes.get_int("axis", 0) % rank
                held.append((*axes[:axis], part.shape[axis], *axes[axis + 1 :]))
            else:
                held.append((None,) * rank)
        self._parts[node.outputs[0]] = held

    def of_sequence(self, node: ir.Node, parts: Sequence[Value], result: Value) -> None:
        """Note the axes of a part of a sequence, or of all that are joined."""
        held = self._parts.get(node.inputs[0])
        if held is None or not isinstance(result, Form):
            return
        if node.op_type == "SequenceAt":
            found = next(axes for axes, part in zip(held, parts, strict=True) if part is result)
        elif node.attributes.get_int("new_axis", 0) or len({len(axes) for axes in held}) > 1:
            return
        else:
            axis = node.attributes.get_int("axis", 0) % result.rank
            found = tuple(
                self._quantities.added(sizes) if place == axis else _agreed(sizes)
                for place, sizes in enumerate(zip(*held, strict=True))
            )
        if len(found) == result.rank:
            self._of[node.outputs[0]] = found

    def enter(self, node: ir.Node, values: Sequence[Value]) -> None:
        """Note the axes of what a body of a Loop or Scan is given in any round."""
        body, first, states, _ = _states(node)
        for place, (name, value) in enumerate(zip(node.inputs, values, strict=False)):
            if value is None or place < first:
                continue
            axes = self._along(name, value)
            if place >= first + states:
                at = node.attributes.get_ints("scan_input_axes", [0] * len(axes))
                axis = at[place - states] % len(axes)
                axes = (*axes[:axis], *axes[axis + 1 :])
            self._of[body.inputs[place]] = axes

    def leave(self, node: ir.Node, results: Sequence[Value], found: Sequence[Value]) -> None:
        """Note the axes of what comes out of it, if they are in every round what they were.

        `found`: what the body gives, from the first state on.

        Raises:
            Doubt: it is not known that they are.
        """
        body, first, states, skipped = _states(node)
        for place, (value, result) in enumerate(zip(node.outputs, results, strict=False)):
            inner, given = body.outputs[skipped + place], found[place]
            if given is None or not isinstance(result, Form) or result.shape == (-1,):
                continue
            axes = self._along(inner, given)
            if place < states:
                before = self._of.get(body.inputs[first + place], axes)
                for one, other in zip(before, axes, strict=True):
                    if self.tells(one) and one != other:
                        raise Doubt("a value may change its shape from round to round")
                self._of[value] = axes
            elif len(axes) == result.rank - 1:
                at = node.attributes.get_ints("scan_output_axes", [0] * len(node.outputs))
                axis = at[place - states] % result.rank
                self._of[value] = (*axes[:axis], None, *axes[axis:])

    def tells(self, axis: Axis) -> bool:
        """Whether it is known on what the size of an axis depends."""
        return self._quantities.tells(axis)

    def joined(self, value: ir.Value, result: Value, branches: Sequence[ir.Value]) -> None:
        """Note the axes of what an If gives: those that its branches agree on."""
        if not isinstance(result, Form) or result.shape == (-1,):
            return
        told = [self.of(branch, result.rank) for branch in branches]
        self._of[value] = tuple(_agreed(sizes) for sizes in zip(*told, strict=True))

    def of(self, value: ir.Value | None, rank: int) -> Axes:
        """What is known of the axes of a value."""
        found = self._of.get(value) if value is not None else None
        return found if found is not None and len(found) == rank else (None,) * rank

    def _along(self, value: ir.Value | None, x: Value) -> Axes:
        """The axes of a value, or of a constant."""
        assert x is not None
        fixed = isinstance(x, Known) and x.sized is None
        return x.shape if fixed else self.of(value, len(x.shape))

    def _inferred(self, node: ir.Node, values: Sequence[Value], count: int) -> list[Axes | None]:
        if any(isinstance(v, Form) and (0 in v.shape or v.shape == (-1,)) for v in values):
            return [None] * count
        try:
            must_be_inferable(
                node,
                [None if value is None else value.shape for value in values],
                [isinstance(value, Form) for value in values],
            )
        except Doubt:
            return [None] * count

        def shaped(place: int, value: Form | Known) -> Shaped:
            if isinstance(value, Known) and not _grows(value):
                return value.shape
            return self.of(node.inputs[place], len(value.shape))

        asked = question(node, values, shaped, lambda known: known.sized is None)
        parts: list[Message] = [asked.node, *asked.types.values(), *asked.data.values()]
        key = "axes", self._opset, (*asked.types, 0, *asked.data), *map(_encoded, parts)
        if key not in self._memory:
            self._memory[key] = self._infer(asked)
        found: list[Axes | None] = self._memory[key]
        return found

    def _infer(self, asked: Question) -> list[Axes | None]:
        try:
            return [_read(found) for found in asked.answer(self._opset)]
        except Exception:  # noqa: BLE001 - then nothing is known of them
            return [None] * len(asked.node.output)


def _states(node: ir.Node) -> tuple[ir.Graph, int, int, int]:
    """The body of a Loop or Scan, at which input states begin, how many there are, and at which
    output of the body."""
    body = node.attributes["body"].as_graph()
    if node.op_type == "Loop":
        return body, 2, len(node.inputs) - 2, 1
    return body, 0, len(node.inputs) - node.attributes.get_int("num_scan_inputs", 0), 0


def _agreed(sizes: Sequence[Axis]) -> Axis:
    return sizes[0] if len(set(sizes)) == 1 else None


def _grows(value: Value) -> bool:
    """Whether it is a constant of as many numbers as sizes say."""
    return isinstance(value, Known) and value.sized is not None and not value.sized.counted


def _encoded(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _read(found: onnx.TypeProto | None) -> Axes | None:
    if found is None or not found.HasField("tensor_type"):
        return None
    if not found.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in found.tensor_type.shape.dim
    )
