"""The two loops do the same work, and the report says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import training_speed
from benchmarks.training_speed import Speed, by_hand, main, measure, ours, report
from converter.training import Dataset, Split, build, datasets

SUBSET = Path(__file__).parents[1] / "data" / "mnist"


@pytest.fixture
def data() -> Dataset:
    """256 images, two batches."""
    found = datasets.load("mnist", SUBSET)
    first = Split(found.train.images[:256], found.train.labels[:256])
    return Dataset(first, Split(found.test.images[:100], found.test.labels[:100]), found.labels, "")


def test_both_loops_make_the_same_steps(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the same order of the images they end with the same weights."""
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count))
    weights = []
    for loop in (ours, by_hand):
        torch.manual_seed(0)
        model = build("cnn", width=4, hidden=8)
        accuracy = loop(model, data, 2)
        weights.append((accuracy, model.state_dict()))
    assert weights[0][0] == weights[1][0]
    for name, tensor in weights[0][1].items():
        torch.testing.assert_close(tensor, weights[1][1][name], rtol=1e-4, atol=1e-5)


def test_the_first_pair_is_not_counted_and_the_threads_are_put_back(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    turns: list[str] = []
    for name in ("ours", "by_hand"):
        monkeypatch.setattr(training_speed, name, lambda *_, name=name: turns.append(name) or 0.5)
    found = measure(data, rounds=2, threads=1)
    assert turns == ["by_hand", "ours", "ours", "by_hand", "by_hand", "ours"]
    assert len(found.ours) == len(found.by_hand) == 2
    assert torch.get_num_threads() == before


def test_the_report_compares_pairs_with_the_goal() -> None:
    found = Speed(60000, 2, [2.0, 3.0, 4.0], [1.0, 3.0, 4.0], 0.5, 0.5)
    assert found.ratios == [2.0, 1.0, 1.0]
    assert "1.000 (median of the pairs; 1.000 to 2.000)" in report(found)
    assert "1.200 reached" in report(found)
    slow = Speed(60000, 2, [1.3], [1.0], 0.5, 0.5)
    assert "1.200 missed" in report(slow)


def test_no_data_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-dir", str(tmp_path)]) == 2
    assert "holds neither" in capsys.readouterr().err
