"""What the command line, the reports and the manifest say of what a proof could not tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.certificate import NotCertified
from converter.cli import main
from converter.pipeline import fold
from converter.publishing.versions import publish
from converter.sources import LoadOptions, load
from service.manifest import Manifest
from tests.converter.proof.test_coverage import drawing, squeezing
from tests.converter.proof.test_luck import heatmap
from tests.converter.proof.test_verify import changed, folded


def save(model: ir.Model, path: Path) -> Path:
    onnx.save(ir.serde.serialize_model(model), path)
    return path


def told(arguments: list[str], code: int, tmp_path: Path) -> dict[str, Any]:
    report = tmp_path / "report.json"
    assert main([*arguments, "--json", str(report)]) == code
    proof: dict[str, Any] = json.loads(report.read_text())["proof"]
    return proof


def test_verify_has_three_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = heatmap(-14.0)
    a = save(model, tmp_path / "a.onnx")
    right = save(folded(model), tmp_path / "b.onnx")
    wrong = save(changed(folded(model), "head.weight", lambda w: 1.5 * w), tmp_path / "c.onnx")
    assert told(["verify", str(a), str(right)], 0, tmp_path)["verdict"] == "equal"
    assert "Proven: B equals A." in capsys.readouterr().out
    assert told(["verify", str(a), str(wrong)], 1, tmp_path)["verdict"] == "differs"
    assert "Not proven: B differs." in capsys.readouterr().out
    noise = save(drawing("RandomNormalLike"), tmp_path / "n.onnx")
    proof = told(["verify", str(noise), str(noise)], 3, tmp_path)
    assert (proof["verdict"], proof["passed"]) == ("unmeasured", False)
    assert proof["unmeasured"] == ["noisy"]
    out = capsys.readouterr().out
    assert "Not proven, and not refuted" in out
    assert "cannot tell" in out
    assert "Proven" not in out


def test_fold_writes_nothing_of_what_it_cannot_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = save(drawing("RandomUniformLike"), tmp_path / "n.onnx")
    assert main(["fold", str(noise), "-o", str(tmp_path / "o.onnx")]) == 3
    assert not (tmp_path / "o.onnx").exists()
    assert "Nothing was written" in capsys.readouterr().out


def test_a_branch_that_never_ran_is_named_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (save(squeezing(w), tmp_path / f"{w}.onnx") for w in (2.0, 3.0))
    assert told(["verify", str(a), str(b)], 0, tmp_path)["verdict"] == "equal"
    out = " ".join(capsys.readouterr().out.split())
    assert "1 never ran" in out
    assert "Proven as far as it ran: B equals A there. Not proven of what never ran: then_" in out


def test_the_manifest_names_what_is_not_covered(tmp_path: Path) -> None:
    result = fold(load(save(heatmap(-14.0), tmp_path / "a.onnx"), LoadOptions()))
    from dataclasses import replace

    from converter.proof.coverage import Ran

    ran = (Ran("then_branch of If y", 0), Ran("else_branch of If y", 3))
    assert result.proof.certificate
    certified = replace(result, proof=replace(result.proof, ran=ran))
    published = publish(certified, tmp_path / "models" / "certified")
    manifest = Manifest.model_validate_json((published.path / "model.json").read_text())
    assert manifest.provenance["proof"]["not_covered"] == [], "the certificate is for both branches"
    doubt = NotCertified("there is a mystery.")
    result = replace(result, proof=replace(result.proof, ran=ran, certificate=doubt))
    published = publish(result, tmp_path / "models" / "head")
    manifest = Manifest.model_validate_json((published.path / "model.json").read_text())
    assert manifest.provenance["proof"]["not_covered"] == ["then_branch of If y"]
    assert manifest.self_test is not None
    sample = np.load(published.path / "selftest.npz")
    assert np.abs(sample["output:y"]).max() > 10 * manifest.self_test.atol["y"], "it tells"
