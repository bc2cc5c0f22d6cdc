"""One run on real digits: what its record holds, and that it is the same again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from converter.architectures.renorm import Schedule, _BatchRenorm
from converter.errors import UserError
from converter.training.data import Dataset
from converter.training.evaluate import loss_and_accuracy
from experiments import running
from experiments.records import Record
from experiments.running import SNAPSHOTS, build, run
from experiments.settings import Settings

QUICK = Settings(arch="mlp-small", lr=0.1, batch_size=50, epochs=2, evaluations=2)


@pytest.fixture(scope="module")
def made(data: Dataset) -> Record:
    return run(QUICK, data)


def test_what_a_record_holds(made: Record, data: Dataset) -> None:
    assert [v.step for v in made.validations] == [0, 10, 20, 30, 40]
    assert [v.epoch for v in made.validations] == [0, 0.5, 1, 1.5, 2]
    assert [step for step, _ in made.losses] == list(range(1, 41))
    assert (made.images, made.validated) == (1000, 500)
    assert len(made.epoch_seconds) == 2
    assert all(seconds > 0 for seconds in made.epoch_seconds)
    assert list(made.layers) == ["fc1", "fc2"]
    assert [len(s) for s in made.layers.values()] == [SNAPSHOTS + 1] * 2
    assert made.diverged is None
    assert made.data == data.description
    assert made.accuracy > 0.6  # it learns
    assert made.validations[0].accuracy < 0.3


def test_the_same_settings_give_the_same_numbers(made: Record, data: Dataset) -> None:
    again = run(QUICK, data)
    assert replace(again, epoch_seconds=()) == replace(made, epoch_seconds=())
    other = run(replace(QUICK, seed=1), data)
    assert other.losses != made.losses


def test_watching_does_not_disturb_the_training(made: Record, data: Dataset) -> None:
    """Fewer validations, with dropout drawing at random: the same end."""
    drop = replace(QUICK, dropout=0.5)
    often, rarely = (run(replace(drop, evaluations=n), data) for n in (5, 1))
    assert often.validations[-1] == rarely.validations[-1]
    assert often.losses == rarely.losses


def test_the_start_is_the_network_as_it_was_built(made: Record, data: Dataset) -> None:
    torch.manual_seed(QUICK.seed)
    with torch.random.fork_rng():
        torch.manual_seed(QUICK.seed)
        module = build(QUICK, data)
    expected = loss_and_accuracy(module, data.test.images, data.test.labels)
    assert made.validations[0].loss == pytest.approx(expected[0])
    assert made.parameters == sum(p.numel() for p in module.parameters())


def test_settings_reach_the_network(data: Dataset) -> None:
    def kinds(**changes: object) -> list[type[nn.Module]]:
        module = build(replace(QUICK, **changes), data)  # type: ignore[arg-type]
        return [type(part) for part in module.modules()]

    assert nn.BatchNorm1d not in kinds(norm="none")
    assert any(issubclass(kind, _BatchRenorm) for kind in kinds(norm="renorm"))
    assert nn.Sigmoid in kinds(activation="sigmoid")
    assert nn.Dropout in kinds(dropout=0.5)
    before, after = kinds(), kinds(bn_position="after")
    assert before.index(nn.BatchNorm1d) < before.index(nn.ReLU)
    assert after.index(nn.BatchNorm1d) > after.index(nn.ReLU)
    torch.manual_seed(0)
    one = build(QUICK, data).state_dict()["fc1.weight"]
    torch.manual_seed(0)
    ten = build(replace(QUICK, init_scale=10.0), data).state_dict()["fc1.weight"]
    assert torch.allclose(10 * one, ten)


def test_renorm_has_its_schedule_within_the_run(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[nn.Module] = []

    def keep(*given: Any) -> nn.Module:
        built.append(build(*given))
        return built[-1]

    monkeypatch.setattr(running, "build", keep)
    found = run(replace(QUICK, norm="renorm"), data)
    seen = [part.schedule for part in built[0].modules() if isinstance(part, _BatchRenorm)]
    assert seen
    assert set(seen) == {Schedule.within(found.steps)}


def test_a_training_that_diverges_is_a_result(data: Dataset) -> None:
    found = run(replace(QUICK, norm="none", lr=1e20), data)
    assert found.diverged
    assert found.validations[-1].step == found.diverged - 1
    assert found.accuracy < 0.3


def test_recalibration_is_measured_beside(data: Dataset) -> None:
    """Two steps are too few for a moving average with momentum 0.01: it still is where it began."""
    short = replace(QUICK, epochs=1, images=100, momentum=0.01, lr=0.5)
    plain, again = run(short, data), run(replace(short, recalibrate=True), data)
    assert plain.recalibrated is None
    assert again.recalibrated is not None
    assert again.validations == plain.validations
    assert again.recalibrated.loss < again.validations[-1].loss


def test_images_are_the_first_ones(data: Dataset) -> None:
    found = run(replace(QUICK, images=200, epochs=1), data)
    assert found.images == 200
    assert found.validations[-1].step == 4
    with pytest.raises(UserError, match="--images"):
        run(replace(QUICK, images=1001), data)
