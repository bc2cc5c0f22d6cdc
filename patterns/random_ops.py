"""More ops for random graphs: what picks, multiplies, pads, resizes and rearranges channels."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from patterns.graphs import Graph

Shape = tuple[int | str, ...]


class MoreOps:
    """Each method adds an op behind `x`, or nothing if it does not fit; see `RandomGraph`."""

    g: Graph
    random: random.Random
    shapes: dict[str, Shape]

    def add(self, name: str, shape: Shape) -> str:
        raise NotImplementedError

    def flip(self) -> bool:
        raise NotImplementedError

    def rarely(self) -> bool:
        raise NotImplementedError

    def weight(self, *shape: int) -> str:
        raise NotImplementedError

    def some_axis(self, shape: Shape, least: int = 1) -> tuple[int, int] | None:
        """An axis of fixed size other than the batch's, the channels' more often than not."""
        fixed = [(a, s) for a, s in enumerate(shape) if a and isinstance(s, int) and s >= least]
        if not fixed:
            return None
        return fixed[0] if self.random.random() < 0.7 else self.random.choice(fixed)

    def split(self, x: str, shape: Shape) -> str | None:
        found = self.some_axis(shape, 2)
        if found is None:
            return None
        axis, size = found
        sizes = [(at := self.random.randint(1, size - 1)), size - at]
        parts = self.g.op("Split", x, self.g.const(sizes), outputs=2, axis=axis)
        kept = [
            self.add(part, (*shape[:axis], n, *shape[axis + 1 :]))
            for part, n in zip(parts, sizes, strict=True)
        ]
        return self.random.choice(kept)

    def halves(self, x: str, shape: Shape) -> str | None:
        """Two slices of one value, that meet or overlap."""
        found = self.some_axis(shape, 2)
        if found is None:
            return None
        axis, size = found
        at = self.random.randint(1, size - 1)
        spans = [(0, at), (at - self.random.choice([0, 0, 1]), size)]
        for start, end in spans:
            bounds = (self.g.const([n]) for n in (start, end, axis))
            y = self.g.op("Slice", x, *bounds)
            last = self.add(y, (*shape[:axis], end - start, *shape[axis + 1 :]))
        return last

    def wrapped(self, x: str, shape: Shape) -> str | None:
        """Slices of a value joined to itself, as a circular padding."""
        found = self.some_axis(shape, 2)
        if found is None:
            return None
        axis, size = found
        ends = [self.g.const([n]) for n in (-1, 2**31, axis)]
        last, first = self.g.op("Slice", x, *ends), self.g.op(
            "Slice", x, *(self.g.const([n]) for n in (0, 1, axis)))  # fmt: skip
        y = self.g.op("Concat", last, x, first, axis=axis)
        return self.add(y, (*shape[:axis], size + 2, *shape[axis + 1 :]))

    def two_ways(self, x: str, shape: Shape) -> str | None:
        """A value and what is made of it, summed; their difference may be zero."""
        if len(shape) != 4:
            return None
        kind = self.random.choice(["MaxPool", "AveragePool"])
        y = self.g.op(kind, x, kernel_shape=[3, 3], pads=[1] * 4)
        return self.add(self.g.op(self.random.choice(["Add", "Mean"]), x, y), shape)

    def gather(self, x: str, shape: Shape) -> str | None:
        found = self.some_axis(shape)
        if found is None:
            return None
        axis, size = found
        if len(shape) > 2 and self.random.random() < 0.2:
            y = self.g.op("Gather", x, self.g.const(np.array(size - 1)), axis=axis)
            return self.add(y, shape[:axis] + shape[axis + 1 :])
        picks = [self.random.randint(-size, size - 1) for _ in range(self.random.randint(1, 4))]
        if self.flip():
            picks = self.random.sample(range(size), size)
        y = self.g.op("Gather", x, self.g.const(picks), axis=axis)
        return self.add(y, (*shape[:axis], len(picks), *shape[axis + 1 :]))

    def times(self, x: str, shape: Shape) -> str:
        """A product or sum with a value that may be broadcast, x itself among them."""
        fitting = [
            name
            for name, other in self.shapes.items()
            if len(other) == len(shape)
            and all(n in {1, m} for n, m in zip(other[1:], shape[1:], strict=True))
            and other[0] == shape[0]
        ]
        y = self.g.op(
            self.random.choice(["Mul", "Mul", "Add", "Sub"]), x, self.random.choice(fitting)
        )
        return self.add(y, shape)

    def gate(self, x: str, shape: Shape) -> str | None:
        """Squeeze and excite."""
        channels = shape[1] if len(shape) == 4 else ""
        if isinstance(channels, str):
            return None
        y = self.g.op("GlobalAveragePool", x)
        y = self.g.op("Conv", y, self.weight(channels, channels, 1, 1))
        return self.add(self.g.op("Mul", self.g.op("Sigmoid", y), x), shape)

    def summed(self, x: str, shape: Shape) -> str:
        others = [name for name, other in self.shapes.items() if other == shape]
        chosen = [self.random.choice(others) for _ in range(self.random.randint(1, 2))]
        return self.add(self.g.op(self.random.choice(["Sum", "Mean"]), x, *chosen), shape)

    def factor(self, x: str, shape: Shape) -> str | None:
        """A constant factor: one number, one a channel, or one an element."""
        if any(isinstance(size, str) for size in shape[1:]):
            return None
        sizes = [size if self.flip() else 1 for size in shape[1:]]
        c = self.weight(*sizes)  # type: ignore[arg-type]
        if self.flip():
            return self.add(self.g.op("Mul", x, c), shape)
        positive = self.g.const(self.g.rng.uniform(0.5, 2.0, sizes))  # type: ignore[arg-type]
        return self.add(self.g.op("Div", x, positive), shape)

    def unary(self, x: str, shape: Shape) -> str:
        return self.add(self.g.op(self.random.choice(["Neg", "Abs"]), x), shape)

    def pad(self, x: str, shape: Shape) -> str | None:
        found = self.some_axis(shape, 2)
        if found is None:
            return None
        axis, size = found
        mode = self.random.choice(["constant", "constant", "reflect", "edge", "wrap"])
        if self.g.opset < 19 and mode == "wrap":
            mode = "edge"
        pads = [0] * (2 * len(shape))
        pads[axis], pads[len(shape) + axis] = self.random.randint(0, 1), 1
        value = [self.g.const(self.random.choice([0.0, 0.0, 1.0]))] if mode == "constant" else []
        y = self.g.op("Pad", x, self.g.const(pads), *value, mode=mode)
        new = size + pads[axis] + 1
        return self.add(y, (*shape[:axis], new, *shape[axis + 1 :]))

    def repeat(self, x: str, shape: Shape) -> str | None:
        found = self.some_axis(shape)
        if found is None:
            return None
        axis, size = found
        if self.flip():
            times = [1] * len(shape)
            times[axis] = 2
            y = self.g.op("Tile", x, self.g.const(times))
        else:
            factors = [1.0] * len(shape)
            factors[axis] = 2.0
            mode = self.random.choice(["nearest", "linear"])
            more = self.g.const(factors, dtype="float32")
            y = self.g.op("Resize", x, "", more, mode=mode)
        return self.add(y, (*shape[:axis], 2 * size, *shape[axis + 1 :]))

    def reduce(self, x: str, shape: Shape) -> str | None:
        found = self.some_axis(shape)
        if found is None or len(shape) < 3:
            return None
        axis = found[0]
        keep = self.flip()
        op = self.random.choice(["ReduceMean", "ReduceMax", "ReduceMin"])
        if self.g.opset < 18:
            y = self.g.op(op, x, axes=[axis], keepdims=int(keep))
        else:
            y = self.g.op(op, x, self.g.const([axis]), keepdims=int(keep))
        return self.add(y, (*shape[:axis], *([1] if keep else []), *shape[axis + 1 :]))

    def total(self, x: str, shape: Shape) -> str | None:
        found = self.some_axis(shape)
        if found is None or len(shape) < 3:
            return None
        axis = found[0]
        y = self.g.op("ReduceSum", x, self.g.const([axis]), keepdims=1)
        return self.add(y, (*shape[:axis], 1, *shape[axis + 1 :]))

    def rearrange(self, x: str, shape: Shape) -> str | None:
        if len(shape) != 4 or any(isinstance(size, str) for size in shape[1:]):
            return None
        _, channels, height, width = shape
        assert isinstance(channels, int)
        assert isinstance(height, int)
        assert isinstance(width, int)
        if channels % 4 == 0:
            more = {"mode": self.random.choice(["DCR", "CRD"])}
            y = self.g.op("DepthToSpace", x, blocksize=2, **more)
            return self.add(y, (shape[0], channels // 4, 2 * height, 2 * width))
        if height % 2 or width % 2:
            return None
        y = self.g.op("SpaceToDepth", x, blocksize=2)
        return self.add(y, (shape[0], 4 * channels, height // 2, width // 2))

    def shuffle(self, x: str, shape: Shape) -> str | None:
        """A channel shuffle."""
        channels = shape[1]
        if isinstance(channels, str) or channels % 2 or any(isinstance(s, str) for s in shape[2:]):
            return None
        rest = list(shape[2:])
        y = self.g.op("Reshape", x, self.g.const([-1, 2, channels // 2, *rest]))
        y = self.g.op("Transpose", y, perm=[0, 2, 1, *range(3, len(shape) + 1)])
        return self.add(self.g.op("Reshape", y, self.g.const([-1, channels, *rest])), shape)

    def normalised(self, x: str, shape: Shape) -> str | None:
        if len(shape) < 3 or any(isinstance(size, str) for size in shape[1:]):
            return None
        if self.flip():
            size = shape[1]
            op = "InstanceNormalization"
        else:
            size = shape[-1]
            op = "LayerNormalization" if self.g.opset > 16 else ""
        if not op or 1 in shape[1:]:
            return None  # one number has no spread
        assert isinstance(size, int)
        y = self.g.op(op, x, self.weight(size), self.weight(size), epsilon=0.1)
        return self.add(y, shape)

    def attention(self, x: str, shape: Shape) -> str | None:
        """softmax(x x') x of a matrix of fixed size, or without the softmax."""
        if len(shape) < 3 or isinstance(shape[-1], str) or isinstance(shape[-2], str):
            return None
        perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        a = self.g.op("MatMul", x, self.g.op("Transpose", x, perm=perm))
        a = self.g.op(self.random.choice(["Softmax", "Sigmoid"]), a)
        columns = self.random.randint(1, 3)
        v = self.g.op("MatMul", self.g.op("Sigmoid", x), self.weight(shape[-1], columns))
        return self.add(self.g.op("MatMul", a, v), (*shape[:-1], columns))

    def einsum(self, x: str, shape: Shape) -> str | None:
        """A product over one axis, which may stay as one of the constant's, too."""
        found = self.some_axis(shape)
        if found is None or len(shape) > 4:
            return None
        axis, size = found
        letters = "nabc"[: len(shape)]
        summed, outputs = letters[axis], self.random.randint(1, 4)
        rest = [letter for letter in letters[1:] if letter != summed or self.rarely()]
        self.random.shuffle(rest)
        result = "n" + "".join(rest[:1]) + "o" + "".join(rest[1:])
        equation = f"{letters},{summed}o->{result}"
        y = self.g.op("Einsum", x, self.weight(size, outputs), equation=equation)
        sizes = {**dict(zip(letters, shape, strict=True)), "o": outputs}
        new = tuple(sizes[letter] for letter in result)
        return self.add(self.g.annotate(y, *new), new) if len(new) < 5 else None

    def heads(self, x: str, shape: Shape) -> str | None:
        """Attention with two heads, which may be folded into the batch."""
        channels = shape[1] if len(shape) == 3 else 1
        if isinstance(channels, str) or channels % 2 or isinstance(shape[2], str):
            return None
        folded = self.flip()
        size = self.g.const([*([-1] if folded else [0, 2]), channels // 2, shape[2]])
        swap = [0, 2, 1] if folded else [0, 1, 3, 2]
        k = self.g.op("Reshape", x, size)
        v = self.g.op("Conv", x, self.weight(channels, channels, 1))
        v = self.g.op("Transpose", self.g.op("Reshape", v, size), perm=swap)
        a = self.g.op("MatMul", self.g.op("Transpose", k, perm=swap), self.g.op("Sigmoid", k))
        a = self.g.op(self.random.choice(["Softmax", "Softmax", "Sigmoid"]), a)
        y = self.g.op("Transpose", self.g.op("MatMul", a, v), perm=swap)
        y = self.g.op("Reshape", y, self.g.const([-1, channels, shape[2]]))
        return self.add(self.g.annotate(y, *shape), shape)

    def product_on_the_left(self, x: str, shape: Shape) -> str | None:
        if len(shape) < 3 or isinstance(shape[-2], str):
            return None
        rows = self.random.randint(1, 4)
        y = self.g.op("MatMul", self.weight(rows, shape[-2]), x)
        return self.add(y, (*shape[:-2], rows, shape[-1]))


MORE_OPS = (
    "split", "halves", "gather", "times", "gate", "summed", "factor", "unary", "pad", "repeat",
    "reduce", "total", "rearrange", "shuffle", "normalised", "product_on_the_left",
    "attention", "heads", "einsum", "wrapped", "two_ways",
)  # fmt: skip
