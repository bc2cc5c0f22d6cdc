"""The way of one batch-norm, step by step: folded, merged and kept ones."""

from __future__ import annotations

import numpy as np
import pytest

from converter.errors import UserError
from converter.pipeline import Preview
from converter.report.explain import select
from converter.report.terminal_explain import change, describe_map, numbers
from patterns.graphs import Graph
from tests.converter.previews import mixed, previewed, told


@pytest.fixture(scope="module")
def found() -> Preview:
    return previewed(mixed)


def test_a_folded_one_names_what_took_it_up(found: Preview) -> None:
    bn1 = told(found, "bn1")
    assert bn1["folded"]
    signs = [bn1["numbers"][sign] for sign in ("positive", "negative", "zero")]
    assert sum(signs) == bn1["channels"] == 4
    assert min(signs[:2]) > 0
    (attempt,) = bn1["attempts"]
    assert (attempt["direction"], attempt["succeeded"]) == ("backward", True)
    (step,) = attempt["steps"]
    assert step["op"] == "Conv conv1"
    assert "W[o]" in step["formula"]
    assert (step["met"]["channels"], step["met"]["axis"], step["left"]) == (4, 1, [])
    (taker,) = bn1["absorbed"]
    assert [(c["name"], c["change"], c["before"], c["after"]) for c in taker["constants"]] == [
        ("conv1.weight", "changed", [4, 4, 3, 3], [4, 4, 3, 3]),
        ("conv1.bias", "made", None, [4]),
    ]


def test_one_on_a_merged_branch(found: Preview) -> None:
    bn2 = told(found, "bn2")
    assert bn2["attempts"][0]["direction"] == "in parallel"
    (taker,) = bn2["absorbed"]
    assert taker["op"] == "Conv conv2"
    assert [c["change"] for c in taker["constants"]] == ["changed", "made"]


def test_one_whose_op_became_part_of_another() -> None:
    def body(g: Graph, x: str) -> str:
        large = g.op("Conv", x, g.weight(4, 4, 3, 3, name="large.weight"), pads=[1] * 4)
        small = g.op("Conv", x, g.weight(4, 4, 1, 1, name="small.weight"))
        return str(g.op("Add", large, g.bn(small, 4, "bn")))

    (taker,) = told(previewed(body), "bn")["absorbed"]
    assert (taker["op"], taker["merged_into"]) == ("Conv small", "Conv large")


def test_a_kept_one_tells_both_ways(found: Preview) -> None:
    bn4 = told(found, "bn4")
    assert not bn4["folded"]
    assert bn4["absorbed"] == []
    back, on = bn4["attempts"]
    assert [(a["direction"], a["succeeded"], a["stopped_at"]) for a in (back, on)] == [
        ("backward", False, "Sigmoid bn4_sigmoid"),
        ("forward", False, "Tanh tanh"),
    ]
    assert "Sigmoid" in back["reason"]


def test_the_steps_before_the_stop_are_told() -> None:
    def body(g: Graph, x: str) -> str:
        y = g.op("Transpose", g.op("Sigmoid", x), perm=[0, 1, 3, 2], node="turn")
        return str(g.op("Tanh", g.bn(y, 4, "bn")))

    back = told(previewed(body), "bn")["attempts"][0]
    assert [step["op"] for step in back["steps"]] == ["Transpose turn"]
    assert back["steps"][0]["left"][0]["axis"] == 1
    assert back["stopped_at"].startswith("Sigmoid")


def test_what_is_around_a_kept_one(found: Preview) -> None:
    around = told(found, "bn4")["neighbourhood"]
    boxes = dict(enumerate(around["boxes"]))
    roles = {(box["op"], box["layer"]): box["role"] for box in boxes.values()}
    assert roles[("BatchNormalization", 0)] == "site"
    assert roles[("Sigmoid", -1)] == "in the way"
    assert roles[("Tanh", 1)] == "in the way"
    assert roles[("BatchNormalization", -2)] == ""
    site = next(index for index, box in boxes.items() if box["role"] == "site")
    ends = {(boxes[a]["op"], boxes[b]["op"]) for a, b in around["edges"] if site in (a, b)}
    assert ends == {("Sigmoid", "BatchNormalization"), ("BatchNormalization", "Tanh")}
    assert told(found, "bn1")["neighbourhood"] is None


def test_an_output_in_the_way_is_shown_however_far() -> None:
    def body(g: Graph, x: str) -> str:
        y = g.bn(g.op("Sigmoid", x), 4, "bn")
        for _ in range(3):
            y = g.op("Transpose", y, perm=[0, 1, 3, 2])
        return str(y)

    around = told(previewed(body), "bn")["neighbourhood"]
    assert [(b["op"], b["role"]) for b in around["boxes"] if b["layer"] == 4] == [
        ("output", "in the way")
    ]


def test_a_reader_beside_it_that_is_in_the_way() -> None:
    def body(g: Graph, x: str) -> str:
        y = g.op("Conv", x, g.weight(4, 4, 1, 1))
        readers = [g.op("Exp", y, node=f"exp{index}") for index in range(6)]
        total = g.op("Tanh", g.bn(y, 4, "bn"))
        return str(g.op("Concat", total, *readers, axis=1))

    around = told(previewed(body), "bn")["neighbourhood"]
    beside = [box for box in around["boxes"] if box["layer"] == 0]
    assert {(box["op"], box["role"]) for box in beside} == {
        ("BatchNormalization", "site"),
        ("Exp", "in the way"),
    }


def test_a_reader_further_back_is_drawn_beside_the_way() -> None:
    """It reads what the way comes from, and leads into it as well."""

    def body(g: Graph, x: str) -> str:
        y = g.op("Conv", x, g.weight(4, 4, 1, 1))
        long = y
        for _ in range(3):
            long = g.op("Exp", long)
        both = g.op("Concat", g.op("Transpose", y, perm=[0, 1, 3, 2]), long, axis=1)
        return str(g.op("Tanh", g.bn(both, 8, "bn")))

    around = told(previewed(body), "bn")["neighbourhood"]
    boxes = around["boxes"]
    assert [box["layer"] for box in boxes if box["role"] == "in the way" and box["op"] == "Exp"]
    assert all(boxes[a]["layer"] < boxes[b]["layer"] for a, b in around["edges"])


def test_a_batchnorm_of_several_ops_is_one_box() -> None:
    def body(g: Graph, x: str) -> str:
        parts = [g.weight(4, 1, 1) for _ in range(3)]
        y = g.op("Mul", g.op("Sub", g.op("Sigmoid", x), parts[0]), parts[1])
        return str(g.op("Tanh", g.op("Add", y, parts[2])))

    found = previewed(body)
    (decision,) = found.plan.decisions
    explanation = told(found, decision.site.name)
    assert explanation["ops"] == ["Sub", "Mul", "Add"]
    assert not explanation["folded"]
    around = explanation["neighbourhood"]
    boxes = around["boxes"]
    assert [box["layer"] for box in boxes if box["role"] == "site"] == [0]
    (site,) = (index for index, box in enumerate(boxes) if box["role"] == "site")
    ends = [(boxes[a]["op"], boxes[b]["op"]) for a, b in around["edges"] if site in (a, b)]
    assert [end[0] for end in ends if end[1] != "Tanh"] == ["Sigmoid"]
    assert [end[1] for end in ends if end[0] != "Sigmoid"] == ["Tanh"]


def test_a_half_that_stays_is_told_with_its_reason() -> None:
    def body(g: Graph, x: str) -> str:
        mean, std = (g.const(np.arange(1.0, 5.0).reshape(4, 1, 1)) for _ in range(2))
        y = g.op("Div", g.op("Sub", x, mean), std)
        return str(g.op("Conv", y, g.weight(4, 4, 3, 3), pads=[1] * 4))

    found = previewed(body)
    (decision,) = found.plan.decisions
    explanation = told(found, decision.site.name)
    assert decision.stays == "shift"
    assert explanation["remainder"]["shift"]
    assert explanation["remainder"]["scale"] is None
    assert "nothing stands before it" in explanation["because"]


def test_one_that_was_not_tried(found: Preview) -> None:
    skipped = told(previewed(mixed, skip=["bn1"]), "bn1")
    (attempt,) = skipped["attempts"]
    assert (attempt["direction"], attempt["code"]) == (None, "skipped")


def test_names_are_selected_by_pattern(found: Preview) -> None:
    assert [d.site.name for d in select(found.plan, ["bn?"])] == ["bn1", "bn2", "bn3", "bn4"]
    assert [d.site.name for d in select(found.plan, ["bn3", "bn1"])] == ["bn1", "bn3"]


@pytest.mark.parametrize(("pattern", "close"), [("bn_4", "bn4"), ("BN*", "bn1"), ("zzz", "bn1")])
def test_an_unknown_name_gets_the_closest_ones(found: Preview, pattern: str, close: str) -> None:
    with pytest.raises(UserError, match="no batch-norm is named like") as caught:
        select(found.plan, [pattern])
    assert close in str(caught.value.hint)


def test_in_words() -> None:
    found = {"channels": 1, "axis": 2, "scale": None, "shift": [0.5, 0.5]}
    assert describe_map(found) == "1 channel on axis 2, no scale, shift 0.5"
    assert numbers({"numbers": None}) == "no fixed scale and shift"
    made = {"name": "w", "change": "made", "before": None, "after": [4, 3]}
    assert change(made) == "w 4x3 made"
    assert change(made | {"change": "changed", "before": [2, 3]}) == "w 2x3 to 4x3 changed"
