"""The table of claims: each row is complete, and made-up runs bring out each verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from experiments import measures
from experiments.claims import CLAIMS
from experiments.examining import Claim, Outcome, examine
from experiments.measures import MissingRunError, Repetition
from experiments.records import Record
from experiments.settings import Settings
from experiments.verdict import Verdict
from tests.experiments.made import record

BY_NAME = {claim.name: claim for claim in CLAIMS}


def outcome(claim: Claim, made: Callable[[Settings], Record]) -> Outcome:
    return examine(claim, [made(settings) for settings in claim.runs()])


def noise(seed: int) -> float:
    """A little spread, the same sum for every three seeds."""
    return (seed % 3 - 1) * 1e-4


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_row_can_be_measured(claim: Claim) -> None:
    """Its own grid has all that its measures ask for."""
    found = outcome(
        claim, lambda s: record(s, recalibrated=0.9 if s.recalibrate else None, train=0.95)
    )
    assert all(finding.found is not None for finding in found.findings)
    assert all(len(f.found.values) == claim.seeds for f in found.findings if f.found)
    assert found.verdict is not None
    assert claim.seeds >= 3
    assert claim.sentence.endswith(".")
    assert claim.source


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(CLAIMS)


@pytest.mark.parametrize(
    ("plain", "batch", "verdict"),
    [(0.11, 0.95, "holds"), (0.95, 0.95, "does not hold"), (0.11, 0.11, "does not hold")],
)
def test_sigmoid(plain: float, batch: float, verdict: str) -> None:
    def made(s: Settings) -> Record:
        return record(s, [0.1, (plain if s.norm == "none" else batch) + noise(s.seed)])

    assert outcome(BY_NAME["sigmoid-sgd"], made).verdict == verdict


def test_a_wide_spread_decides_nothing() -> None:
    def made(s: Settings) -> Record:
        return record(s, [0.1, 0.1 + 0.4 * s.seed if s.norm == "none" else 0.95])

    assert outcome(BY_NAME["sigmoid-sgd"], made).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("recalibrated", "renorm", "verdict"),
    [(0.9, 0.9, "holds"), (0.9, 0.5, "holds"), (0.5, 0.9, "holds"), (0.5, 0.5, "does not hold")],
)
def test_one_remedy_is_enough(recalibrated: float, renorm: float, verdict: str) -> None:
    def made(s: Settings) -> Record:
        last = renorm if s.norm == "renorm" else 0.7
        return record(
            s,
            [0.1, last + noise(s.seed)],
            recalibrated=recalibrated + noise(s.seed + 1) if s.norm != "none" else None,
        )

    assert outcome(BY_NAME["small-batch-remedies"], made).verdict == verdict


def test_unfinished_runs_are_not_measured() -> None:
    claim = BY_NAME["position"]
    runs = [record(s) for s in claim.runs() if s.activation == "relu"]
    found = examine(claim, runs)
    assert found.verdict is None
    assert [finding.verdict is None for finding in found.findings] == [False, True]


def test_runs_of_other_settings_do_not_count() -> None:
    claim = BY_NAME["mlp-sgd"]
    others = [record(replace(s, epochs=1)) for s in claim.runs()]
    assert examine(claim, others).verdict is None


def test_seeds_without_all_arms_are_left_out() -> None:
    claim = BY_NAME["steps"]
    runs = [s for s in claim.runs() if s.norm == "batch" or s.seed < 2]
    found = examine(claim, [record(s) for s in runs]).findings[0].found
    assert found is not None
    assert len(found.values) == 2


PLAIN, BATCH = Settings(norm="none"), Settings(norm="batch")


@pytest.mark.parametrize(
    ("run", "baseline", "expected"),
    [
        ([0.1, 0.9, 0.9, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5], 10 / 40),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.9, 0.8, 0.8, 0.8], 40 / 10),  # never: all its steps
        ([0.1, 0.2, 0.9], [0.5, 0.4, 0.3], None),  # a baseline that never got better
    ],
)
def test_fraction_of_the_steps(
    run: list[float], baseline: list[float], expected: float | None
) -> None:
    assert measures.fraction(record(BATCH, run), record(PLAIN, baseline)) == expected


def test_measures() -> None:
    repetition = Repetition(
        BATCH,
        [
            record(PLAIN, [0.1, 0.5], train=0.8, drift=0.3),
            record(BATCH, [0.1, 0.7], train=0.75, recalibrated=0.72),
            record(replace(BATCH, lr=1.0), [0.1, 0.2]),
        ],
    )
    of, less = measures.of, measures.less
    assert of(measures.accuracy)(repetition) == 0.7
    assert of(measures.recalibrated)(repetition) == 0.72
    assert of(measures.gap, norm="none")(repetition) == pytest.approx(0.3)
    assert of(measures.mean_drift, norm="none")(repetition) == pytest.approx(0.3)
    difference = less(of(measures.accuracy), of(measures.accuracy, norm="none"))
    assert difference(repetition) == pytest.approx(0.2)
    assert measures.spread(measures.accuracy, "lr", [0.01, 1.0])(repetition) == pytest.approx(0.5)
    with pytest.raises(MissingRunError):
        of(measures.accuracy, norm="renorm")(repetition)
    with pytest.raises(MissingRunError):
        of(measures.recalibrated, norm="none")(repetition)
