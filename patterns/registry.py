"""How batch-norm is used in practice: a table of small graphs, each saying what a fold must do.

A graph is written as a function, from the input on, or as a torch module:

    @pattern(left=0, left_mixed=1, reason="sign")
    def conv_maxpool_bn(g: Net) -> str:
        return g.bn(g.op("MaxPool", g.conv(g.image()), kernel_shape=[2, 2]), 4)

    @module((3, 8, 8))
    def basic_block() -> nn.Module: ...

Every pattern comes in two variants: scales of both signs, and positive scales. `left` is how
many batch-norms the algebra leaves standing, `left_mixed` the same for scales of both signs
where that differs, `reason` the codes with which they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from converter.sources import InputShape, LoadOptions, Reference, examples
from converter.sources.export import reference
from converter.sources.exporters import script
from converter.sources.module import from_module
from patterns.graphs import Array, Graph
from patterns.networks import randomize_batchnorms

VARIANTS = ("mixed", "positive")
SCALES = ("weight", "gamma", "scale")  # what modules call the scale of a norm


@dataclass(frozen=True, eq=False)
class Pattern:
    """One way in which batch-norm is used.

    Attributes:
        name: unique; the name of its function.
        family: the file that holds it.
        left: batch-norms that stay when all scales are positive.
        left_mixed: those that stay when scales have both signs.
        reason: codes of refusals; each batch-norm that stays has one of them. Empty when
            nothing stays.
        plain: chains of constant Mul, Add, .. that belong to the network, not to a norm.
        becomes: the ops of the folded graph, in order; "" if that does not matter.
        keeps: ops that are as many afterwards as before.
        rtol: what may differ in float64; weights of fewer bits are rounded once.
        through_relu: whether the fold is asked to replace a Relu by a maximum (`fold_graph`).
        grows: whether it may carry more numbers, as a shared weight that becomes two does.
    """

    name: str
    family: str
    left: int
    left_mixed: int
    reason: frozenset[str]
    plain: int = 0
    becomes: str = ""
    keeps: tuple[str, ...] = ()
    rtol: float = 1e-9
    grows: bool = False
    through_relu: bool = False

    def remaining(self, variant: str) -> int:
        return self.left_mixed if variant == "mixed" else self.left

    def model(self, variant: str, dtype: str = "float64") -> ir.Model:
        """The un-folded graph."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Written(Pattern):
    """A graph that is written node by node."""

    build: Callable[[Net], Any] = str
    types: tuple[str, ...] = ()

    def model(self, variant: str, dtype: str = "float64") -> ir.Model:
        g = Net(dtype if not self.types else self.types[0], positive=variant == "positive")
        found = self.build(g)
        for name in [found] if isinstance(found, str) else found:
            g.output(name)
        return g.model()


@dataclass(frozen=True, eq=False)
class Module(Pattern):
    """A torch module, exported by the loader; both variants share one export."""

    make: Callable[[], nn.Module] = nn.Identity
    shapes: tuple[tuple[int, ...], ...] = ()
    exporter: str = "script"

    def module(self, variant: str, dtype: torch.dtype = torch.float64) -> nn.Module:
        """In eval mode, with the statistics and scales of a trained one."""
        torch.manual_seed(0)
        made = self.make().eval()
        randomize_batchnorms(made)
        with torch.no_grad():
            for owner in made.modules():
                for name, value in [*owner.named_parameters(recurse=False),
                                    *owner.named_buffers(recurse=False)]:  # fmt: skip
                    if name in SCALES and value.squeeze().ndim == 1:
                        sign = signs(value.numel(), variant == "positive").reshape(value.shape)
                        value.copy_(value.abs() * torch.from_numpy(sign))
        return made.to(dtype)

    @cached_property
    def exported(self) -> tuple[ir.Model, Reference | None]:
        """The graph of the mixed variant, and what torch computes for it."""
        made = self.module("mixed").requires_grad_(False)
        names = examples.parameters_of(made.forward)[0]
        shapes = tuple(InputShape(s, n) for s, n in zip(self.shapes, names, strict=False))
        if self.exporter == "dynamo":
            loaded = from_module(
                made, path=Path("pattern.pt"), kind="module",
                options=LoadOptions(input_shapes=shapes),
            )  # fmt: skip
            return loaded.model, loaded.reference
        call = examples.resolve(made, shapes, None, None, "float64")
        exported = script(made, call)
        return exported.model, reference(call, exported)

    def model(self, variant: str, dtype: str = "float64") -> ir.Model:
        model = self.exported[0].clone()
        if variant == "positive":
            for name, value in model.graph.initializers.items():
                tensor = value.const_value
                if tensor is not None and name.rpartition(".")[2] in SCALES:
                    array = tensor.numpy()
                    if array.squeeze().ndim == 1:
                        value.const_value = ir.tensor(np.abs(array), name=name)
        return model if dtype == "float64" else single(model)


class Net(Graph):
    """A graph being written, with the ops that most patterns have in common."""

    def __init__(self, dtype: str = "float64", *, positive: bool = False, **more: Any) -> None:
        super().__init__(dtype, **more)
        self.positive = positive

    def body(self) -> Net:
        return Net(self.dtype, positive=self.positive, outer=self)

    def scales(self, *shape: int) -> Array:
        """Scales as training leaves them, of both signs or positive."""
        size = int(np.prod(shape))
        drawn = self.rng.uniform(0.3, 1.5, size) * signs(size, self.positive)
        return drawn.reshape(shape)

    def statistics(self, channels: int, name: str = "", **given: Any) -> list[str]:
        given.setdefault("gamma", self.scales(channels))
        return super().statistics(channels, name, **given)

    def unshifted(self, x: str, channels: int) -> str:
        """A batch-norm with beta = mean = 0."""
        zero = np.zeros(channels)
        return self.op("BatchNormalization", x, *self.statistics(channels, beta=zero, mean=zero))

    def image(self, channels: int = 4, size: int = 6, axes: int = 2, name: str = "x") -> str:
        return self.input(name, "N", channels, *[size] * axes)

    def conv(
        self, x: str, inputs: int = 4, outputs: int = 4, kernel: int = 3, *,
        axes: int = 2, bias: bool = False, group: int = 1, **more: Any,
    ) -> str:  # fmt: skip
        weight = self.weight(outputs, inputs // group, *[kernel] * axes)
        parts = [weight, *([self.weight(outputs)] if bias else [])]
        return self.op("Conv", x, *parts, group=group, **more)

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def gemm(self, x: str, inputs: int, outputs: int = 3, **more: Any) -> str:
        return self.op("Gemm", x, self.weight(inputs, outputs), self.weight(outputs), **more)

    def dense(self, x: str, inputs: int, outputs: int = 3) -> str:
        """MatMul and Add."""
        return self.op("Add", self.op("MatMul", x, self.weight(inputs, outputs)),
                       self.weight(outputs))  # fmt: skip


def signs(size: int, positive: bool) -> Array:
    """-1, 1, -1, .. or only ones: with one channel or with a hundred, both signs occur."""
    alternating = np.where(np.arange(size) % 2 == 0, -1.0, 1.0)
    return np.ones(size) if positive else alternating


REGISTRY: dict[str, Pattern] = {}


def _common(build: Callable[..., Any], left: int, left_mixed: int | None, reason: Any,
            more: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    mixed = left if left_mixed is None else left_mixed
    codes = frozenset([reason] if isinstance(reason, str) else reason or ())
    assert bool(codes) == bool(left or mixed), f"{build.__name__}: what stays has a reason"
    assert build.__name__ not in REGISTRY, f"{build.__name__} exists already"
    family = build.__module__.rpartition(".")[2]
    return {
        "name": build.__name__, "family": family, "left": left, "left_mixed": mixed,
        "reason": codes, **more,
    }  # fmt: skip


def pattern(
    left: int = 0, left_mixed: int | None = None, reason: Any = None, **more: Any
) -> Callable[[Callable[[Net], Any]], Callable[[Net], Any]]:
    """Register a function that writes a graph and returns its output(s)."""

    def register(build: Callable[[Net], Any]) -> Callable[[Net], Any]:
        fields = _common(build, left, left_mixed, reason, more)
        REGISTRY[build.__name__] = Written(build=build, **fields)
        return build

    return register


def module(
    *shapes: tuple[int, ...], left: int = 0, left_mixed: int | None = None,
    reason: Any = None, **more: Any,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:  # fmt: skip
    """Register a function that makes a torch module; `shapes` of its inputs, without batch."""

    def register(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        fields = _common(make, left, left_mixed, reason, more)
        REGISTRY[make.__name__] = Module(make=make, shapes=shapes, **fields)
        return make

    return register


def single(model: ir.Model) -> ir.Model:
    """A float64 model with its weights, inputs, outputs and casts in float32."""
    model = model.clone()
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            value.const_value = _single(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, _single(attribute.as_tensor()))
                elif (node.op_type, name) == ("Cast", "to") and attribute.as_int() == 11:
                    node.attributes[name] = ir.AttrInt64(name, 1)
        outputs = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *outputs):
            if value.dtype == ir.DataType.DOUBLE:
                value.type = ir.TensorType(ir.DataType.FLOAT)  # a clone shares the old one
    return model


def _single(tensor: Any) -> Any:
    if tensor is None or tensor.dtype != ir.DataType.DOUBLE:
        return tensor
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
