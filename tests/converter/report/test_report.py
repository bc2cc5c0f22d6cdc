"""The report for programs has the form that docs/report.md describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import onnx
import pytest
from pydantic import BaseModel, ConfigDict

from converter.cli import main
from patterns.graphs import Graph
from tests.converter.previews import mixed

DOCUMENT = (Path(__file__).parents[3] / "docs" / "report.md").read_text(encoding="utf-8")


class Form(BaseModel):
    """Nothing missing, nothing that is not documented."""

    model_config = ConfigDict(extra="forbid", strict=True)


class InputForm(Form):
    name: str
    dtype: str
    shape: list[int | str]


class Source(Form):
    file: str
    kind: str
    inputs: list[InputForm]
    dynamic_batch: bool
    notes: list[str]
    warnings: list[str]


class HazardForm(Form):
    code: str
    sentence: str
    count: int
    of: int
    channels: list[int]
    value: float | None
    where: str


class Other(Form):
    code: str
    reason: str
    hint: str


class DecisionForm(Form):
    name: str
    kind: Literal["batch-norm", "scale-shift"]
    ops: list[str]
    channels: int | None
    folded: bool
    warnings: list[str]
    hazards: list[HazardForm]


class Goes(DecisionForm):
    folded: Literal[True]
    direction: Literal["backward", "forward", "both ways", "in parallel"]
    into: list[str]
    path: list[str]
    stays: str | None


class Stays(DecisionForm):
    folded: Literal[False]
    code: str
    reason: str
    hint: str
    forward: Other | None


class Reason(Form):
    count: int
    summary: str
    names: list[str]
    example: str
    code: str
    op: str | None


class MergeForm(Form):
    into: str
    branches: list[str]


class PlanForm(Form):
    batchnorms: int
    folded: int
    kept: int
    decisions: list[Goes | Stays]
    scale_shifts: list[Goes | Stays]
    reasons: list[Reason]
    merges: list[MergeForm]


class SizeForm(Form):
    batchnorms: int
    nodes: int
    multiply_adds: int | None
    uncounted: list[str]
    parameters: int
    bytes: int


class Sentence(Form):
    sentence: str
    names: list[str]


class Kind(Form):
    code: str
    sentences: list[Sentence]


class Provenance(Form):
    file: str
    bytes: int | None
    sha256: str | None
    command: str
    date: str
    versions: dict[str, str]


class MapForm(Form):
    channels: int
    axis: int
    scale: list[float] | None
    shift: list[float] | None


class Numbers(MapForm):
    positive: int
    negative: int
    zero: int


class StepForm(Form):
    op: str
    formula: str
    way: str
    met: MapForm | None
    left: list[MapForm]


class Success(Form):
    direction: str
    succeeded: Literal[True]
    steps: list[StepForm]
    into: list[str]


class Stop(Form):
    direction: str | None
    succeeded: Literal[False]
    steps: list[StepForm]
    stopped_at: str | None
    code: str
    reason: str
    hint: str


class ConstantForm(Form):
    name: str
    change: Literal["made", "changed", "unchanged"]
    before: list[int] | None
    after: list[int]


class Taker(Form):
    op: str
    constants: list[ConstantForm]
    merged_into: str | None


class BoxForm(Form):
    op: str
    name: str
    layer: int
    role: str


class Around(Form):
    boxes: list[BoxForm]
    edges: list[list[int]]


class ExplanationForm(Form):
    name: str
    kind: str
    ops: list[str]
    channels: int | None
    folded: bool
    warnings: list[str]
    numbers: Numbers | None
    attempts: list[Success | Stop]
    remainder: MapForm | None
    because: str | None
    absorbed: list[Taker]
    neighbourhood: Around | None


class MeasurementForm(Form):
    output: str
    inputs: str
    max_abs: float | None
    error_original: float | None
    error_folded: float | None
    allowed: float | None
    passed: bool
    verdict: Literal["equal", "differs", "unmeasured"]
    excused: bool
    problem: str
    part: str


class InvarianceForm(Form):
    holds: bool
    difference: float | None
    allowed: float | None
    problem: str


class RanForm(Form):
    name: str
    turns: int
    forced: bool
    alone: bool
    dead: bool
    whose: str
    covered: bool


class ProofForm(Form):
    passed: bool
    verdict: Literal["equal", "differs", "unmeasured"]
    conclusion: str
    rests_on: list[Literal["certificate", "measurement"]]
    unmeasured: list[str]
    ran: list[RanForm]
    failure: str
    unchanged: str
    rule: str
    measurements: list[MeasurementForm]
    parts: list[MeasurementForm]
    framework: list[dict[str, Any]]
    batch_invariance: InvarianceForm | None
    notes: list[str]


class Figures(Form):
    batchnorms: int
    weights: int
    largest_move: float
    roundings: float
    sizes: list[dict[str, int]]


class Where(Form):
    value: str
    op: str
    channel: int | None
    expected: float | None
    found: float | None


class Graphs(Form):
    original: str | None
    candidate: str | None


class CertificateForm(Form):
    certified: bool
    sentence: str
    figures: Figures | None
    where: Where | None
    seconds: float
    graphs: Graphs | None = None


class Certified(Form):
    format: Literal["foldserve.report/1"]
    original: str
    candidate: str
    certificate: CertificateForm


class Verified(Certified):
    proof: ProofForm


class Inspected(Form):
    format: Literal["foldserve.report/1"]
    source: Source
    plan: PlanForm
    warnings: list[Kind]
    hazards: list[HazardForm]
    advice: list[HazardForm]
    before: SizeForm
    after: SizeForm
    provenance: Provenance


class Explained(Inspected):
    explanations: list[ExplanationForm]


class Fold(Inspected):
    proof: ProofForm
    certificate: CertificateForm
    fold_seconds: float
    written: list[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    g = Graph("float32")
    y = mixed(g, g.input("x", "N", 4, 6, 6))
    mean = g.const([[[1.0]], [[2.0]], [[3.0]], [[4.0]]])
    y = g.op("Mul", g.op("Tanh", y), mean)
    g.output(g.op("Exp", g.op("Conv", y, g.weight(4, 4, 3, 3))), shape=["N", 4, 4, 4])
    path = tmp_path_factory.mktemp("report") / "net.onnx"
    onnx.save(g.proto(), path)
    return path


def report(*arguments: str, path: Path) -> str:
    assert main([*arguments, "--json", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def test_of_a_fold(model: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "o.onnx")
    text = report("fold", str(model), "--output", out, path=tmp_path / "r.json")
    found = Fold.model_validate_json(text)
    assert found.plan.folded + found.plan.kept == found.plan.batchnorms == 4
    assert [reason.count for reason in found.plan.reasons] == [1, 1]
    assert [merge.branches for merge in found.plan.merges] == [["batch-norm bn2"]]
    assert found.plan.scale_shifts
    assert found.before.multiply_adds is not None
    assert found.after.multiply_adds is not None
    assert found.after.multiply_adds < found.before.multiply_adds
    assert found.provenance.command.startswith("python -m converter fold ")
    assert found.provenance.sha256 is not None
    assert found.written == [out]


def test_of_an_inspection(model: Path, tmp_path: Path) -> None:
    text = report("inspect", str(model), path=tmp_path / "r.json")
    assert Inspected.model_validate_json(text).after.batchnorms == 2
    text = report("inspect", str(model), "--explain", "bn*", path=tmp_path / "e.json")
    found = Explained.model_validate_json(text)
    assert [told.name for told in found.explanations] == ["bn1", "bn2", "bn3", "bn4"]
    assert json.loads(text)["plan"]["batchnorms"] == 4


def test_of_a_certificate(model: Path, tmp_path: Path) -> None:
    files = str(model), str(model)
    text = report("verify", *files, "--certify=only", path=tmp_path / "r.json")
    assert Certified.model_validate_json(text).certificate.figures is not None
    text = report("verify", *files, "--certify", path=tmp_path / "r.json")
    assert Verified.model_validate_json(text).proof.passed


def forms(form: type[Form]) -> list[type[Form]]:
    return [form, *(sub for child in form.__subclasses__() for sub in forms(child))]


@pytest.mark.parametrize("form", forms(Form)[1:], ids=lambda form: form.__name__)
def test_every_field_is_documented(form: type[Form]) -> None:
    for name in form.model_fields:
        assert re.search(rf"`{name}`", DOCUMENT), name
