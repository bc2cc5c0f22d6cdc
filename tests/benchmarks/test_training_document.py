"""The document of the claims, from records that are made up."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import training
from experiments import report
from experiments.claims import CLAIMS
from tests.experiments.made import record


def test_the_document_has_its_pictures_and_says_what_is_missing(tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.name == "mlp-sgd")
    told = report.of_claims([claim], [record(s) for s in claim.runs()], "compare")
    path = tmp_path / "training.md"
    text = training.written(told, path)
    named = set(re.findall(r'(?:src|srcset)="training/([^"]+)"', text))
    assert named == {"mlp-sgd-accuracy-light.svg", "mlp-sgd-accuracy-dark.svg"}
    assert named == {file.name for file in (tmp_path / "training").iterdir()}
    assert "does not hold" in text
    missing = training.unmeasured(list(CLAIMS), told)
    assert "sigmoid-sgd" in missing
    assert "mlp-sgd" not in missing


def test_every_picture_belongs_to_a_claim() -> None:
    assert set(training.PICTURES) <= {claim.name for claim in CLAIMS}
