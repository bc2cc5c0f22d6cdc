"""What the latency document says about times that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import latency
from converter.commands.latency import Comparison


def timing(name: str, ratio: float, **more: Any) -> latency.Timing:
    """The folded graph takes a second, the un-folded one `ratio` seconds, each time."""
    settings = {"batchnorms": 4, "left": 0, "left_by_onnxruntime": 0, "merges": 0} | more
    comparisons = tuple(Comparison(b, (ratio,) * 8, (1.0,) * 8) for b in latency.BATCHES)
    return latency.Timing(
        name, nodes=(9, 5), difference=0.0, comparisons=comparisons, **settings
    )  # fmt: skip


def test_networks_are_grouped_by_what_there_is_to_gain() -> None:
    assert timing("a", 1.0, merges=3, left_by_onnxruntime=3).group == "parallel branches"
    assert timing("b", 1.0, left_by_onnxruntime=3).group.startswith("batch-norms that onnxruntime")
    assert timing("c", 1.0).group == "plain"


def test_slower_means_beyond_noise() -> None:
    assert latency.slower(timing("a", 0.9))
    assert not latency.slower(timing("a", 0.98))
    assert not latency.slower(timing("a", 1.5))
    # The fastest run alone is no evidence where most pairs say the opposite.
    lucky = Comparison(1, (0.5, *(1.2,) * 9), (1.0,) * 10)
    assert not latency.slower(latency.Timing("a", 1, 0, 0, 0, (1, 1), 0.0, (lucky,)))


def test_the_document_tells_both_figures_and_who_is_slower() -> None:
    text = latency.text([timing("timm:fast", 5.0, merges=3), timing("timm:slow", 0.5)])
    assert "| timm:fast | 4 | 0 | 0 | 9 to 5 | 3 | 5.00 | 5.00 (5.00 to 5.00) | 1000.0 |" in text
    assert "Slower by both figures, beyond 3%: timm:slow." in text
    assert "| parallel branches | 1 | 5.00 to 5.00 | 5.00 to 5.00 |" in text
    assert "beyond 3%: none." in latency.text([timing("timm:fast", 5.0)])


def test_what_was_measured_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "latency.jsonl"
    first, second = timing("timm:a", 2.0, merges=1), timing("timm:a --through-relu", 3.0)
    latency.keep(path, "timm:a", [first, second])
    latency.keep(path, "timm:b", [timing("timm:b", 1.0)])
    assert [t.name for t in latency.read(path)] == ["timm:a", "timm:a --through-relu", "timm:b"]
    assert latency.read(path)[0] == first
    latency.keep(path, "timm:a", [timing("timm:a", 4.0)])
    assert [(t.name, latency.best(t.comparisons[0])) for t in latency.read(path)] == [
        ("timm:b", 1.0),
        ("timm:a", 4.0),
    ]


def test_its_own_networks_compute_something() -> None:
    for build in latency._OWN.values():
        assert build().settled
