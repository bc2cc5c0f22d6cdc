"""Small models whose reports hold everything: folded, merged, kept, warned about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converter.folding import FoldOptions
from converter.pipeline import Preview, preview
from converter.report.explain import Explainer
from patterns.graphs import Graph
from tests.converter.published import loaded


def previewed(body: Callable[[Graph, str], str], *shape: int | str, **more: Any) -> Preview:
    """What a fold would do to the graph of `body`, which reads a float32 input "x"."""
    g = Graph("float32")
    g.output(body(g, g.input("x", *(shape or ("N", 4, 6, 6)))))
    return preview(loaded(g), FoldOptions(**more))


def told(found: Preview, name: str) -> dict[str, Any]:
    """The explanation of the batch-norm `name`."""
    (decision,) = (d for d in found.plan.decisions if d.site.name == name)
    return Explainer(found.original, found.plan).explain(decision)


def mixed(g: Graph, x: str) -> str:
    """Conv-bn1, three branches of which one is bn2 itself, Sigmoid-bn3, Sigmoid-bn4 .. Tanh."""
    y = g.bn(g.op("Conv", x, g.weight(4, 4, 3, 3, name="conv1.weight"), pads=[1] * 4), 4, "bn1")
    y = g.op("Relu", y, node="relu")
    three = g.op("Conv", y, g.weight(4, 4, 3, 3, name="conv2.weight"), pads=[1] * 4)
    y = g.op("Add", three, g.bn(y, 4, "bn2"), node="sum")
    for name in ("bn3", "bn4"):
        y = g.bn(g.op("Sigmoid", y, node=f"{name}_sigmoid"), 4, name)
    return str(g.op("Tanh", y, node="tanh"))


def many(g: Graph, x: str) -> str:
    """113 pairs of a batch-norm that goes and one that stays, none of them trained."""
    fresh: dict[str, Any] = {"mean": np.zeros(4), "var": np.ones(4)}
    for index in range(113):
        y = g.op("Conv", x, g.weight(4, 4, 1, name=f"stage.{index}.conv.weight"))
        first = g.statistics(4, f"stage.{index}.bn1", **fresh)
        second = g.statistics(4, f"stage.{index}.bn2", **fresh)
        y = g.op("BatchNormalization", y, *first)
        x = g.op("Tanh", g.op("BatchNormalization", g.op("Sigmoid", y), *second))
    return x
