"""What model.json says of the proof for every input, and that it is about the files beside it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converter.certificate import Certified, NotCertified, certify
from converter.certificate.identity import checker_sha256, graph_sha256
from converter.errors import UserError
from converter.files.onnx_file import write_onnx
from converter.pipeline import FoldResult, fold
from converter.publishing import certified
from converter.publishing.certified import certificate_of
from converter.publishing.versions import publish
from converter.report.certificate import describe_certificate, sentence
from converter.report.facts import describe_fold
from converter.sources import LoadOptions, load, onnx_
from service.certificate import Certificate
from service.manifest import Manifest
from tests.converter.published import check_version, graph

ROOT = Path(__file__).parents[3]
REFUSED = NotCertified(
    "'y', a Conv, has no equal in the original: a weight is inf where 1 was expected in channel 3.",
    "y", "Conv", 3, 1.0, math.inf, seconds=7.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def from_file(tmp_path_factory: pytest.TempPathFactory) -> FoldResult:
    path = tmp_path_factory.mktemp("source") / "net.onnx"
    onnx.save(graph().proto(), path)
    return fold(load(path, LoadOptions()))


def certificate(folder: Path) -> Certificate:
    found = check_version(folder).certificate
    assert found is not None
    return found


def test_the_figures_and_the_words_are_those_of_the_report(
    tmp_path: Path, from_file: FoldResult
) -> None:
    told = certificate(Path(publish(from_file, tmp_path / "net").path))
    report = describe_fold(from_file)
    assert told.certified is report["certificate"]["certified"] is True
    assert told.verdict == report["proof"]["conclusion"]
    said = sentence(from_file.certificate, measured=True, plan=from_file.plan)
    assert told.sentence == said == report["certificate"]["sentence"]
    assert told.figures is not None
    figures = report["certificate"]["figures"]
    assert told.figures.model_dump() == {k: v for k, v in figures.items() if k != "batchnorms"}
    assert told.batchnorms is not None
    assert (told.batchnorms.folded, told.batchnorms.kept) == (1, 1)
    assert told.where is None


def test_it_names_both_graphs_and_the_checker(tmp_path: Path, from_file: FoldResult) -> None:
    path = Path(publish(from_file, tmp_path / "net").path)
    told, source = certificate(path), from_file.loaded.path
    assert told.original is not None
    assert told.original.graph == graph_sha256(onnx_.read(source)[0])
    assert told.original.files == {"net.onnx": hashlib.sha256(source.read_bytes()).hexdigest()}
    assert told.checker == checker_sha256()
    assert str(source.parent) not in (path / "model.json").read_text()
    # What a reader does with it: the claim holds of the two files, whoever checks it.
    assert certify(onnx_.read(source)[0], onnx_.read(path / "model.onnx")[0])


def test_a_folder_as_source_has_no_hash(tmp_path: Path, proven: FoldResult) -> None:
    told = certificate(Path(publish(proven, tmp_path / "net").path))
    assert told.original is not None
    assert told.original.files == {}, "there is no such file"
    assert len(told.original.graph) == 64


def test_what_is_not_certified_says_where_and_is_published(
    tmp_path: Path, proven: FoldResult
) -> None:
    refused = replace(proven, certificate=REFUSED, proof=replace(proven.proof, certificate=REFUSED))
    told = certificate(Path(publish(refused, tmp_path / "net").path))
    assert not told.certified
    assert told.sentence == f"Not certified: {REFUSED.reason}"
    assert told.verdict == "Proven by the measurement alone: folded equals original."
    assert told.figures is None
    assert told.where is not None
    described = describe_certificate(REFUSED, measured=True)["where"]
    assert told.where.model_dump() == described
    assert (told.where.channel, told.where.found) == (3, None), "JSON has no infinity"
    nowhere = replace(refused, certificate=NotCertified("the check failed"))
    assert certificate(Path(publish(nowhere, tmp_path / "other").path)).where is None


def test_the_time_that_it_took_is_not_written(tmp_path: Path, proven: FoldResult) -> None:
    slower = replace(proven, certificate=replace(proven.certificate, seconds=99.0))
    one, other = (
        Path(publish(result, tmp_path / name / "net").path) / "model.json"
        for name, result in (("a", proven), ("b", slower))
    )
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("changed", ["checker", "figures", "seconds", "worse"])
def test_no_new_version_for_another_checker(
    tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    folder = tmp_path / "net"
    publish(proven, folder)
    assert isinstance(proven.certificate, Certified)
    found: Any = proven.certificate
    if changed == "checker":
        monkeypatch.setattr(certified, "checker_sha256", lambda: "0" * 64)
    elif changed == "figures":
        found = replace(found, largest_move=found.largest_move / 2, roundings=2.0)
    elif changed == "seconds":
        found = replace(found, seconds=99.0)
    else:
        found = REFUSED
    assert not publish(replace(proven, certificate=found), folder, if_changed=True).fresh


def test_a_new_version_where_there_was_no_certificate(tmp_path: Path, proven: FoldResult) -> None:
    """Of a version from before there were certificates, and of one that could not get one."""
    folder = tmp_path / "net"
    path = Path(publish(proven, folder).path) / "model.json"
    manifest = json.loads(path.read_text())
    del manifest["provenance"]["certificate"]
    path.write_text(json.dumps(manifest))
    refused = replace(proven, certificate=REFUSED)
    assert not publish(refused, folder, if_changed=True).fresh, "nothing is known more than before"
    assert publish(proven, folder, if_changed=True).version == 2
    assert not publish(proven, folder, if_changed=True).fresh
    assert publish(refused, folder).version == 3
    assert publish(proven, folder, if_changed=True).version == 4


def test_the_file_itself_is_certified_if_writing_has_changed_it(
    tmp_path: Path, from_file: FoldResult
) -> None:
    """A wrong weight in the file is found, although the graph in memory is certified."""
    path = tmp_path / "model.onnx"
    write_onnx(from_file.model, path)
    model = onnx.load(path)
    right = certificate_of(from_file, path, {})
    (weight,) = (w for w in model.graph.initializer if w.name.startswith("conv.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[2, 0, 0, 0] *= np.float32(1.001)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    wrong = certificate_of(from_file, path, {})
    assert right.certified
    assert right.verdict.startswith("Proven: folded equals original, for every input")
    assert not wrong.certified
    assert wrong.verdict == "Proven by the measurement alone: folded equals original."
    assert wrong.where is not None
    assert (wrong.where.op, wrong.where.channel) == ("Conv", 2)
    assert right.folded is not None
    assert wrong.folded is not None
    assert wrong.folded.graph != right.folded.graph


def test_a_proof_that_rests_on_the_certificate_needs_one_of_the_file(
    tmp_path: Path, from_file: FoldResult
) -> None:
    """Where the measurement alone does not pass, a file that is not certified is not published."""
    path = tmp_path / "model.onnx"
    write_onnx(from_file.model, path)
    first, *others = from_file.proof.measurements
    unlucky = replace(first, candidate_error=3 * first.allowed)
    assert unlucky.verdict == "differs"
    proof = replace(from_file.proof, measurements=(unlucky, *others))
    rests = replace(from_file, proof=proof)
    assert proof.passed
    assert certificate_of(rests, path, {}).certified
    model = onnx.load(path)
    model.graph.node[0].op_type, wrong = "Identity", tmp_path / "wrong.onnx"
    del model.graph.node[0].input[1:], model.graph.node[0].attribute[:]
    onnx.save(model, wrong)
    with pytest.raises(UserError, match="as it was written is not certified: Not certified: "):
        certificate_of(rests, wrong, {})


def test_another_form_of_the_same_graph_is_certified(tmp_path: Path, from_file: FoldResult) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(from_file.model, path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["inner" if name == "logits" else name for name in node.output]
    model.graph.node.add(op_type="Identity", input=["inner"], output=["logits"])
    onnx.save(model, path)
    told = certificate_of(from_file, path, {})
    assert told.certified
    assert told.folded is not None
    assert told.folded.graph != graph_sha256(from_file.model)


def test_the_shipped_model_is_certified() -> None:
    folder = ROOT / "models" / "mnist"
    manifest = Manifest.model_validate_json((folder / "1" / "model.json").read_bytes())
    told = manifest.certificate
    assert told is not None
    assert told.certified, told.sentence
    assert told.original is not None
    checkpoint = hashlib.sha256((folder / "checkpoint.pt").read_bytes()).hexdigest()
    assert told.original.files == {"checkpoint.pt": checkpoint}
    assert told.folded is not None
    assert told.folded.graph == graph_sha256(onnx_.read(folder / "1" / "model.onnx")[0])
