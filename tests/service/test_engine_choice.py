"""The choice of an engine, from measurements that are given here."""

from __future__ import annotations

import math

import pytest

from service.engines.budget import Budget, of, parse
from service.engines.choice import Row, Trial, choose

OWN = Trial("onnxruntime", "as the file", "", 2e-7, True, 0, 10.0, 5.0, 1.0, 1.0)


def engine(name: str = "other", error: float = 2e-7, lone: float = 0.5, row: float = 0.5, **more):
    return Trial(
        name, "float32", error=error, within_atol=more.pop("within_atol", error < 1e-5),
        changed=more.pop("changed", 0), lone_ms=10 * lone, row_ms=5 * row,
        lone=lone, row=row, **more,
    )  # fmt: skip


def winner(rows: list[Row]) -> str | None:
    chosen = [row for row in rows if row.chosen]
    assert len(chosen) <= 1
    return chosen[0].trial.engine if chosen else None


def why(rows: list[Row], name: str) -> str:
    return next(row.why for row in rows if row.trial.engine == name)


def test_alone_the_default_serves() -> None:
    rows = choose([OWN], Budget())
    assert winner(rows) == "onnxruntime"
    assert rows[0].why == "no other is better"


def test_the_fastest_within_the_budget_serves() -> None:
    trials = [OWN, engine("a", lone=0.6), engine("b", lone=0.4), engine("c", error=5e-3, lone=0.1)]
    rows = choose(trials, Budget())
    assert winner(rows) == "b"
    assert why(rows, "a") == "0.55 of the default's time: not the fastest"
    assert why(rows, "b") == "0.45 of the default's time"
    assert why(rows, "c") == "error 5.0e-03, allowed 1.9e-06 (default)"
    assert [row.trial for row in rows] == trials


def test_a_wider_budget_lets_it_serve() -> None:
    trials = [OWN, engine("b", lone=0.4), engine("c", error=5e-3, lone=0.1)]
    assert winner(choose(trials, parse("0.01", "--max-error"))) == "c"
    assert winner(choose(trials, parse("0.001", "--max-error"))) == "b"


def test_the_default_budget_follows_what_onnxruntime_itself_is_off() -> None:
    """A deep network, or a file in float16, has a larger error in any engine."""
    rough = Trial("onnxruntime", "as the file", "", 1e-4, True, 0, 10.0, 5.0, 1.0, 1.0)
    assert winner(choose([rough, engine(error=3.9e-4, within_atol=True)], Budget())) == "other"
    assert (
        winner(choose([rough, engine(error=4.1e-4, within_atol=True)], Budget())) == "onnxruntime"
    )


def test_the_default_budget_keeps_to_the_tolerance_of_the_self_test() -> None:
    trials = [OWN, engine(error=5e-7, within_atol=False)]
    rows = choose(trials, Budget())
    assert winner(rows) == "onnxruntime"
    assert "tolerance of the self-test" in why(rows, "other")
    assert winner(choose(trials, parse("1e-6", "--max-error"))) == "other"


@pytest.mark.parametrize(("lone", "row"), [(1.11, 0.2), (0.2, 1.11)])
def test_nothing_is_traded_for_the_other(lone: float, row: float) -> None:
    rows = choose([OWN, engine(lone=lone, row=row)], Budget())
    assert winner(rows) == "onnxruntime"
    assert "1.11 of the default's time" in why(rows, "other")


def test_a_little_more_for_one_of_them_is_taken_for_much_less_of_the_other() -> None:
    assert winner(choose([OWN, engine(lone=1.09, row=0.5)], Budget())) == "other"


def test_what_is_as_fast_is_not_worth_a_change() -> None:
    rows = choose([OWN, engine(lone=0.96, row=0.96)], Budget())
    assert winner(rows) == "onnxruntime"
    assert why(rows, "other") == "0.96 of the default's time: too close"


def test_one_that_cannot_be_tried_is_told_with_its_reason() -> None:
    rows = choose([OWN, Trial("other", "float32", "not installed")], Budget())
    assert winner(rows) == "onnxruntime"
    assert rows[1].describe() == {
        "engine": "other", "precision": "float32", "lone_ms": None, "row_ms": None, "error": None,
        "chosen": False, "why": "not installed",
    }  # fmt: skip


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_what_is_not_a_number_never_serves(error: float) -> None:
    for budget in (Budget(), Budget(most=1.0), Budget(labels=True)):
        assert winner(choose([OWN, engine(error=error)], budget)) == "onnxruntime"


def test_labels_may_be_the_budget() -> None:
    budget = parse("labels", "--max-error")
    assert winner(choose([OWN, engine(error=0.3, changed=0)], budget)) == "other"
    rows = choose([OWN, engine(error=1e-3, changed=2)], budget)
    assert winner(rows) == "onnxruntime"
    assert why(rows, "other") == "2 labels of the self-test change"


def test_who_insists_gets_another_though_it_is_slower_but_within_the_budget() -> None:
    assert winner(choose([OWN, engine(lone=2, row=2)], Budget(), insist=True)) == "other"
    assert winner(choose([OWN, engine(error=0.1)], Budget(), insist=True)) is None


def test_what_else_there_is_to_know_is_told() -> None:
    row = choose([OWN, engine(note="1 of 9 nodes stays with onnxruntime: Loop")], Budget())[1]
    assert row.describe()["why"].endswith("; 1 of 9 nodes stays with onnxruntime: Loop")


def test_the_operator_goes_before_the_publisher() -> None:
    asked = parse("0.1", "--max-error")
    assert of(asked, 0.01, classifies=True) is asked
    assert of(None, 0.01, classifies=True) == Budget(0.01, whose="model.json")
    assert of(None, "labels", classifies=True) == Budget(labels=True, whose="model.json")
    assert of(None, None, classifies=True) == Budget()


def test_labels_of_a_model_without_labels_are_no_budget() -> None:
    assert of(parse("labels", "--max-error"), None, classifies=False) == Budget()


@pytest.mark.parametrize("text", ["", "0", "-1", "1.1", "nan", "inf", "label", "1e-2x"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        parse(text, "--max-error")
