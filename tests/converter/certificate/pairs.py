"""Pairs of graphs for tests of the checker: written down, certified, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from converter.certificate import Certified, NotCertified, certify
from patterns.graphs import Graph

Build = Callable[[Graph], str]


def written(build: Build, dtype: str = "float32", **more: Any) -> ir.Model:
    g = Graph(dtype, **more)
    g.output(g.rename(build(g), "y"))
    return g.model()


def refused(one: ir.Model, other: ir.Model) -> NotCertified:
    """Refused for what the other one computes: the first one is certified against itself."""
    accepted(one, one)
    return doubted(one, other)


def doubted(one: ir.Model | Path, other: ir.Model | Path) -> NotCertified:
    """Refused by a rule, not by an accident, for whichever of them."""
    found = certify(one, other)
    assert isinstance(found, NotCertified), str(found)
    assert "check failed" not in found.reason
    assert "other outputs" not in found.reason
    return found


def accepted(one: ir.Model, other: ir.Model) -> Certified:
    found = certify(one, other)
    assert isinstance(found, Certified), str(found)
    return found
