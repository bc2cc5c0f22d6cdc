"""Which axes have a fixed size, and which one the size of an axis of an input.

A graph computes with sizes that are always the same (channels; all but the batch), and another tool
evaluates those: so what is computed from them is a constant like any other. What is fixed is what
onnx infers where the open axes of the inputs have names in the place of numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.context import attributes
from converter.certificate.forms import Form, Known, Value
from converter.certificate.inferable import must_be_inferable
from converter.certificate.inferring import FEW, Question, Shaped, question
from converter.certificate.origins import Names, Sizes
from converter.certificate.rearranging import given, slices
from converter.certificate.sizes import named
from converter.certificate.verdict import Doubt

# Of each axis its size, the name of an input's axis that it is as long as, or None.
Axes = tuple[int | str | None, ...]

# Axes that are one: a number, and the names of others.
Product = tuple[int, tuple[str, ...]]

Message = onnx.NodeProto | onnx.TypeProto | onnx.TensorProto

_END = 2**31 - 1  # bounds of a Slice from here on mean the end


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
        self._sizes: dict[int | str | None, int] = {}  # of the names of their axes
        self._read: dict[int, int | str] = {}  # what the name of a number means
        self._unknown: set[str] = set()  # names of axes of which nothing else is known
        self._products: dict[int | str, Product] = {}  # names that stand for more than one axis

    def given(self, value: ir.Value, shape: Shape) -> None:
        """An input of the graph, and its shape at the sizes that are tried."""
        self._of[value] = tuple(named(value))
        for name, size in zip(self._of[value], shape, strict=True):
            if isinstance(name, str):
                self._sizes[name] = size

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
            if axis is None or axis in self._products or axis in self._unknown:
                if not ids:
                    raise Doubt("how long a constant is depends on the sizes")
                found.append(self._names.name("Shape", (ids, place), allowed=allowed))
                made = f"axis {place} of {ids}"
                if axis is None and value is not None and made not in self._sizes:
                    # A name of its own, by which it is the same axis in what is made of it.
                    axes[place] = made
                    self._sizes[made] = shape[place]
                    self._unknown.add(made)
                    self._of[value] = tuple(axes)
                if (name := axes[place]) is not None:
                    self._read[found[-1]] = name
                continue
            kind = "constant" if isinstance(axis, int) else "axis"
            told = ("whole", axis) if isinstance(axis, int) else axis
            found.append(self._names.name(kind, told, allowed=True))
            self._read[found[-1]] = axis
        return Sizes(np.array(found, np.int64))

    def follow(self, node: ir.Node, values: Sequence[Value], results: Sequence[Value]) -> None:
        """Note the axes of what a node computes."""
        axes: list[Axes | None] = [None] * len(results)
        x = values[0] if values else None
        if node.op_type == "Reshape" and isinstance(x, Form):
            axes[0] = self._reshaped(node, values)
        elif node.op_type == "Slice" and isinstance(x, Form):
            axes[0] = self._cut(node, values)
        elif node.op_type == "STFT" and isinstance(results[0], Form):
            # How many frames there are is not known; the bins do not depend on the sound.
            axes[0] = (self.of(node.inputs[0], 2)[0], None, *results[0].shape[2:])
        elif node.op_type == "Tile" and x is not None and isinstance(results[0], Form):
            axes[0] = self._tiled(node.inputs[0], x, values[1])
        elif node.op_type == "Expand" and x is not None and isinstance(results[0], Form):
            axes[0] = self._expanded(node.inputs[0], x, values[1])
        elif node.op_type == "Resize" and len(values) > 3 and not node.attributes.get("axes"):
            axes[0] = self._resized(node, values)
        elif node.op_type == "ConstantOfShape" and values and _grows(results[0]):
            meant = self._meaning(values[0])
            axes[0] = None if meant is None else tuple(meant)
        elif any(isinstance(result, Form) or _grows(result) for result in results):
            axes = self._inferred(node, values, len(results))
        for value, result, found in zip(node.outputs, results, axes, strict=False):
            if result is not None and found is not None and len(found) == len(result.shape):
                self._of[value] = tuple(
                    axis if size in (axis, self._sizes.get(axis)) else None
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
                self._added(sizes) if place == axis else _agreed(sizes)
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

    def _added(self, sizes: Sequence[int | str | None]) -> int | None:
        whole = [size for size in sizes if isinstance(size, int)]
        return sum(whole) if len(whole) == len(sizes) else None

    def tells(self, axis: int | str | None) -> bool:
        """Whether it is known on what the size of an axis depends."""
        product = self._product([axis])
        return product is not None and self._unknown.isdisjoint(product[1])

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

    def _meaning(self, value: Value) -> list[int | str | None] | None:
        """Of the numbers of a constant that an op reads as sizes."""
        if not isinstance(value, Known) or value.size > FEW:
            return None
        numbers = value.array.reshape(-1).tolist()
        if value.sized is None:
            return [int(number) for number in numbers]
        names = value.sized.names.reshape(-1).tolist()
        if len(names) != len(numbers):  # they have one name together
            return None
        return [
            int(number) if self._names.constant(name) else self._named(name)
            for name, number in zip(names, numbers, strict=True)
        ]

    def _named(self, name: int) -> int | str | None:
        """What a number that is computed from sizes means."""
        parts = [self._names.whole(n) if self._names.constant(n) else self._read.get(n)
                 for n in self._names.factors(name)]  # fmt: skip
        return self._axis(self._product(parts))

    def _product(self, axes: Sequence[int | str | None]) -> Product | None:
        number = 1
        names: list[str] = []
        for axis in axes:
            if axis is None:
                return None
            many, others = (axis, ()) if isinstance(axis, int) else self._products.get(
                axis, (1, (axis,))
            )  # fmt: skip
            number *= many
            names += others
        return number, tuple(sorted(names))

    def _axis(self, product: Product | None) -> int | str | None:
        """An axis of that size."""
        if product is None or not product[1]:
            return product and product[0]
        number, names = product
        if number == 1 and len(names) == 1:
            return names[0]
        made = " * ".join((str(number), *names))
        if made in self._sizes and made not in self._products:
            return None  # an input's axis is called that
        self._products[made] = product
        self._sizes[made] = number * prod(self._sizes[name] for name in names)
        return made

    def _reshaped(self, node: ir.Node, values: Sequence[Value]) -> Axes | None:
        x = values[0]
        assert isinstance(x, Form)
        given = self.of(node.inputs[0], x.rank)
        if len(values) > 1:
            target = self._meaning(values[1])
        else:
            target = list(node.attributes.get_ints("shape", ()))
        if target is None:
            return None
        if not node.attributes.get_int("allowzero", 0):
            target = [given[i] if n == 0 and i < len(given) else n for i, n in enumerate(target)]
        if -1 in target:
            # What is left of the input's axes when the named ones are taken away.
            whole = self._product(given)
            part = self._product([n for n in target if n != -1])
            rest: int | str | None = None
            if whole is not None and part is not None and part[0] and whole[0] % part[0] == 0:
                left = Counter(whole[1])
                left.subtract(part[1])
                if min(left.values(), default=0) >= 0:
                    names = tuple(sorted(left.elements()))
                    rest = self._axis((whole[0] // part[0], names))
            target[target.index(-1)] = rest
        return tuple(target)

    def _cut(self, node: ir.Node, values: Sequence[Value]) -> Axes | None:
        """What constant bounds cut out of an axis lies within it, so it is always as long."""
        x = values[0]
        assert isinstance(x, Form)
        found = list(self.of(node.inputs[0], x.rank))
        attrs = attributes(node, self._opset)
        sized = [isinstance(value, Known) and value.sized is not None for value in values]
        if any(sized):
            # Of the axes that it cuts nothing is known.
            axes = None if any(sized[3:4]) else given(values, 3, attrs, "axes")
            for axis in range(x.rank) if axes is None else axes:
                found[axis] = None
            return tuple(found)
        parts, outside = slices(values, attrs, x.shape)
        starts, ends = given(values, 1, attrs, "starts"), given(values, 2, attrs, "ends")
        if outside or starts is None or ends is None:
            return None
        chosen = given(values, 3, attrs, "axes") or range(len(starts))
        for start, end, axis in zip(starts, ends, chosen, strict=True):
            axis %= x.rank
            from_begin = 0 <= start < _END, 0 <= end < _END or end <= -_END
            if isinstance(found[axis], int) or from_begin[0] == from_begin[1]:
                found[axis] = len(range(x.shape[axis])[parts[axis]])
            elif start != 0 or end < _END or parts[axis].step != 1:
                found[axis] = None
        return tuple(found)

    def _along(self, value: ir.Value | None, x: Form | Known) -> Axes:
        """The axes of a value, or of a constant."""
        fixed = isinstance(x, Known) and x.sized is None
        return x.shape if fixed else self.of(value, len(x.shape))

    def _tiled(self, value: ir.Value | None, x: Form | Known, repeats: Value) -> Axes | None:
        meant = self._meaning(repeats)
        if meant is None or len(meant) != len(x.shape):
            return None
        pairs = zip(self._along(value, x), meant, strict=True)
        return tuple(self._axis(self._product(pair)) for pair in pairs)

    def _expanded(self, value: ir.Value | None, x: Form | Known, shape: Value) -> Axes | None:
        meant = self._meaning(shape)
        if meant is None:
            return None
        there: Axes = self._along(value, x)
        rank = max(len(there), len(meant))
        there = (*(1,) * (rank - len(there)), *there)
        meant = [*(1,) * (rank - len(meant)), *meant]
        return tuple(
            one if other == 1 or one == other else other if one == 1 else None
            for one, other in zip(there, meant, strict=True)
        )

    def _resized(self, node: ir.Node, values: Sequence[Value]) -> Axes | None:
        if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
            return None
        meant = self._meaning(values[3])
        return None if meant is None else tuple(meant)

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


def _agreed(sizes: Sequence[int | str | None]) -> int | str | None:
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
