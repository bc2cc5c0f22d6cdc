"""The register of moves backward: a linear op, what is to be passed, and a batch-norm."""

from __future__ import annotations

from collections.abc import Callable

from patterns.graphs import Graph

Build = Callable[[Graph], str]
CASES: dict[str, tuple[str, Build]] = {}
# Ops of `folding/ops/` that take up a part of a map, or none, and let the rest pass.
PARTLY = frozenset({"Add", "Sub", "Mul", "Div", "Gather", "Clip", "Max", "Min"})


def case(op: str, name: str) -> Callable[[Build], Build]:
    """Register a graph whose first batch-norm is to pass an op; its result is the graph's."""

    def register(build: Build) -> Build:
        CASES[f"{op}-{name}"] = op, build
        return build

    return register
