"""Which runs a grid is made of, and what names them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from converter.errors import UserError
from experiments.grid import MOST_RUNS, expand, varied
from experiments.settings import Settings, label


def test_every_combination_with_every_seed() -> None:
    runs = expand(Settings(epochs=2), {"norm": ["none", "batch"], "lr": [0.1, 0.2, 0.3]}, seeds=2)
    assert len(runs) == 12
    assert {(r.norm, r.lr, r.seed) for r in runs} == {
        (norm, lr, seed) for norm in ("none", "batch") for lr in (0.1, 0.2, 0.3) for seed in (0, 1)
    }
    assert {run.epochs for run in runs} == {2}


def test_whole_repetitions_come_first() -> None:
    runs = expand(Settings(seed=5), {"norm": ["none", "batch"]}, seeds=3)
    assert [run.seed for run in runs] == [5, 5, 6, 6, 7, 7]


def test_no_norm_has_no_place_of_it() -> None:
    """Without a norm, before and after are the same network: it is trained once."""
    runs = expand(
        Settings(recalibrate=True),
        {"norm": ["none", "batch"], "bn_position": ["before", "after"], "momentum": [0.1, 0.5]},
        seeds=1,
    )
    plain = [run for run in runs if run.norm == "none"]
    assert len(runs) == 5
    assert len(plain) == 1
    assert not plain[0].recalibrate


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"norm": ["layer"]}, "--norm"),
        ({"bn_position": ["beside"]}, "--bn-position"),
        ({"optimizer": ["lion"]}, "--optimizer"),
        ({"lr": [0.0]}, "--lr"),
        ({"lr": [float("inf")]}, "--lr"),
        ({"lr": [float("nan")]}, "--lr"),
        ({"batch_size": [1]}, "--batch-size"),
        ({"epochs": [0]}, "--epochs"),
        ({"dropout": [1.0]}, "--dropout"),
        ({"init_scale": [-1.0]}, "--init-scale"),
        ({"momentum": [0.0]}, "--momentum"),
        ({"images": [-1]}, "--images"),
        ({"evaluations": [0]}, "--evaluations"),
        ({"lr": []}, "--lr has no value"),
        ({"lr": list(range(1, MOST_RUNS + 2))}, "runs"),
    ],
)
def test_what_no_training_can_have_is_refused(axes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        expand(Settings(), axes, seeds=1)


def test_recalibration_needs_a_norm() -> None:
    with pytest.raises(UserError, match="--recalibrate"):
        Settings(norm="none", recalibrate=True).check()


def test_no_seed_is_no_grid() -> None:
    with pytest.raises(UserError, match="--seeds"):
        expand(Settings(), {}, seeds=0)


OTHER: dict[str, Any] = {
    "arch": "cnn",
    "norm": "renorm",
    "activation": "tanh",
    "bn_position": "after",
    "optimizer": "adam",
    "recalibrate": True,
}


@pytest.mark.parametrize("name", vars(Settings()))
def test_every_setting_is_in_the_key(name: str) -> None:
    value = getattr(Settings(), name)
    other = replace(Settings(), **{name: OTHER.get(name) or value + 1})
    assert other.key != Settings().key
    assert replace(Settings(), **{name: value}).key == Settings().key


def test_settings_survive_json() -> None:
    settings = Settings(norm="renorm", lr=1.0, recalibrate=True)
    assert Settings.from_json(json.loads(json.dumps(asdict(settings)))) == settings
    # As another program may write a whole number.
    assert Settings.from_json({**asdict(settings), "lr": 1}).key == settings.key


@pytest.mark.parametrize("change", [{"lr": "0.1"}, {"epochs": True}, {"more": 1}])
def test_other_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="setting"):
        Settings.from_json({**asdict(Settings()), **change})


def test_an_arm_is_called_by_what_sets_it_apart() -> None:
    runs = expand(Settings(), {"norm": ["none", "batch"], "lr": [0.1, 0.01]}, seeds=2)
    assert varied(runs) == ("norm", "lr")
    assert label(runs[0], varied(runs)) == "no norm, lr 0.1"
    assert label(Settings(), ()) == "all"
