"""Graphs whose folds are certified, and changed: patterns, small networks, random graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir

from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from patterns.graphs import float32
from patterns.random_graphs import RandomGraph, Shape
from patterns.registry import VARIANTS, Pattern
from patterns.suite import PATTERNS, REGISTRY


@dataclass(frozen=True, eq=False)
class Pair:
    """A graph in float32: as the user has it, normalized, folded."""

    name: str
    users: ir.Model
    original: ir.Model
    folded: onnx.ModelProto


def pair(pattern: Pattern, variant: str) -> Pair:
    model = pattern.model(variant, "float32")
    return folded(f"{pattern.name}/{variant}", model, through_relu=pattern.through_relu)


def folded(name: str, model: ir.Model, *, through_relu: bool = False) -> Pair:
    original = normalize(model)
    after = fold_graph(original, FoldOptions(through_relu=through_relu)).model
    return Pair(name, model, original, ir.to_proto(after))


class Rounds(RandomGraph):
    """Random graphs with Loops of which each round has a batch-norm."""

    ops: ClassVar[tuple[str, ...]] = (*RandomGraph.ops, "loop", "loop")

    def loop(self, x: str, shape: Shape) -> str | None:
        if len(shape) != 4 or any(isinstance(size, str) for size in shape[1:]):
            return None
        channels = int(shape[1])
        times = self.g.const(np.array(self.random.randint(1, 3)))
        body = self.g.body()
        body.input(body.name("round"), dtype="int64")
        going, state = body.name("going"), body.name("state")
        body.input(going, dtype="bool")
        body.input(state, *shape)
        y = body.op("Conv", state, self.weight(channels, channels, 1, 1))
        y = body.op("BatchNormalization", y, *self.some_statistics(channels))
        other = self.random.choice([state, x])  # what it captures, now and then
        body.output(body.op("Identity", going), dtype="bool")
        body.output(body.op("Tanh", body.op("Add", y, other)), shape=list(shape))
        start = self.g.const(np.array(True))
        return self.add(self.g.op("Loop", times, start, x, body=body.graph()), shape)


def random_pair(seed: int) -> Pair:
    graph = Rounds(seed)
    return folded(f"random {seed}", float32(graph.model(graph.random.randint(4, 12))))


def network_pair(name: str) -> Pair:
    from benchmarks.small_networks import exported

    return folded(name, exported(name))


def pattern_pair(name: str) -> Pair:
    pattern, variant = name.rsplit("/", 1)
    return pair(REGISTRY[pattern], variant)


def _pattern(rng: np.random.Generator, families: frozenset[str]) -> str:
    fit = [p for p in PATTERNS if not families or p.family in families]
    return f"{fit[int(rng.integers(len(fit)))].name}/{VARIANTS[int(rng.integers(2))]}"


def _network(rng: np.random.Generator, _: frozenset[str]) -> str:
    from benchmarks.small_networks import NETWORKS

    return str(rng.choice(sorted(NETWORKS)))


def _random(rng: np.random.Generator, _: frozenset[str]) -> str:
    return str(int(rng.integers(300)))


@dataclass(frozen=True)
class Population:
    """`draw` gives the name of a member, `make` the member; `share` of all mutants are of it."""

    draw: Callable[[np.random.Generator, frozenset[str]], str]
    make: Callable[[str], Pair]
    share: float


POPULATIONS = {
    "patterns": Population(_pattern, pattern_pair, 0.5),
    "networks": Population(_network, network_pair, 0.2),
    "random": Population(_random, lambda name: random_pair(int(name)), 0.3),
}
