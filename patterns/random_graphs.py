"""Random graphs: ops with rules, ops without, branches, sharing, captures."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from patterns.graphs import Graph
from patterns.random_ops import MORE_OPS, MoreOps

Shape = tuple[int | str, ...]


class RandomGraph(MoreOps):
    """Grows a graph op by op; each method returns nothing if its op does not fit `x`."""

    ops: ClassVar[tuple[str, ...]]

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a graph a seed
        self.g = Graph(seed=seed, opset=self.random.choice([15, 20]))
        self.shapes: dict[str, Shape] = {}
        self.weights: dict[tuple[int, ...], str] = {}
        self.statistics: dict[int, list[str]] = {}
        self.condition = ""

    def model(self, size: int) -> ir.Model:
        batch = self.random.choice(["N", "N", 2])
        start: Shape = self.random.choice(
            [(batch, 2, 4, 3), (batch, 3, 4, 4), (batch, 4, 5), (batch, 3)]
        )
        last = self.add(self.g.input("x", *start), start)
        for _ in range(size):
            x = self.random.choice([*self.shapes]) if self.rarely() else last
            op = self.random.choice([*self.ops, *["batchnorm"] * 8, *["linear"] * 6])
            found = getattr(self, op)(x, self.shapes[x])
            last = found or last
        for name in {last: 0, **dict.fromkeys(n for n in self.shapes if self.rarely())}:
            if name != "x":
                self.g.output(name, shape=list(self.shapes[name]))
        if not self.g.outputs:
            self.g.output(self.g.op("Relu", last), shape=list(self.shapes[last]))
        return self.g.model()

    def rarely(self) -> bool:
        return self.random.random() < 0.1

    def flip(self) -> bool:
        return self.random.random() < 0.5

    def add(self, name: str, shape: Shape) -> str:
        self.shapes[name] = shape
        return name

    def weight(self, *shape: int) -> str:
        """A new one, or now and then one of the same shape again."""
        if shape not in self.weights or self.random.random() < 0.7:
            self.weights[shape] = self.g.weight(*shape)
        return self.weights[shape]

    def some_statistics(self, channels: int) -> list[str]:
        if channels not in self.statistics or self.random.random() < 0.7:
            given: dict[str, Any] = {}
            if self.rarely():  # a uniform one: every scale and every shift the same
                given = {k: np.full(channels, 0.5) for k in ("gamma", "beta", "mean", "var")}
            self.statistics[channels] = self.g.statistics(channels, **given)
        return self.statistics[channels]

    def batchnorm(self, x: str, shape: Shape) -> str | None:
        if len(shape) < 2 or isinstance(shape[1], str):
            return None
        y = self.g.op("BatchNormalization", x, *self.some_statistics(shape[1]))
        return self.add(y, shape)

    def linear(self, x: str, shape: Shape) -> str | None:
        if len(shape) >= 3 and self.flip():
            return self.convolution(x, shape)
        return self.product(x, shape)

    def convolution(self, x: str, shape: Shape) -> str | None:
        """Keeps the spatial sizes: kernels of 1, or of 3 with padding."""
        inputs, axes = shape[1], len(shape) - 2
        if axes not in {1, 2} or any(isinstance(size, str) for size in shape[1:]):
            return None
        assert isinstance(inputs, int)
        kernel = self.random.choice([1, 3])
        group = self.random.choice([n for n in (1, 2, 3, 4) if inputs % n == 0])
        outputs = group * self.random.randint(1, 2)
        transpose = self.random.random() < 0.3
        sizes = (inputs, outputs // group) if transpose else (outputs, inputs // group)
        weight = self.weight(*sizes, *[kernel] * axes)
        bias = [self.weight(outputs)] if self.flip() else []
        op = "ConvTranspose" if transpose else "Conv"
        pads = [kernel // 2] * (2 * axes)
        return self.add(
            self.g.op(op, x, weight, *bias, group=group, pads=pads), (shape[0], outputs, *shape[2:])
        )

    def branches(self, x: str, shape: Shape) -> str | None:
        """Convolutions and batch-norms of x, and x itself, summed."""
        channels, axes = shape[1] if len(shape) > 2 else "", len(shape) - 2
        if axes not in {1, 2} or any(isinstance(size, str) for size in shape[1:]):
            return None
        assert isinstance(channels, int)
        group = self.random.choice([1, channels])

        def branch(kind: str) -> str:
            if kind in {"x", "norm"}:
                norm = [x, *self.some_statistics(channels)]
                return x if kind == "x" else self.g.op("BatchNormalization", *norm)
            # Always a new one: W*x - W*x is zero, and nothing is small beside zero.
            weight = self.g.weight(channels, channels // group, *[int(kind)] * axes)
            y = self.g.op("Conv", x, weight, group=group, pads=[int(kind) // 2] * (2 * axes))
            norm = [y, *self.some_statistics(channels)]
            return self.g.op("BatchNormalization", *norm) if self.flip() else y

        kinds = ["3", *self.random.choices(["1", "3", "norm", "x"], k=self.random.randint(1, 3))]
        total, *rest = [branch(kind) for kind in kinds]
        for other in rest:
            total = self.g.op(self.random.choice(["Add", "Add", "Sub"]), total, other)
        return self.add(total, shape)

    def product(self, x: str, shape: Shape) -> str | None:
        inner, outputs = shape[-1], self.random.randint(1, 4)
        if isinstance(inner, str):
            return None
        new = (*shape[:-1], outputs)
        if len(shape) != 2 or self.flip():
            return self.add(self.g.op("MatMul", x, self.weight(inner, outputs)), new)
        bias = self.random.choice([None, (), (1,), (outputs,), (1, outputs)])
        flip = self.flip()
        weight = self.weight(*((outputs, inner) if flip else (inner, outputs)))
        more = [] if bias is None else [self.weight(*bias)]
        attributes = {"transB": int(flip), "alpha": 0.5, "beta": 2.0} if flip else {}
        return self.add(self.g.op("Gemm", x, weight, *more, **attributes), new)

    def constant(self, x: str, shape: Shape) -> str | None:
        """Add or Sub of a constant that broadcasts to the shape of x."""
        if isinstance(shape[-1], str):
            return None
        kept = [1 if isinstance(s, str) or self.flip() else s for s in shape[1:]]
        c = self.weight(*kept[self.random.randint(0, len(kept)) :])
        pair = [x, c] if self.flip() else [c, x]
        return self.add(self.g.op(self.random.choice(["Add", "Sub"]), *pair), shape)

    def renamed(self, x: str, shape: Shape) -> str:
        return self.add(self.g.op(self.random.choice(["Identity", "Dropout"]), x), shape)

    def activation(self, x: str, shape: Shape) -> str:
        op = self.random.choice(["Relu", "Sigmoid", "LeakyRelu", "Neg", "Softmax"])
        return self.add(self.g.op(op, x), shape)

    def pool(self, x: str, shape: Shape) -> str | None:
        if len(shape) != 4 or any(isinstance(size, str) for size in shape[1:]):
            return None
        op = self.random.choice(["MaxPool", "AveragePool"])
        y = self.g.op(op, x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return self.add(y, shape)

    def two(self, x: str, shape: Shape) -> str | None:
        """Add, Sub or Concat with another value of the same shape, which may be x."""
        other = self.random.choice([n for n, s in self.shapes.items() if s == shape])
        op = self.random.choice(["Add", "Sub", "Concat"])
        if op != "Concat":
            return self.add(self.g.op(op, x, other), shape)
        if len(shape) < 2 or isinstance(shape[1], str):
            return None
        y = self.g.op("Concat", x, other, axis=1)
        return self.add(y, (shape[0], 2 * shape[1], *shape[2:]))

    def transpose(self, x: str, shape: Shape) -> str:
        rest = self.random.sample(range(1, len(shape)), len(shape) - 1)
        perm = [0, *rest]
        return self.add(self.g.op("Transpose", x, perm=perm), tuple(shape[i] for i in perm))

    def unsqueeze(self, x: str, shape: Shape) -> str | None:
        if len(shape) > 3:
            return None
        axis = self.random.randint(1, len(shape))
        y = self.g.op("Unsqueeze", x, self.g.const([axis]))
        return self.add(y, (*shape[:axis], 1, *shape[axis:]))

    def squeeze(self, x: str, shape: Shape) -> str | None:
        ones = [axis for axis, size in enumerate(shape) if size == 1 and axis]
        if not ones or len(shape) < 3:
            return None
        y = self.g.op("Squeeze", x, self.g.const(ones[:1]))
        return self.add(y, shape[: ones[0]] + shape[ones[0] + 1 :])

    def flatten(self, x: str, shape: Shape) -> str | None:
        numbers = [size for size in shape[1:] if isinstance(size, int)]
        if len(numbers) < len(shape) - 1:
            return None
        if self.flip():
            return self.add(self.g.op("Flatten", x), (shape[0], int(np.prod(numbers))))
        y = self.g.op("Reshape", x, self.g.const([0, -1]))
        return self.add(y, (shape[0], int(np.prod(numbers))))

    def reshape(self, x: str, shape: Shape) -> str | None:
        """Split one axis into two, or merge two neighbours; the batch stays an axis."""
        numbers = [size for size in shape[1:] if isinstance(size, int)]
        if len(numbers) < len(shape) - 1:
            return None
        target = list(numbers)
        if len(target) >= 2 and self.flip():
            at = self.random.randint(0, len(target) - 2)
            target[at : at + 2] = [target[at] * target[at + 1]]
        elif len(target) < 4:
            at = self.random.randint(0, len(target) - 1)
            by = self.random.choice([n for n in (1, 2, 3) if target[at] % n == 0])
            target[at : at + 1] = [by, target[at] // by]
        y = self.g.op("Reshape", x, self.g.const([0, *target]))
        return self.add(y, (shape[0], *target))

    def rows(self, x: str, shape: Shape) -> str | None:
        """(N, T, F) as (N*T, F)."""
        if len(shape) != 3 or isinstance(shape[2], str):
            return None
        y = self.g.op("Reshape", x, self.g.const([-1, shape[2]]))
        fixed = isinstance(shape[0], int) and isinstance(shape[1], int)
        return self.add(y, (shape[0] * shape[1] if fixed else f"{y}_rows", shape[2]))  # type: ignore[operator]

    def size(self, x: str, shape: Shape) -> None:
        """Read the shape of x, not its numbers."""
        self.g.output(self.g.op("Shape", x), dtype="int64", shape=[len(shape)])

    def choice(self, x: str, shape: Shape) -> str | None:
        """An If whose bodies capture x; one of them holds a batch-norm of its own."""
        if len(shape) < 2 or any(isinstance(size, str) for size in shape[1:]):
            return None
        self.condition = self.condition or self.g.input("condition", dtype="bool")
        one, two = self.g.body(), self.g.body()
        parts = self.some_statistics(shape[1])  # type: ignore[arg-type]
        y = x
        if len(shape) == 4 and self.flip():
            y = one.op("Conv", x, self.weight(shape[1], shape[1], 1, 1))  # type: ignore[arg-type]
        one.output(one.op("BatchNormalization", y, *parts), shape=list(shape))
        # Now and then the first body alone reads x.
        other = self.random.choice([name for name, size in self.shapes.items() if size == shape])
        two.output(two.op(self.random.choice(["Identity", "Relu"]), other), shape=list(shape))
        bodies = {"then_branch": one.graph(), "else_branch": two.graph()}
        return self.add(self.g.op("If", self.condition, **bodies), shape)


RandomGraph.ops = (
    "constant", "renamed", "activation", "pool", "two", "transpose", "unsqueeze", "squeeze",
    "flatten", "reshape", "rows", "size", "choice", "branches", "branches", *MORE_OPS,
)  # fmt: skip
