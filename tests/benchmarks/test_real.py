"""The benchmark of other people's models, on a wheel made here: no network, no package."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from benchmarks.real import compare, fetch, libraries, packages, progress, runner, table
from benchmarks.real.case import Case
from benchmarks.zoo import results
from converter.report.progress import Live

pytestmark = pytest.mark.slow

TINY = Case("made-up/tiny.onnx", "made-up", "1.0", "made_up/models/tiny.onnx")


def tiny() -> bytes:
    """A convolution and a batch-norm, of 2 channels."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((2, 3, 3, 3)),
        "scale": np.array([0.5, -1.5]),
        "shift": np.array([0.1, 0.2]),
        "mean": np.array([0.3, -0.4]),
        "var": np.array([0.7, 1.9]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 3, 3])],
        [numpy_helper.from_array(a.astype(np.float32), k) for k, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


@pytest.fixture
def settings(tmp_path: Path) -> runner.Settings:
    folder = tmp_path / "packages" / "made-up-1.0"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "made_up-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up/__init__.py", "raise SystemExit('it was run')")
        wheel.writestr("made_up/models/tiny.onnx", tiny())
        wheel.writestr("made_up/models/bad.onnx", b"no model")
    return runner.Settings(
        results=tmp_path / "files.jsonl",
        cache=tmp_path,
        seconds=60.0,
        memory=2 * 10**9,
        preload="benchmarks.zoo.limits",
    )


def run(settings: runner.Settings, *cases: Case) -> list[dict[str, Any]]:
    return runner.run(cases, settings, progress.Listener(Live(Console(quiet=True))))


def test_a_file_of_a_wheel_goes_through_the_whole_chain(settings: runner.Settings) -> None:
    (row,) = run(settings, TINY)
    assert row["status"] == "served", row
    assert (row["batchnorms"], row["folded"], row["proven"]) == (1, 1, True)
    assert row["error"] < 1e-5
    ways = [asked["through"] for asked in row["asked"]]
    assert ways == ["through_json", "through_v2", "through_v2, at once"]
    assert row["fold_peak_mb"] > 50
    assert row["serve_peak_mb"] > 20
    assert results.read(settings.results) == {TINY.name: row}
    shown = table.text({"files": {TINY.name: row}}, row["engine"])
    assert "**1 files of 1 packages: 1 served, 0 wrong.** Of 1 batch-norms 1 are folded" in shown
    assert "| made-up 1.0 | tiny.onnx | 1 | 1 | 0 | 0 | proven | yes | yes |" in shown
    assert "**Certified for every input, from the file as it is: 1 of 1**" in shown
    assert row["certificate"].startswith("Certified for every input: 1 of 1 batch-norms; ")
    doubtful = row | {"certified": False, "certificate": "Not certified: 'y' is another."}
    shown = table.text({"files": {TINY.name: doubtful}}, row["engine"])
    assert "| proven | no | yes |" in shown
    assert "| made-up/tiny.onnx | Not certified: 'y' is another. |" in shown


def test_a_refusal_is_a_row_with_its_sentence(settings: runner.Settings) -> None:
    bad = replace(TINY, name="made-up/bad.onnx", member="made_up/models/bad.onnx")
    gone = replace(TINY, name="made-up/gone.onnx", member="made_up/models/gone.onnx")
    rows = run(settings, bad, gone)
    assert [row["status"] for row in rows] == ["refused", "not there"]
    assert rows[0]["said"].startswith("error: bad.onnx is not a model file")
    assert "has no file" in rows[1]["sentence"]
    shown = table.text({"files": {row["name"]: row for row in rows}}, rows[0]["engine"])
    assert "not a model file of a kind that is known" in shown


def test_a_file_lies_in_the_cache_whatever_its_member_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "packages" / "made-up-1.0"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "made_up-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up/models/../../../../out.onnx", b"1")
    case = replace(TINY, member="made_up/models/../../../../out.onnx")
    with pytest.raises(fetch.UnobtainableError, match="leaves"):
        fetch.file_of(case, tmp_path)


def test_an_answer_that_differs_is_wrong() -> None:
    wanted = {"y": np.array([1.0, -2.0], np.float32), "k": np.array([1, 2])}
    assert compare.answers(dict(wanted), wanted, {})["right"]
    close = wanted | {"y": np.array([1.0, -2.0 + 1e-4], np.float32)}
    assert compare.answers(close, wanted, {})["right"]
    assert not compare.answers(close, wanted, {"y": 1e-5})["right"]
    for other in (
        {"y": np.array([1.0, -2.1], np.float32)},
        {"y": np.array([1.0, np.nan], np.float32)},
        {"y": np.array([[1.0, -2.0]], np.float32)},
        {"k": np.array([1, 3])},
    ):
        assert not compare.answers(wanted | other, wanted, {})["right"]
    told = compare.answers({"y": wanted["y"]}, wanted, {})
    assert (told["right"], told["left_out"]) == (True, ["k"])
    assert not compare.answers({}, wanted, {})["right"]


def test_the_catalogues_name_what_can_be_asked_for() -> None:
    files, networks = packages.cases(), libraries.cases()
    for cases in (files, networks):
        assert len({case.name for case in cases}) == len({case.slug for case in cases})
        assert len({case.name for case in cases}) == len(cases)
        for case in cases:
            assert case.version
            assert len(case.words) % 2 == 0
            assert Case.from_json(case.to_json()) == case
    assert len(files) >= 40
    assert len({case.package for case in files}) >= 20
    assert len(networks) >= 60
    assert all(case.member for case in files)
    assert all(case.said("--arch") and case.said("--input-shape") for case in networks)


def test_the_model_of_these_tests_is_one() -> None:
    onnx.checker.check_model(onnx.load_from_string(tiny()))
