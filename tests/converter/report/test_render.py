"""The report on a terminal of 80 columns and in a log: nothing is lost, nothing sticks out."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from converter.pipeline import Preview, Size
from converter.report.terminal import show_sizes
from converter.report.terminal_explain import show_explanation
from converter.report.terminal_plan import show_plan
from patterns.graphs import Graph
from tests.converter.previews import many, mixed, previewed, told


def shown(what: Any, *arguments: Any, width: int = 120) -> str:
    out = StringIO()
    what(Console(file=out, width=width, highlight=False, color_system=None), *arguments)
    return out.getvalue()


@pytest.fixture(scope="module")
def large() -> Preview:
    return previewed(many, "N", 4, 5)


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_sticks_out_and_every_name_is_there(large: Preview, width: int) -> None:
    text = shown(show_plan, large.plan, width=width)
    assert max(map(len, text.splitlines())) <= width
    joined = re.sub(r"\s+", "", text)
    for decision in large.plan.decisions:
        assert decision.site.name in joined
    assert "\x1b" not in text


def test_what_stays_is_grouped_by_reason(large: Preview) -> None:
    text = shown(show_plan, large.plan)
    assert text.count("a scale and shift cannot be taken through Sigmoid") == 1
    assert "kept, stopped before it by Sigmoid and behind it by Tanh (113):" in text
    assert "113 of 226 batch-norms folded" in text


def test_equal_warnings_are_given_once(large: Preview) -> None:
    text = shown(show_plan, large.plan)
    assert text.count("its statistics were never updated") == 1
    assert "226 batch-norms" in text


def test_different_warnings_of_a_kind_are_cut() -> None:
    def body(g: Graph, x: str) -> str:
        for count in range(1, 6):
            gamma = np.where(np.arange(8) < count, 0.0, 1.0)
            weight = g.weight(8, 8, 1, name=f"c{count}.weight")
            parts = g.statistics(8, f"bn{count}", gamma=gamma)
            x = g.op("BatchNormalization", g.op("Conv", x, weight), *parts)
            x = g.op("Relu", x)
        return x

    text = re.sub(r"\s+", " ", shown(show_plan, previewed(body, "N", 8, 5).plan))
    assert text.count("have gamma = 0") == 3
    assert "dead-channels also in 2 more: bn4, bn5" in text


def test_a_single_one_that_stays_gets_its_sentence() -> None:
    def body(g: Graph, x: str) -> str:
        return str(g.op("Tanh", g.bn(g.op("Sigmoid", x), 4, "bn")))

    text = shown(show_plan, previewed(body).plan)
    assert "kept bn: Sigmoid" in text
    assert "0 of 1 batch-norms folded" in text


def test_no_batchnorm_at_all() -> None:
    text = shown(show_plan, previewed(lambda g, x: str(g.op("Relu", x))).plan)
    assert text.strip() == "There is no batch-norm in this model."


def test_other_scales_and_shifts_are_not_batchnorms() -> None:
    def body(g: Graph, x: str) -> str:
        mean, std = (g.const(np.arange(1.0, 5.0).reshape(4, 1, 1)) for _ in range(2))
        x = g.op("Div", g.op("Sub", x, mean), std)
        return g.bn(g.op("Conv", x, g.weight(4, 4, 1, 1)), 4, "bn")

    found = previewed(body)
    text = shown(show_plan, found.plan)
    assert "1 of 1 batch-norms folded" in text
    assert len(found.plan.scale_shifts) == 1
    assert re.search(r"1 other constant scale and shift, folded: \S+\.", text)


@pytest.mark.parametrize("name", ["bn1", "bn2", "bn3", "bn4"])
def test_an_explanation_fits(name: str) -> None:
    text = shown(show_explanation, told(previewed(mixed), name), width=80)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    if name == "bn1":
        assert "bn1 is folded" in text
        assert "conv1.bias 4 made" in text
        assert "1. Conv conv1: W[o] *= a[o]" in text
    if name == "bn4":
        assert "bn4 is kept" in text
        assert "stopped: Tanh tanh reads it" in text


def test_sizes_that_are_not_known_are_said() -> None:
    known, unknown = Size(2, 5, 10, 100, 1234, ()), Size(1, 4, 8, 90, None, ("Conv a", "Conv b"))
    assert "-1" in shown(show_sizes, known, known.__class__(1, 4, 8, 90, 1233))
    text = shown(show_sizes, known, unknown)
    assert re.search(r"multiply-adds of one run\s+1,234\s+\?", text)
    assert "no shape at Conv a, Conv b" in text
