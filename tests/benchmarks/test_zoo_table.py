"""The document: what it says about rows that are known, and in which order things are run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import document
from benchmarks.zoo import table
from benchmarks.zoo.catalogue import Architecture, Catalogue, in_order, versions
from benchmarks.zoo.catalogue import read as read_catalogue
from benchmarks.zoo.catalogue import write as write_catalogue

LISTED = Catalogue(
    versions(),
    {"timm": 5, "torchvision": 1},
    {"timm:odd": "ValueError: no"},
    (
        Architecture("timm:a", "timm.one", 10, 100),
        Architecture("timm:b", "timm.one", 20, 200),
        Architecture("timm:c", "timm.two", 5, 300),
        Architecture("torchvision:d", "torchvision.resnet", 5, 50),
    ),
)


def row(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "family": "timm.one", "engine": "abc", "status": "ok", "batchnorms": 10,
        "left": 0, "left_through_relu": 0,
        "sites": [10, 10], "scale_shifts": [2, 1], "reasons": {}, "merges": 0,
        "verdict": "proven", "why": "", "exact": 1e-14, "sensitivity": 0.5, "max_abs": 2.0,
        "error_original": 2e-6, "error_folded": 4e-6, "export_seconds": 3.0, "fold_seconds": 0.5,
        "proof_seconds": 2.0, "exporter": "dynamo", "input": [[3, 64, 64]],
        "peers": {
            "onnxruntime": {"left": 3, "right": True, "error_ratio": 0.5},
            "onnxslim": {"error": "IndexError"},
        },
    } | more  # fmt: skip


def made(*rows: dict[str, Any]) -> str:
    return table.text({row["name"]: row for row in rows}, LISTED, "abc", "c1")


def test_rows_of_a_former_converter_are_told() -> None:
    text = made(row("timm:a"), row("timm:b", engine="def0123456", exporter="TorchScript"))
    assert (
        "rows by that of the day this was written, abc: 1; by former ones: 1 by def0123456" in text
    )
    assert "| torch.export | abc |" in text
    assert "| TorchScript | def012 |" in text
    assert "does: 1. By TorchScript" in text
    assert "former" not in made(row("timm:a"))


def certified(name: str, **more: Any) -> dict[str, Any]:
    return row(name) | {
        "certified": True, "certificate": "Certified.", "certify_seconds": 0.4, "checker": "c1",
        "certified_weights": 1000, "largest_move": 0.75,
    } | more  # fmt: skip


def test_it_says_what_is_certified_and_why_the_rest_is_not() -> None:
    doubtful = {"certified": False, "certificate": "Not certified: 'y', a Conv, is another."}
    text = made(
        certified("timm:a"), certified("timm:b", largest_move=1.25), certified("timm:c", **doubtful)
    )
    assert "**Certified: 2 of 3 folds**, all of them in 0 of 1 families." in text
    assert "Of 2,000 weights none was moved by more than 1.25 roundings (timm:b)." in text
    assert "| timm:c | Not certified: 'y', a Conv, is another. |" in text
    assert "former ones" not in text
    text = made(certified("timm:a", checker="c0"), row("timm:b"))
    assert "**Certified: 1 of 1 folds**, all of them in 1 of 1 families. Not asked yet: 1." in text
    assert "The checker of the day this was written is c1; former ones: 1 by c0." in text
    assert "No row says so yet." in made(row("timm:a"))


def test_it_says_how_many_of_how_many() -> None:
    text = made(row("timm:a"), row("timm:b", status="not exported", error={
        "class": "TypeError", "sentence": "no"}))  # fmt: skip
    assert "**Run: 2 of the 4 architectures" in text
    assert "timm: 2 of 3 (it lists 5 in all)" in text
    assert "Folded: 1, from 1 of 3 families" in text
    assert "timm:odd" in text
    assert "| not exported | TypeError | 1 | timm:b | no |" in text
    assert "## Not run yet (2)\n\n* timm.two: c\n* torchvision.resnet: d" in text


def test_totals_of_peers_are_of_where_they_ran() -> None:
    text = made(row("timm:a"), row("timm:c", left=4, peers={"onnxruntime": {
        "left": 2, "right": True, "error_ratio": 1.0}}))  # fmt: skip
    assert "| **Foldserve** | 2 | 20 | 4 | 4 | 1 |  | 0 | 0 |" in text
    assert "| onnxruntime | 2 | 20 | 5 | 4 | 0 | 1 | 0 | 0 |" in text
    assert "| onnxslim | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |" in text


def test_where_a_peer_leaves_fewer_is_listed() -> None:
    assert "## Where a peer leaves fewer\n\nNowhere." in made(row("timm:a"))
    text = made(row("timm:a", left=4, reasons={"sign": [4, "bn1: why"]}))
    assert "| timm:a | onnxruntime | 3 | 4 | 4 sign |" in text


def test_a_wrong_peer_beats_nobody_and_is_told() -> None:
    wrong = {"onnxruntime": {"left": 0, "right": False, "error_ratio": 1e4}}
    text = made(row("timm:a", left=4, peers=wrong))
    assert "Nowhere." in text
    assert "| timm:a | onnxruntime | error 1e+04 times the allowed one |" in text


def test_our_own_wrong_results_are_told() -> None:
    text = made(row("timm:a", verdict="wrong", why="y, batch 1: error 1", exact=0.5))
    assert "| timm:a | wrong | y, batch 1: error 1 | 5e-01 |" in text
    assert "Algebra: 1 of 1 above 1e-09" in text


def test_reasons_come_with_an_explanation_and_an_example() -> None:
    text = made(row("timm:a", left=2, reasons={"padding": [2, "bn1: Conv c pads with zeros."]}))
    (line,) = (line for line in text.splitlines() if line.startswith("| `padding`"))
    assert "| 2 | 1 |" in line
    assert "zero padding" in line
    assert "timm:a, bn1: Conv c pads with zeros." in line


def test_only_the_part_between_the_markers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "zoo.md"
    document.write(path, "make it", "one", "# Title\n\nBefore.\n")
    path.write_text(path.read_text().replace("Before.", "My words.") + "After.\n")
    document.write(path, "make it", "two", "ignored")
    text = path.read_text()
    assert text.startswith("# Title\n\nMy words.\n")
    assert text.endswith("After.\n")
    assert "two" in text
    assert "one" not in text
    path.write_text("no markers")
    with pytest.raises(ValueError, match="has no markers"):
        document.write(path, "make it", "three", "")


def test_a_table_escapes_what_would_break_it() -> None:
    text = document.table(["a", "b"], [["x|y", "1\n2"]], " r")
    assert text == "| a | b |\n| :--- | ---: |\n| x\\|y | 1 2 |"


def test_the_first_ones_are_of_all_families() -> None:
    nets = [
        Architecture("timm:large", "timm.one", 1, 900),
        Architecture("timm:small", "timm.one", 1, 100),
        Architecture("timm:middle", "timm.one", 1, 500),
        Architecture("timm:other", "timm.two", 1, 5000),
        Architecture("torchvision:detector", "torchvision.detection.x", 1, 10),
        Architecture("torchvision:net", "torchvision.x", 1, 700),
        Architecture("timm:resnet50", "timm.three", 1, 9000),
    ]
    assert [a.name for a in in_order(nets)] == [
        "timm:resnet50", "timm:small", "timm:other", "torchvision:net", "torchvision:detector",
        "timm:middle", "timm:large",
    ]  # fmt: skip


def test_the_catalogue_is_made_again_for_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    write_catalogue(path, LISTED)
    assert read_catalogue(path) == LISTED
    path.write_text(path.read_text().replace(LISTED.versions["timm"], "0.0"))
    assert read_catalogue(path) is None
